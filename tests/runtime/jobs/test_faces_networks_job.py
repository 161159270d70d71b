"""Whole preparations with faces found by toy networks, and people chosen by a reference picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_speech, write_video
from crossing_clip import HEIGHT, WIDTH, crossing_frames, places
from toy_face_graphs import FACE_BOX, swaying_portrait
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import MediaError, NoFaceError, StageError, UsageError
from dubstream.engines.face_specs import DETECTOR_SIZE
from dubstream.runtime.cli.app import run
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks
from dubstream.runtime.faces.identities import people
from dubstream.runtime.faces.likeness import most_alike, views
from dubstream.runtime.faces.observations import MEASURED, Observations
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.options.dub import DubOptions, FaceOptions, StreamOptions
from dubstream.runtime.platforms.platform import open_platform
from dubstream.runtime.preparation.clip_faces import Clip, ClipFaces
from dubstream.runtime.preparation.prepare_video import PrepareRequest, PrepareSummary, prepare
from dubstream.runtime.progress import silent
from dubstream.runtime.timing import Timing

STREAM = StreamOptions(batch=2, threads=1)
FRAMES = 8


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return publish_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("media") / "one.mp4", map(swaying_portrait, range(FRAMES)))


def prepared(video: Path, toys: dict[str, Artifact], cache: Path, finder: str = "networks") -> PrepareSummary:
    options = DubOptions(face=FaceOptions(finder=finder, detect_every=3), stream=STREAM)
    needed = {name: toys[name] for name in options.networks}
    return prepare(PrepareRequest(video, needed, cache, options))


def test_a_preparation_by_networks_names_them(video: Path, toys: dict[str, Artifact], tmp_path: Path) -> None:
    summary = prepared(video, toys, tmp_path)
    assert summary.present == FRAMES
    assert {"track", "track/s3fd", "track/fan4"} <= summary.busy_s.keys()
    assert min(summary.busy_s.values()) > 0
    facts = json.loads((Path(summary.folder) / "made-from.txt").read_text())
    assert facts["finder"] == {name: toys[name].digest for name in ("s3fd", "fan4")}
    with np.load(Path(summary.folder) / "observations-00000.npz") as arrays:
        seen = Observations.from_arrays(arrays)
    assert seen.frame[seen.kind == MEASURED].tolist() == [0, 3, 6]
    box = np.array(FACE_BOX) * np.tile(DETECTOR_SIZE[::-1], 2)
    np.testing.assert_allclose(seen.measured[0, :4], box, atol=0.01)
    eyes = seen.measured[0, 4:8].reshape(2, 2)
    assert box[0] < eyes[0, 0] < eyes[1, 0] < box[2]
    assert box[1] < eyes[0, 1] < box[3]


def test_another_finder_and_another_network_are_another_preparation(
    video: Path, toys: dict[str, Artifact], tmp_path: Path
) -> None:
    retrained = {
        **toys,
        "fan4": replace(toys["fan4"], sidecar=replace(toys["fan4"].sidecar, sha256="0" * 64)),
    }
    ways = [(toys, "networks"), (retrained, "networks"), (toys, "cascade"), (toys, "networks")]
    done = [prepared(video, networks, tmp_path, finder) for networks, finder in ways]
    assert len({summary.folder for summary in done}) == 3
    assert done[0].key == done[3].key
    assert "track" in done[2].busy_s
    assert not done[3].busy_s  # found done: no network was opened


@pytest.mark.parametrize("name", ["s3fd", "fan4"])
def test_nonsense_of_a_network_is_named(name: str, video: Path, tmp_path: Path) -> None:
    toys = publish_toys(tmp_path / "toys", broken=name)
    with pytest.raises(StageError, match=f"stage 'track' failed at frame 0: .*{name}"):
        prepared(video, toys, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("observations*"))


@pytest.mark.parametrize("values", [{"finder": "dlib"}, {"selector": "biggest"}, {"detect_every": 0}])
def test_impossible_options_are_refused_at_once(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        FaceOptions(**values)  # type: ignore[arg-type]


class Crossing:
    """The clip of two people, tracked for whatever `--face` says; what was observed is observed once."""

    def __init__(self, toys: dict[str, Artifact], folder: Path) -> None:
        self.frames = crossing_frames(0)[:14]
        self._toys, self._folder = toys, folder

    def chosen(self, selector: Path | str) -> tuple[int, str]:
        """Which person is tracked, and the key of what is measured."""
        frames = list(enumerate(self.frames))
        clip = Clip(lambda first, stop: frames[first:stop], len(frames), WIDTH, HEIGHT, digest="1" * 64)
        options = DubOptions(face=FaceOptions(str(selector)), stream=STREAM)
        faces = ClipFaces(clip, self._toys, options.face, STREAM, self._folder)
        with open_platform(options.backend, STREAM) as platform:
            track = faces.face(platform, Timing(), silent).track
        middle = track.box[track.present][0].reshape(2, 2).mean(axis=0)
        true = [places(0)[person] for person in (0, 1)]
        return int(np.argmin([np.hypot(*(middle - place)) for place in true])), faces.measured_key

    def portrait(self, path: Path, person: int, **change: float) -> Path:
        """A reference picture: that person's head cut out of frame 5, darkened, scaled."""
        x, y = np.array(places(5)[person], int)
        cut = self.frames[5][max(y - 110, 0) : y + 110, max(x - 95, 0) : x + 95].astype(float)
        scale = change.get("scale", 1.0)
        lit = np.clip(cut * change.get("light", 1.0), 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), cv2.resize(lit, None, fx=scale, fy=scale))
        return path


