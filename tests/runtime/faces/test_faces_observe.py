"""Observing chunks: detection by absolute index, following between, independence of chunks."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest

from dubstream.engines.errors import InternalError, UsageError
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks, Face, five_points
from dubstream.runtime.faces.observations import CARRIED, MEASURED, MISSED, Observations
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.faces.track import absent_ranges, resolve_track

cv2 = pytest.importorskip("cv2")
skimage_data = pytest.importorskip("skimage.data")

SIZE = (480, 360)  # width, height
FACE_BOX = np.array([177.0, 66.0, 272.0, 161.0])  # in the portrait
EYES = np.array([(202.0, 101.0), (248.0, 103.0)])
ABSENT = range(20, 25)
LENGTH = 40


def motion(index: int) -> np.ndarray:
    """Affine map from the portrait to frame `index`: a slow drift, zoom and roll."""
    zoom, angle = 1.3 + 0.1 * np.sin(index / 20), 0.05 * np.sin(index / 17)
    linear = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.c_[linear, [-120 + 20 * np.sin(index / 13), -20 + 8 * np.cos(index / 9)]]


@pytest.fixture(scope="module")
def clip() -> list[tuple[int, np.ndarray]]:
    portrait = np.ascontiguousarray(skimage_data.astronaut()[..., ::-1])
    suit = np.ascontiguousarray(portrait[250:, :260])
    frames = []
    for index in range(LENGTH):
        source, matrix = (suit, np.eye(2, 3) * 1.9) if index in ABSENT else (portrait, motion(index))
        frame = cv2.warpAffine(source, matrix, SIZE, borderMode=cv2.BORDER_REFLECT)
        frame[0, 0] = index  # tells `Scripted` which frame it is shown
        frames.append((index, frame))
    return frames


class Scripted:
    """Reports where the face truly is, except in frames it is told to miss; counts its calls."""

    def __init__(self, misses: tuple[int, ...] = ()) -> None:
        self._misses = {*misses, *ABSENT}
        self.calls: list[int] = []

    def detect(self, bgr: np.ndarray) -> list[Face]:
        index = int(bgr[0, 0, 0])
        self.calls.append(index)
        if index in self._misses:
            return []
        corners = FACE_BOX.reshape(2, 2) @ motion(index)[:, :2].T + motion(index)[:, 2]
        return [Face(*corners.ravel(), score=1.0)]

    def points(self, bgr: np.ndarray, face: Face) -> np.ndarray:
        matrix = motion(int(bgr[0, 0, 0]))
        return five_points(EYES @ matrix[:, :2].T + matrix[:, 2], face.x2 - face.x1)


def test_detects_by_absolute_index_at_the_start_and_while_nobody_is_seen(clip: list) -> None:
    script = Scripted()
    observe(clip[3:], script, script, every=5)
    assert script.calls == [3, 5, 10, 15, *ABSENT, 25, 30, 35]


def test_rows_are_carried_between_detections(clip: list) -> None:
    script = Scripted(misses=(10,))
    seen = observe(clip[:20], script, script, every=5)
    assert seen.frames.tolist() == seen.frame.tolist() == list(range(20))
    kinds = {0: MEASURED, 5: MEASURED, 10: MISSED, 15: MEASURED}
    assert seen.kind.tolist() == [kinds.get(index, CARRIED) for index in range(20)]
    assert np.isnan(seen.measured[seen.kind != MEASURED]).all()
    for row in range(20):
        truth = EYES @ motion(row)[:, :2].T + motion(row)[:, 2]
        np.testing.assert_allclose(seen.carried[row, 4:8].reshape(2, 2), truth, atol=0.6)


def test_a_lost_face_is_given_up_and_found_again(clip: list) -> None:
    script = Scripted()
    seen = observe(clip, script, script, every=5)
    assert not set(seen.frame.tolist()) & set(ABSENT)
    assert seen.tracklet[seen.frame < 20].max() == 0
    assert set(seen.tracklet[seen.frame >= 25].tolist()) == {1}


def test_three_misses_end_a_sighting(clip: list) -> None:
    script = Scripted(misses=tuple(range(4, 20)))
    seen = observe(clip[:20], script, script, every=4)
    assert seen.frame.tolist() == list(range(12))


def test_chunks_do_not_know_each_other(clip: list) -> None:
    script = Scripted()
    alone = observe(clip[25:], script, script)
    after = observe(clip[:25], script, script), observe(clip[25:], script, script)
    joined = Observations.join(after)
    assert joined.frames.tolist() == list(range(LENGTH))
    later = joined.frame >= 25
    for name, array in alone.arrays().items():
        if name not in ("frames", "tracklet"):
            np.testing.assert_array_equal(getattr(joined, name)[later], array)
    assert joined.tracklet[later].min() > joined.tracklet[~later].max()


def test_observations_survive_a_file(clip: list) -> None:
    script = Scripted()
    seen = observe(clip[:8], script, script)
    file = io.BytesIO()
    np.savez(file, **seen.arrays())
    assert file.tell() / 8 < 1024  # bytes per frame
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = Observations.from_arrays(arrays)
    for name, array in seen.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)
        assert getattr(again, name).dtype == array.dtype
    with pytest.raises(InternalError, match="lack"):
        Observations.from_arrays({"frames": seen.frames})
    with pytest.raises(InternalError, match="shapes"):
        Observations.from_arrays({**seen.arrays(), "look": seen.look[1:]})


def test_no_frames_and_a_gap(clip: list) -> None:
    script = Scripted()
    nothing = observe([], script, script)
    assert nothing.frames.size == nothing.frame.size == 0
    assert Observations.join([]).frames.size == Observations.join([nothing, nothing]).frames.size == 0
    gap = observe([*clip[:3], *clip[7:9]], script, script)
    assert gap.tracklet.tolist() == [0, 0, 0, 1, 1]


def test_misuse_is_named(clip: list) -> None:
    script = Scripted()
    with pytest.raises(UsageError, match="every 0 frames"):
        observe(clip[:1], script, script, every=0)
    with pytest.raises(InternalError, match="frame 0 after frame 0"):
        observe([clip[0], clip[0]], script, script)


def test_frames_are_read_once_and_one_at_a_time(clip: list) -> None:
    script = Scripted()
    alive: list[int] = []

    def stream() -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in clip[:6]:
            alive.append(index)
            yield index, frame
            assert alive == list(range(index + 1))

    assert observe(stream(), script, script).frames.size == 6


def test_the_cascade_follows_a_moving_portrait_to_the_pixel(clip: list) -> None:
    seen = observe(clip, CascadeDetector(), CascadeLandmarks(), every=5)
    track = resolve_track(seen, *SIZE)
    assert absent_ranges(track) == [(ABSENT[0], ABSENT[-1])]
    inside = [
        np.linalg.solve(motion(i)[:, :2], (track.points[i] - motion(i)[:, 2]).T).T
        for i in range(LENGTH)
        if track.present[i]
    ]
    np.testing.assert_allclose(np.mean(inside, axis=0)[:2], EYES, atol=3)
    assert np.std(inside, axis=0)[:2].max() < 0.4  # pixels of the portrait, against the true motion
    assert np.std(inside, axis=0).max() < 2.5
