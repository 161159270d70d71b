"""Choosing and smoothing one face over a clip, on hand-made sightings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath

import numpy as np
import pytest

from dubstream.engines.errors import NoFaceError, UsageError
from dubstream.runtime.faces.detector import five_points
from dubstream.runtime.faces.observations import CARRIED, MEASURED, MISSED, Observations
from dubstream.runtime.faces.selector import FaceSelector, parse_face_selector
from dubstream.runtime.faces.track import Track, absent_ranges, resolve_track

WIDTH, HEIGHT = 1280, 720
LOOKS = np.random.default_rng(7).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)  # of four people

Path = Callable[[int], tuple[float, float, float]]  # frame to centre x, centre y, side


def values(x: float, y: float, side: float) -> np.ndarray:
    eyes = np.array([(x - 0.19 * side, y - 0.12 * side), (x + 0.19 * side, y - 0.12 * side)])
    box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
    return np.concatenate([box, five_points(eyes, side).ravel()])


class Scene:
    """Builds observations: exact optical flow, and detections with noise every five frames."""

    def __init__(self, frames: int, noise: float = 0.0) -> None:
        self.frames, self.noise = frames, noise
        self.rng = np.random.default_rng(0)
        self.rows: list[tuple[int, int, int, np.ndarray, np.ndarray, np.ndarray]] = []
        self.tracklets = 0

    def sighting(self, path: Path, person: int, first: int, last: int, *, found: float = 1.0) -> Scene:
        start = values(*path(first)) + self.rng.normal(0, self.noise, 14)
        for frame in range(first, last + 1):
            looked = frame == first or frame % 5 == 0
            hit = looked and (frame == first or self.rng.random() < found)
            seen = values(*path(frame)) + self.rng.normal(0, self.noise, 14) if hit else np.full(14, np.nan)
            carried = start + values(*path(frame)) - values(*path(first))
            kind = MEASURED if hit else MISSED if looked else CARRIED
            look = LOOKS[person] if hit else np.zeros_like(LOOKS[0])
            self.rows.append((frame, self.tracklets, kind, carried, seen, look))
        self.tracklets += 1
        return self

    def done(self) -> Observations:
        self.rows.sort(key=lambda row: row[:2])
        columns = list(zip(*self.rows, strict=True)) if self.rows else [[]] * 6
        return Observations(
            frames=np.arange(self.frames),
            frame=np.array(columns[0], np.int64),
            tracklet=np.array(columns[1], np.int64),
            kind=np.array(columns[2], np.uint8),
            carried=np.array(columns[3], np.float32).reshape(-1, 14),
            measured=np.array(columns[4], np.float32).reshape(-1, 14),
            look=np.array(columns[5], np.uint8).reshape(-1, 8, 8, 3),
        )


def still(x: float, y: float = 360, side: float = 200) -> Path:
    return lambda frame: (x, y, side)


def swaying(frame: int) -> tuple[float, float, float]:
    return 600 + 40 * np.sin(frame / 12), 350 + 10 * np.cos(frame / 9), 200 + 10 * np.sin(frame / 30)


def centres(track: Track) -> np.ndarray:
    return (track.box[:, 0] + track.box[:, 2]) / 2


def truth(path: Path, track: Track) -> np.ndarray:
    return np.stack([values(*path(int(frame)))[4:].reshape(5, 2) for frame in track.frames])


def test_detector_noise_is_averaged_away_without_lag() -> None:
    track = resolve_track(Scene(200, noise=4.0).sighting(swaying, 0, 0, 199).done(), WIDTH, HEIGHT)
    assert track.present.all()
    error = track.points - truth(swaying, track)
    assert np.abs(error.mean(axis=0)).max() < 1.5
    assert error.std() < 2.0  # half of the detector's
    jitter = np.diff(track.points, 2, axis=0) - np.diff(truth(swaying, track), 2, axis=0)
    assert np.abs(jitter).max() < 0.3


def test_outliers_of_the_detector_do_not_move_the_face() -> None:
    scene = Scene(100).sighting(still(600), 0, 0, 99).done()
    scene.measured[scene.frame == 50] += 60
    track = resolve_track(scene, WIDTH, HEIGHT)
    np.testing.assert_allclose(track.points, truth(still(600), track), atol=1e-3)


def test_chunk_borders_leave_no_step() -> None:
    scene = Scene(300, noise=3.0)
    for first in range(0, 300, 100):
        scene.sighting(swaying, 0, first, first + 99)
    track = resolve_track(scene.done(), WIDTH, HEIGHT)
    assert track.present.all()
    steps = np.abs(np.diff(track.points - truth(swaying, track), axis=0)).max(axis=(1, 2))
    assert steps.max() < 0.6


def test_absence_is_reported_and_not_interpolated() -> None:
    track = resolve_track(
        Scene(80).sighting(swaying, 0, 0, 39).sighting(swaying, 0, 50, 74).done(), WIDTH, HEIGHT
    )
    assert absent_ranges(track) == [(40, 49), (75, 79)]
    assert np.all(track.box[40:50] == 0)
    assert np.all(track.points[40:50] == 0)
    np.testing.assert_allclose(track.points[:40], truth(swaying, track)[:40], atol=0.2)
    np.testing.assert_allclose(track.points[50:75], truth(swaying, track)[50:75], atol=0.2)


def test_short_gaps_are_filled_where_the_face_reappears_in_place() -> None:
    observations = Scene(60).sighting(swaying, 0, 0, 29).sighting(swaying, 0, 33, 59).done()
    track = resolve_track(observations, WIDTH, HEIGHT, max_gap=3)
    assert track.present.all()
    np.testing.assert_allclose(track.points, truth(swaying, track), atol=1.0)
    assert absent_ranges(resolve_track(observations, WIDTH, HEIGHT, max_gap=2)) == [(30, 32)]
    jump = Scene(60).sighting(still(300), 0, 0, 29).sighting(still(900), 0, 33, 59).done()
    assert absent_ranges(resolve_track(jump, WIDTH, HEIGHT, max_gap=3)) == [(30, 32)]


def test_false_detections_are_dropped() -> None:
    scene = Scene(100).sighting(still(600), 0, 0, 99)
    scene.sighting(still(100, 100, 500), 1, 20, 22).sighting(still(1100, 600, 400), 2, 50, 52)
    scene.sighting(still(200, 500, 300), 3, 0, 60, found=0.1)
    track = resolve_track(scene.done(), WIDTH, HEIGHT)
    np.testing.assert_allclose(centres(track), 600, atol=1e-3)
    flicker = Scene(100).sighting(still(600), 0, 0, 60).sighting(still(600), 0, 80, 82).done()
    assert absent_ranges(resolve_track(flicker, WIDTH, HEIGHT)) == [(61, 99)]


def two_people(frames: int = 100) -> Scene:
    return (
        Scene(frames).sighting(still(300), 0, 0, frames - 1).sighting(still(900, side=260), 1, 0, frames - 1)
    )


@pytest.mark.parametrize(
    ("text", "centre"),
    [
        ("largest", 900),
        ("center", 900),
        ("0", 300),
        ("1", 900),
        ("200,260,200,200", 300),
        ("800,300,100,100", 900),
    ],
)
def test_one_of_two_is_chosen(text: str, centre: float) -> None:
    track = resolve_track(two_people().done(), WIDTH, HEIGHT, parse_face_selector(text))
    np.testing.assert_allclose(centres(track), centre, atol=1e-3)


def test_a_picture_becomes_a_person_first() -> None:
    seen = two_people().done()
    with pytest.raises(UsageError, match=r"who\.png: people are not compared"):
        resolve_track(seen, WIDTH, HEIGHT, parse_face_selector("who.png"))
    track = resolve_track(seen, WIDTH, HEIGHT, FaceSelector("person", index=1))
    np.testing.assert_allclose(centres(track), 900, atol=1e-3)


def test_center_is_the_nearest_to_the_middle() -> None:
    scene = Scene(50).sighting(still(500, side=120), 0, 0, 49).sighting(still(1000, side=300), 1, 0, 49)
    track = resolve_track(scene.done(), WIDTH, HEIGHT, FaceSelector("center"))
    np.testing.assert_allclose(centres(track), 500, atol=1e-3)


def test_people_who_change_places_behind_a_cut_are_not_swapped() -> None:
    scene = Scene(100).sighting(still(300), 0, 0, 49).sighting(still(900), 1, 0, 49)
    scene.sighting(still(900), 0, 50, 99).sighting(still(300), 1, 50, 99)
    track = resolve_track(scene.done(), WIDTH, HEIGHT, parse_face_selector("0"))
    np.testing.assert_allclose(centres(track), [300] * 50 + [900] * 50, atol=1e-3)
    assert track.present.all()


def test_another_person_in_the_same_place_is_not_dubbed() -> None:
    scene = Scene(100).sighting(still(600), 0, 0, 59).sighting(still(600), 1, 62, 99)
    assert absent_ranges(resolve_track(scene.done(), WIDTH, HEIGHT)) == [(60, 99)]


def test_people_who_cross_are_not_swapped() -> None:
    def right(frame: int) -> tuple[float, float, float]:
        return 200 + 8 * frame, 360, 200

    def left(frame: int) -> tuple[float, float, float]:
        return 1000 - 8 * frame, 360, 200

    scene = Scene(100).sighting(right, 0, 0, 99)
    scene.sighting(left, 1, 0, 42).sighting(left, 1, 58, 99)
    chosen = resolve_track(scene.done(), WIDTH, HEIGHT, parse_face_selector("1"))
    assert absent_ranges(chosen) == [(43, 57)]
    np.testing.assert_allclose(centres(chosen)[60:], [left(f)[0] for f in range(60, 100)], atol=1.0)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_clips_of_a_few_frames_have_a_track(frames: int) -> None:
    track = resolve_track(Scene(frames).sighting(still(600), 0, 0, frames - 1).done(), WIDTH, HEIGHT)
    assert track.present.all()
    np.testing.assert_allclose(track.points, truth(still(600), track), atol=1e-3)


def test_nobody_is_an_error() -> None:
    with pytest.raises(NoFaceError, match="no face in 30 frames of 1280x720") as caught:
        resolve_track(Scene(30).done(), WIDTH, HEIGHT)
    assert caught.value.hint
    with pytest.raises(NoFaceError, match="no face in 0 frames"):
        resolve_track(Observations.join([]), WIDTH, HEIGHT)


def test_a_selector_that_fits_nobody_is_an_error() -> None:
    with pytest.raises(UsageError, match="face index 2; frame 0, the first with a face, shows 2"):
        resolve_track(two_people().done(), WIDTH, HEIGHT, parse_face_selector("2"))
    with pytest.raises(NoFaceError, match="no face overlaps"):
        resolve_track(two_people().done(), WIDTH, HEIGHT, parse_face_selector("0,0,50,50"))


def test_tracks_survive_a_file() -> None:
    track = resolve_track(two_people(20).done(), WIDTH, HEIGHT)
    again = Track.from_arrays(track.arrays())
    for name, array in track.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("largest", FaceSelector("largest")),
        (" Center ", FaceSelector("center")),
        ("3", FaceSelector("index", index=3)),
        ("10,20,30,40", FaceSelector("box", box=(10, 20, 40, 60))),
        ("1.5, 2, 3, 4", FaceSelector("box", box=(1.5, 2, 4.5, 6))),
        (" Some/Who.JPG ", FaceSelector("picture", picture=FilePath("Some/Who.JPG"))),
    ],
)
def test_selectors_are_read(text: str, expected: FaceSelector) -> None:
    assert parse_face_selector(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "biggest",
        "-1",
        "1.5",
        "99999",
        "1,2,3",
        "1,2,3,4,5",
        "1,2,0,4",
        "1,2,3,-4",
        "nan,1,2,3",
        "1e9,0,1,1",
        "a,b,c,d",
        "²",
    ],
)
def test_nonsense_selectors_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected largest, center"):
        parse_face_selector(text)