@pytest.fixture(scope="module")
def crossing(toys: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Crossing:
    return Crossing(toys, tmp_path_factory.mktemp("crossing"))


@pytest.mark.parametrize("person", [0, 1])
@pytest.mark.parametrize("change", [{}, {"light": 0.5}, {"scale": 2.0}])
def test_the_person_of_the_picture_is_chosen(
    crossing: Crossing, person: int, change: dict[str, float], tmp_path: Path
) -> None:
    assert crossing.chosen(crossing.portrait(tmp_path / "Who.PNG", person, **change))[0] == person


def test_the_pictures_content_is_part_of_the_key(crossing: Crossing, tmp_path: Path) -> None:
    first = crossing.portrait(tmp_path / "a.png", 0)
    copy = tmp_path / "b.png"
    copy.write_bytes(first.read_bytes())
    keys = [crossing.chosen(first)[1], crossing.chosen(copy)[1]]
    keys.append(crossing.chosen(crossing.portrait(first, 0, light=0.9))[1])
    assert keys[0] == keys[1] != keys[2]


def test_pictures_that_choose_nobody(crossing: Crossing, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((90, 120, 3), 99, np.uint8))
    with pytest.raises(NoFaceError, match=r"no face in '.*blank.png', 120x90"):
        crossing.chosen(tmp_path / "blank.png")
    with pytest.raises(MediaError, match=r"missing.jpg"):
        crossing.chosen(tmp_path / "missing.jpg")


def test_in_doubt_nobody_is_chosen(crossing: Crossing) -> None:
    frames = crossing.frames[:6]
    detector, landmarks = CascadeDetector(), CascadeLandmarks()
    found = sorted(people(observe(enumerate(frames), detector, landmarks)), key=lambda one: one.look[0])
    assert len(found) == 2
    pictures = [views(one, frames.__getitem__)[0] for one in found]

    def chosen(reference: int, *of: int) -> int:
        return most_alike(pictures[reference], [found[one] for one in of], frames.__getitem__, "'who.png'")

    assert [chosen(0, 0, 1), chosen(0, 1, 0), chosen(1, 0, 1)] == [0, 1, 1]
    for one in (0, 1):
        with pytest.raises(NoFaceError, match=r"nobody in the video looks like 'who.png': likeness 0\.[34]"):
            chosen(one, 1 - one)
    with pytest.raises(NoFaceError, match=r"several people .* likeness 1.00, 1.00, 0.4"):
        chosen(0, 0, 1, 0)


@pytest.fixture
def dub(video: Path, toys: dict[str, Artifact], tmp_path: Path) -> Callable[..., int]:
    voice = write_speech(tmp_path / "voice.wav", FRAMES / 25)
    folder = shutil.copytree(toys["s3fd"].path.parent, tmp_path / "artifacts")

    def call(*more: str) -> int:
        files = [str(video), str(voice), "-o", str(tmp_path / "out.mp4"), "--artifacts", str(folder)]
        quick = ["--preset", "ultrafast", "--threads", "1", "--cache", str(tmp_path / "cache")]
        return run(["dub", *files, *quick, *more])

    return call


def test_the_command_tells_the_licences_and_dubs(
    dub: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dub("--faces", "networks", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["dubbed"] == FRAMES
    told = " ".join(captured.err.split())
    assert "licence of s3fd: BSD-3-Clause" in told
    assert "licence of fan4: BSD-3-Clause" in told


def test_the_command_refuses_what_it_cannot_do(
    dub: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "artifacts" / "fan4.fp32.json").unlink()
    cases = [
        (["--faces", "networks"], "fan4.fp32.json"),
        (["--faces", "dlib"], "cascade, networks"),
        (["--face", str(tmp_path / "absent.png")], "absent.png"),
    ]
    for arguments, words in cases:
        assert dub(*arguments) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert words in lines[0]
    assert not (tmp_path / "out.mp4").exists()
