"""Planted faults: each fails the measure that is meant for it, and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from media_factory import Clip, make_video
from review_parts import (
    FRAMES,
    SIDE,
    Pictures,
    brighten,
    each,
    late,
    openness,
    talking,
    track_of,
    voice,
    write_clip,
)

from dubstream.runtime.faces.track import Track
from dubstream.runtime.review.compare import Expect, Review, ReviewRequest, review_videos
from dubstream.runtime.review.verdict import Thresholds, failures, judge
from dubstream.runtime.review.windows import Windows


@dataclass(frozen=True)
class Stage:
    """The clip all others are compared with."""

    folder: Path
    pictures: Pictures
    sound: Path
    clip: Path
    track: Track

    def failed(self, second: Path, first: Path | None = None, expect: Expect = Expect.SAME) -> set[str]:
        review = self.review(second, first, expect)
        return {measure.name for measure in failures(judge(review, Thresholds.of(expect)))}

    def review(self, second: Path, first: Path | None = None, expect: Expect = Expect.SAME) -> Review:
        return review_videos(ReviewRequest(first or self.clip, second, expect), track=self.track)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = tmp_path_factory.mktemp("review")
    pictures, sound = talking(openness()), voice(folder)
    clip = write_clip(folder / "a.mp4", pictures, sound=sound)
    return Stage(folder, pictures, sound, clip, track_of(clip))


def _frozen(stage: Stage) -> Pictures:
    return talking(np.full(FRAMES, 0.5))


def _delayed(stage: Stage) -> Pictures:
    return talking(np.concatenate([np.full(3, openness()[0]), openness()[:-3]]))


def _blurred(stage: Stage) -> Pictures:
    def change(k: int, picture: np.ndarray, windows: Windows) -> None:
        x1, y1, x2, y2 = windows.mouth
        picture[y1:y2, x1:x2] = cv2.GaussianBlur(picture, (0, 0), 0.7)[y1:y2, x1:x2]

    return each(stage.pictures, stage.track, change)


def _seam(stage: Stage) -> Pictures:
    def change(k: int, picture: np.ndarray, windows: Windows) -> None:
        x1, y1, x2, y2 = windows.face
        brighten(picture[y1:y2, x1:x2], 3)

    return each(stage.pictures, stage.track, change)


def _flicker(stage: Stage) -> Pictures:
    def change(k: int, picture: np.ndarray, windows: Windows) -> None:
        x1, y1, x2, y2 = windows.blend
        hill = np.zeros((y2 - y1, x2 - x1, 1))
        hill[10:-10, 10:-10] = 2 if k % 2 else -2
        brighten(picture[y1:y2, x1:x2], cv2.GaussianBlur(hill, (0, 0), 3)[..., None])

    return each(stage.pictures, stage.track, change)


def _touched(stage: Stage) -> Pictures:
    def change(k: int, picture: np.ndarray, windows: Windows) -> None:
        if k == 7:
            brighten(picture[8:20, 8:20], 60)

    return each(stage.pictures, stage.track, change)


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (lambda stage: stage.pictures, set()),
        (_frozen, {"lip_correlation", "lip_energy"}),
        (_delayed, {"lip_correlation"}),
        (_blurred, {"mouth_sharpness"}),
        (_seam, {"seam"}),
        (_flicker, {"flicker"}),
        (_touched, {"background"}),
        (lambda stage: stage.pictures[:-1], {"frames"}),
    ],
    ids=["none", "frozen", "delayed", "blurred", "seam", "flicker", "touched", "missing"],
)
def test_a_fault_of_the_picture_fails_its_measure(
    stage: Stage, tmp_path: Path, spoil: Callable[[Stage], Pictures], caught: set[str]
) -> None:
    assert stage.failed(write_clip(tmp_path / "b.mp4", spoil(stage), sound=stage.sound)) == caught


def test_a_mouth_without_any_edge_left_is_not_sharp(stage: Stage, tmp_path: Path) -> None:
    def smear(k: int, picture: np.ndarray, windows: Windows) -> None:
        x1, y1, x2, y2 = windows.mouth
        picture[y1:y2, x1:x2] = picture[y1:y2, x1:x2].mean(axis=(0, 1))

    b = write_clip(tmp_path / "b.mp4", each(stage.pictures, stage.track, smear), sound=stage.sound)
    assert {"mouth_sharpness", "mouth_ssim", "lip_energy"} <= stage.failed(b)


@pytest.mark.parametrize("box", ["blend", "mask"])
def test_a_seam_at_any_outline_of_the_blend(stage: Stage, tmp_path: Path, box: str) -> None:
    def change(k: int, picture: np.ndarray, windows: Windows) -> None:
        x1, y1, x2, y2 = getattr(windows, box)
        brighten(picture[y1:y2, x1:x2], 3)

    b = write_clip(tmp_path / "b.mp4", each(stage.pictures, stage.track, change), sound=stage.sound)
    assert stage.failed(b) == {"seam"}


def test_a_delay_is_named_in_frames(stage: Stage, tmp_path: Path) -> None:
    lips = stage.review(write_clip(tmp_path / "b.mp4", _delayed(stage))).lips
    assert lips.lag_frames == 3
    assert lips.lag_correlation is not None
    assert lips.lag_correlation > 0.95


def test_a_frame_lost_in_the_middle_is_found_although_the_rest_is_shifted(
    stage: Stage, tmp_path: Path
) -> None:
    pictures = stage.pictures[:12] + stage.pictures[13:]
    assert "frames" in stage.failed(write_clip(tmp_path / "b.mp4", pictures, sound=stage.sound))


def test_a_frame_lost_with_its_time_kept_is_found_where_the_planner_fills_the_hole(
    stage: Stage, tmp_path: Path
) -> None:
    kept = [k for k in range(FRAMES) if k != 12]
    whole = make_video(tmp_path / "a.mp4", Clip(FRAMES, SIDE, SIDE))
    holed = make_video(tmp_path / "b.mp4", Clip(FRAMES, SIDE, SIDE, stamps=kept, numbers=kept))
    review = stage.review(holed, whole)
    assert review.first.frames == review.second.frames == FRAMES
    assert review.second.stored_frames == FRAMES - 1
    assert "frames" in {measure.name for measure in failures(judge(review, Thresholds()))}


@pytest.mark.parametrize("seconds", [0.12, 0.3])
def test_sound_that_comes_late(stage: Stage, tmp_path: Path, seconds: float) -> None:
    b = write_clip(tmp_path / "b.mp4", stage.pictures, sound=late(stage.sound, seconds))
    review = stage.review(b)
    assert review.sound_lag_s == pytest.approx(seconds, abs=0.006)
    assert {measure.name for measure in failures(judge(review, Thresholds()))} == {"av_offset"}


def test_another_speech_is_no_shift(stage: Stage, tmp_path: Path) -> None:
    from clips import write_speech

    other = write_speech(tmp_path / "other.wav", FRAMES / 25, seed=99)
    assert stage.failed(write_clip(tmp_path / "b.mp4", stage.pictures, sound=other)) == {"sound"}


def test_a_lost_sound_is_a_finding(stage: Stage, tmp_path: Path) -> None:
    assert stage.failed(write_clip(tmp_path / "b.mp4", stage.pictures)) == {"sound"}


def test_another_size_and_another_rate_are_findings_and_nothing_is_paired(
    stage: Stage, tmp_path: Path
) -> None:
    silent = write_clip(tmp_path / "a.mp4", stage.pictures)
    smaller = write_clip(tmp_path / "small.mp4", talking(openness(), SIDE // 2))
    faster = write_clip(tmp_path / "fast.mp4", stage.pictures, rate=Fraction(30))
    for other, words in ((smaller, "120x120"), (faster, "30 frames")):
        review = stage.review(other, silent)
        assert words in review.obstacle
        assert review.frames == 0
        assert stage.failed(other, silent) == {"comparable"}


def test_a_dub_may_differ_in_mouth_and_sound_and_bounce(stage: Stage, tmp_path: Path) -> None:
    longer = [*range(FRAMES), *range(FRAMES - 2, FRAMES - 7, -1)]
    other = talking(openness()[::-1])
    dubbed = write_clip(
        tmp_path / "b.mp4", [other[k] for k in longer], sound=voice(tmp_path, len(longer) / 25)
    )
    assert stage.failed(dubbed, expect=Expect.DUBBED) == set()
    assert {"frames", "lip_correlation"} <= stage.failed(dubbed)


@pytest.mark.parametrize(
    ("spoil", "caught"), [(_frozen, set()), (_seam, {"seam"}), (_touched, {"background"})]
)
def test_a_dub_is_held_to_its_source(
    stage: Stage, tmp_path: Path, spoil: Callable[[Stage], Pictures], caught: set[str]
) -> None:
    b = write_clip(tmp_path / "b.mp4", spoil(stage), sound=stage.sound)
    assert stage.failed(b, expect=Expect.DUBBED) == caught


def test_one_broken_frame_does_not_drown_in_the_mean(stage: Stage, tmp_path: Path) -> None:
    pictures = [*stage.pictures]
    pictures[9] = np.full_like(pictures[9], 90)
    failed = stage.failed(write_clip(tmp_path / "b.mp4", pictures, sound=stage.sound))
    assert {"worst_ssim", "worst_mouth_ssim", "background"} <= failed
    review = stage.review(tmp_path / "b.mp4")
    assert review.worst is not None
    assert review.worst_mouth is not None
    assert (review.worst.frame, review.worst_mouth.frame) == (9, 9)
    assert (review.worst.second == 90).mean() > 0.99
