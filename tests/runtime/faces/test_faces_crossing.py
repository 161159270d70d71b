"""Two people cross and one leaves: the dubbed one stays the same, frames without them are the source's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import QUICK, write_speech, write_video
from crossing_clip import FRAMES, HEIGHT, LEAVES, WIDTH, crossing_frames, places
from toy_face_graphs import landmarks
from toy_networks import publish_toys

from dubstream.engines.face_specs import BGR_MEANS, DETECTOR_SIZE
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks
from dubstream.runtime.faces.networks import NetworkDetector, NetworkLandmarks
from dubstream.runtime.faces.observations import Observations
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.faces.selector import FaceSelector
from dubstream.runtime.faces.track import Track, resolve_track
from dubstream.runtime.job import dub as dubbing
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.media.writer import SegmentWriter
from dubstream.runtime.options.dub import DubOptions, DubRequest, FaceOptions, StreamOptions

pytest.importorskip("skimage.data")

SAME = 25.0  # pixels from a head's true middle to its box's; the heads are 130 wide


@pytest.fixture(scope="module", params=[0, 1])
def seen(request: pytest.FixtureRequest) -> tuple[int, Observations]:
    frames = enumerate(crossing_frames(request.param))
    return request.param, observe(frames, CascadeDetector(), CascadeLandmarks())


def distances(track: Track, person: int, shown: Sequence[int] = range(FRAMES)) -> np.ndarray:
    """From a person's true middle to the track's in every frame it is present; far where they are gone."""
    middles = track.box.reshape(-1, 2, 2).mean(axis=1)
    true = [places(frame)[person] or (np.inf, np.inf) for frame in shown]
    return np.hypot(*(middles - np.array(true)).T)[track.present]


@pytest.mark.parametrize("person", [0, 1])
def test_the_track_never_changes_person(seen: tuple[int, Observations], person: int) -> None:
    front, observations = seen
    track = resolve_track(observations, WIDTH, HEIGHT, FaceSelector("index", index=person))
    assert distances(track, person).max() < SAME
    assert track.present[:10].all()
    gone = [frame for frame in range(FRAMES) if places(frame)[1] is None]
    if person == front:
        assert track.present[:LEAVES].all()
    else:
        assert not track.present[20:26].any()  # behind the other
        assert track.present[31:LEAVES].all()
    assert person == 0 or (len(gone) > 3 and not track.present[gone].any())


@pytest.mark.parametrize("person", [0, 1])
def test_a_cut_to_swapped_places_swaps_nobody(person: int) -> None:
    frames = crossing_frames(0)
    shown = [*range(14), *range(30, LEAVES + 1)]
    assert abs(places(13)[0][0] - places(30)[1][0]) < 10  # type: ignore[index]
    seen = observe(enumerate(frames[at] for at in shown), CascadeDetector(), CascadeLandmarks())
    track = resolve_track(seen, WIDTH, HEIGHT, FaceSelector("index", index=person), max_gap=0)
    assert distances(track, person, shown).max() < SAME
    assert track.present.sum() >= 14


class Scripted:
    """S3FD as it should be, in place of the network: it sees both heads but for one behind the other."""

    def __init__(self, front: int) -> None:
        self._front = front
        self.image = np.zeros((3, *DETECTOR_SIZE), np.float32)

    def input(self, name: str) -> np.ndarray:
        return self.image

    def run(self) -> dict[str, np.ndarray]:
        frame = round(float(self.image[0, 0, 0]) + BGR_MEANS[0])  # written there by the test
        first, second = places(frame)
        shown = {0: first, 1: second}
        if first and second and abs(first[0] - second[0]) < 70:
            del shown[1 - self._front]
        seen = [(*place, 0.9 - 0.1 * who) for who, place in shown.items() if place is not None]
        table = np.array(seen, np.float32).reshape(-1, 3)
        half = np.array([38.0, 50.0])
        boxes = np.concatenate([table[:, :2] - half, table[:, :2] + half], axis=1)
        return {"boxes": boxes, "scores": table[:, 2]}


class Frontal(Scripted):
    """FAN-4 for a frontal face that fills its box."""

    def __init__(self) -> None:
        self.image = np.zeros((256, 256, 3), np.uint8)

    def run(self) -> dict[str, np.ndarray]:
        y, x = np.mgrid[:64, :64]
        at = 64 * landmarks() - 0.5
        distance = (x - at[:, :1, None]) ** 2 + (y - at[:, 1:, None]) ** 2
        return {"heatmaps": np.exp(-distance / 2).astype(np.float16)}


@pytest.mark.parametrize("front", [0, 1])
def test_nor_does_it_with_networks(front: int) -> None:
    frames = [frame.copy() for frame in crossing_frames(front)]
    for number, frame in enumerate(frames):
        frame[0, 0, 0] = number
    seen = observe(enumerate(frames), NetworkDetector(Scripted(front)), NetworkLandmarks(Frontal()))
    for person in (0, 1):
        track = resolve_track(seen, WIDTH, HEIGHT, FaceSelector("index", index=person))
        assert distances(track, person).max() < SAME
        assert track.present[:10].all()
        assert track.present[30:LEAVES].all()
        eyes = track.points[track.present, :2].mean(axis=1)
        assert np.abs(eyes[:, 0] - track.box[track.present][:, [0, 2]].mean(axis=1)).max() < 6


def test_the_dub_changes_that_person_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who passes behind the other and then leaves."""
    person = 1
    written: list[np.ndarray] = []

    class Recorder(SegmentWriter):
        def write(self, picture: np.ndarray) -> None:
            written.append(picture.copy())
            super().write(picture)

    monkeypatch.setattr(dubbing, "SegmentWriter", Recorder)
    video = write_video(tmp_path / "two.mp4", crossing_frames(1 - person))
    voice = write_speech(tmp_path / "voice.wav", FRAMES / 25)
    options = DubOptions(
        face=FaceOptions(str(person)), stream=StreamOptions(batch=4, threads=1), encode=replace(QUICK, crf=0)
    )
    toys = publish_toys(tmp_path / "toys")
    summary = dubbing.dub(DubRequest(video, voice, tmp_path / "out.mp4", toys, tmp_path / "cache", options))
    limits = MediaLimits()
    with VideoReader(probe_video(video, limits), limits) as reader:
        source = [frame for _, frame in reader.frames()]
    assert len(written) == len(source) == FRAMES
    changed = [(ours != theirs).any(axis=2) for ours, theirs in zip(written, source, strict=True)]
    without = {frame for first, stop in summary.absent for frame in range(first, stop)}
    assert len(without) >= 8
    for frame, mask in enumerate(changed):
        assert mask.any() == (frame not in without)  # frames without the person are the source's bytes
        if mask.any():
            place = places(frame)[person]
            rows, columns = np.nonzero(mask)
            assert place is not None
            assert abs(columns.mean() - place[0]) < SAME
            assert rows.mean() > place[1]  # the mouth's half
