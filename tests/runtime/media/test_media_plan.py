"""Uneven time stamps to a constant rate: the rate's choice and the plan."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dubstream.engines.errors import LimitError
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.planner import plan_cfr
from dubstream.runtime.media.rates import STANDARD_RATES, choose_rate

MS = Fraction(1, 1000)
LIMITS = MediaLimits()


def stamps(rate: Fraction, count: int, time_base: Fraction = MS) -> np.ndarray:
    return np.array([round(k / rate / time_base) for k in range(count)], np.int64)


@pytest.mark.parametrize("rate", STANDARD_RATES, ids=str)
def test_a_standard_rate_survives_rounding_to_milliseconds(rate: Fraction) -> None:
    assert choose_rate(stamps(rate, 5000), MS) == rate


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(17), Fraction(1000, 61)])
def test_an_exact_rate_named_by_the_container_is_kept(rate: Fraction) -> None:
    assert choose_rate(stamps(rate, 50, 1 / rate), 1 / rate, [None, rate, Fraction(90000)]) == rate


def test_a_wrong_name_does_not_decide() -> None:
    assert choose_rate(stamps(Fraction(25), 100), MS, [Fraction(30), Fraction(7)]) == 25


@pytest.mark.parametrize("named", [[], [None], [Fraction(90000)], [Fraction(1, 1000)]])
def test_one_frame_has_a_rate_anyhow(named: list[Fraction | None]) -> None:
    assert choose_rate(np.array([7], np.int64), MS, named) == 25


def test_faster_than_the_fastest_is_capped() -> None:
    assert choose_rate(stamps(Fraction(960), 500, Fraction(1, 96000)), Fraction(1, 96000)) == 240


def test_slower_than_the_slowest_is_one_a_second() -> None:
    assert choose_rate(np.array([0, 40, 9900], np.int64), MS) == 1


def test_dropped_and_jittered_frames_do_not_slow_the_rate() -> None:
    rng = np.random.default_rng(3)
    kept = np.sort(rng.choice(2000, 1500, replace=False))
    uneven = np.round(kept * 1000 / 30 + rng.uniform(-6, 6, len(kept))).astype(np.int64)
    assert choose_rate(np.unique(uneven), MS) == 30


def test_every_shown_frame_is_within_half_an_output_frame() -> None:
    rng = np.random.default_rng(4)
    for rate in (Fraction(24000, 1001), Fraction(25), Fraction(60)):
        times = np.cumsum(rng.integers(1, 120, 400)).astype(np.int64)
        plan = plan_cfr(times, int(times[-1]) + 40, MS, rate, LIMITS)
        assert np.all(np.diff(plan) >= 0)
        shown, first = np.unique(plan, return_index=True)
        off = first / float(rate) - (times[shown] - times[0]) / 1000
        assert np.abs(off[1:]).max() <= 0.5 / float(rate) + 1e-9
        # What is on screen at any output time is never more than half a frame in the future, and newer
        # frames are not held back.
        late = np.arange(len(plan)) / float(rate) - (times[plan] - times[0]) / 1000
        assert late.min() >= -0.5 / float(rate) - 1e-9


def test_a_gap_is_held_and_the_last_frame_lasts() -> None:
    times = np.array([0, 40, 400, 440], np.int64)
    assert list(plan_cfr(times, 520, MS, Fraction(25), LIMITS)) == [0] + [1] * 9 + [2] + [3] * 2
    assert list(plan_cfr(np.array([5], np.int64), 6, MS, Fraction(25), LIMITS)) == [0]


def test_a_faster_source_loses_frames_evenly() -> None:
    plan = plan_cfr(stamps(Fraction(50), 100), 2000, MS, Fraction(25), LIMITS)
    assert len(plan) == 50
    assert set(np.diff(plan)) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("times", "end", "option"),
    [
        ([0, 40, 36_000_000], 36_000_040, "--max-gap"),
        ([0], 36_000_000, "--max-gap"),
        ([0, 9_000, 18_000], 27_000, "--max-frame-ratio"),
    ],
)
def test_a_bomb_of_time_stamps_names_its_limit(times: list[int], end: int, option: str) -> None:
    with pytest.raises(LimitError, match=option):
        plan_cfr(np.array(times, np.int64), end, MS, Fraction(30), LIMITS)


def test_a_long_plan_names_its_limit() -> None:
    few = MediaLimits(max_frames=10)
    with pytest.raises(LimitError, match="--max-frames"):
        plan_cfr(stamps(Fraction(25), 9), 480, MS, Fraction(25), few)


def test_huge_stamps_do_not_overflow() -> None:
    base = 2**62
    times = np.array([base, base + 40, base + 80], np.int64)
    assert list(plan_cfr(times, base + 120, MS, Fraction(25), LIMITS)) == [0, 1, 2]
