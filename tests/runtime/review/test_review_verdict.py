"""Verdicts on reviews whose figures are made up."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from dubstream.engines.errors import VerificationError
from dubstream.runtime.review.compare import Expect, FileFacts, Review
from dubstream.runtime.review.meter import NAMES
from dubstream.runtime.review.motion import LipMotion
from dubstream.runtime.review.verdict import Measure, Thresholds, check, judge, spread_of

FILE = FileFacts("a.mp4", 640, 480, Fraction(25), 50, 50, 2.0, 2.0, 0.0)
GOOD = dict.fromkeys(NAMES, 0.0) | {"ssim": 1.0, "psnr": 60.0, "mouth_ssim": 1.0, "sharpness_b": 0.2}


def review(**series: float) -> Review:
    values = {name: np.full(50, value) for name, value in (GOOD | series).items()}
    return Review(FILE, FILE, Expect.SAME, "", values, LipMotion(1.0, 1.0, 0, 1.0), 0.0, 0.0)


def verdicts(found: Review, **limits: float | None) -> dict[str, Measure]:
    return {measure.name: measure for measure in judge(found, Thresholds.of(found.expect, **limits))}


def failed(found: Review, **limits: float | None) -> set[str]:
    return {name for name, measure in verdicts(found, **limits).items() if measure.holds is False}


def test_a_good_review_holds() -> None:
    assert failed(review()) == set()
    check(judge(review(), Thresholds()), "A", "B")


@pytest.mark.parametrize(
    ("series", "caught"),
    [
        ({"ssim": 0.979}, {"ssim"}),
        ({"mouth_ssim": 0.969}, {"mouth_ssim"}),
        ({"seam": 1.01}, {"seam"}),
        ({"flicker": 1.01}, {"flicker"}),
        ({"background_share": 0.0011}, {"background"}),
        ({"mouth_sharpness_a": 0.3, "mouth_sharpness_b": 0.19}, {"mouth_sharpness"}),
        ({"mouth_sharpness_a": 0.3, "mouth_sharpness_b": np.nan}, {"mouth_sharpness"}),
        ({"mouth_sharpness_a": np.nan, "mouth_sharpness_b": np.nan}, set()),
        ({"sharpness_a": 0.9}, set()),
        ({"psnr": 5.0}, set()),
        ({"mouth_ssim": np.nan}, {"mouth_ssim"}),
    ],
)
def test_a_value_beyond_its_limit_fails_alone(series: dict[str, float], caught: set[str]) -> None:
    assert failed(review(**series)) == caught


@pytest.mark.parametrize(
    ("lips", "caught"),
    [
        (LipMotion(0.98, 1.0, 0, 0.98), {"lip_correlation"}),
        (LipMotion(0.0, 0.1, None, None), {"lip_correlation", "lip_energy"}),
        (LipMotion(1.0, 1.3, 0, 1.0), {"lip_energy"}),
        (LipMotion(None, 0.2, None, None), set()),
    ],
)
def test_lips(lips: LipMotion, caught: set[str]) -> None:
    assert failed(replace(review(), lips=lips)) == caught


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ((50, 50), (50, 50), 0),
        ((50, 50), (49, 49), 1),
        ((50, 50), (50, 49), 1),
        ((60, 50), (61, 50), 0),  # uneven, and nobody knows how long the last frame lasts
        ((60, 50), (60, 60), 0),  # uneven, made even
        ((60, 50), (62, 50), 2),
        ((60, 50), (59, 49), 1),
    ],
)
def test_frames_apart(first: tuple[int, int], second: tuple[int, int], apart: int) -> None:
    files = [replace(FILE, frames=frames, stored_frames=stored) for frames, stored in (first, second)]
    assert verdicts(replace(review(), first=files[0], second=files[1]))["frames"].value == apart


def test_sound_in_one_file_only_and_sound_that_does_not_last() -> None:
    silent = replace(FILE, sound_s=None, sound_start_s=None)
    assert failed(replace(review(), second=silent, sound_difference=None)) == {"sound"}
    assert failed(replace(review(), first=silent, second=silent, sound_difference=None)) == set()
    assert failed(replace(review(), second=replace(FILE, sound_s=1.8))) == {"length_gap"}
    dubbed = replace(review(), second=replace(FILE, sound_s=1.8), expect=Expect.DUBBED)
    assert failed(dubbed) == {"length_gap"}
    assert failed(replace(dubbed, second=replace(FILE, sound_start_s=-0.2))) == {"av_offset"}


def test_start_and_content_add_up_to_the_offset() -> None:
    late = replace(review(), second=replace(FILE, sound_start_s=0.03), sound_lag_s=0.03)
    assert verdicts(late)["av_offset"].value == pytest.approx(0.06)
    assert failed(late) == {"av_offset"}
    assert failed(replace(late, sound_lag_s=-0.03)) == set()


def test_the_error_names_the_first_finding_and_the_others() -> None:
    found = judge(review(ssim=0.5, seam=9.0), Thresholds())
    with pytest.raises(
        VerificationError, match=r"B against A: SSIM is 0\.5, expected ≥ 0\.98; 2 more: worst"
    ):
        check(found, "A", "B")
    obstacle = replace(review(), obstacle="A is 1x1, B is 2x2 pixels", series={})
    with pytest.raises(VerificationError, match="size and rate: A is 1x1, B is 2x2 pixels, expected"):
        check(judge(obstacle, Thresholds()), "A", "B")


def test_limits_of_a_dub_leave_the_mouth_alone_and_given_ones_count() -> None:
    dubbed = Thresholds.of(Expect.DUBBED)
    assert dubbed.min_mouth_ssim is None
    assert dubbed.max_background_share == Thresholds().max_background_share
    assert Thresholds.of(Expect.DUBBED, min_mouth_ssim=0.5).min_mouth_ssim == 0.5
    assert Thresholds.of(Expect.SAME, min_ssim=None, max_seam=3.0) == Thresholds(max_seam=3.0)


def test_a_spread_leaves_out_what_is_not_known() -> None:
    spread = spread_of(np.array([np.nan, 1.0, 2.0, 3.0, np.nan]))
    assert (spread["mean"], spread["median"], spread["min"], spread["max"]) == (2.0, 2.0, 1.0, 3.0)
    assert spread_of(np.full(4, np.nan)) == {}
