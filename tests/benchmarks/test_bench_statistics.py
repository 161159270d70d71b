"""Slowdowns found and not invented, on synthetic clocks that drift and burst as shared machines do."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.benchmarks.bench.method.statistics import (
    MIN_SAMPLES,
    Samples,
    Work,
    paired_ratio,
    percentiles,
    slowdown,
)
from dubstream.benchmarks.bench.networks.options import REPEATS

WORK = Work(macs=28e9, nbytes=5e8)  # L-Net's
ALLOWED = 1.10


def machine_run(seed: int, factor: float, rounds: int = REPEATS, *, copy_share: float = 1.3) -> Samples:
    """A run on a machine that is a quarter faster or slower than the day before and drifts while it runs.

    Every tenth sample of everything, the anchors too, hits a burst of somebody else's work; the copy suffers
    more from the drift than arithmetic does, so the anchors are no perfect ones.
    """
    draw = np.random.default_rng(seed)
    walk = np.cumsum(draw.normal(0, 1, rounds))
    drift = np.exp(draw.normal(0, 0.25) + 0.08 * (walk - walk.mean()) / (walk.std() + 1e-9))

    def clock(seconds: float, share: float = 1.0) -> tuple[float, ...]:
        times = seconds * drift**share * np.exp(draw.normal(0, 0.03, rounds))
        burst = draw.random(rounds) < 0.1
        times[burst] *= draw.uniform(1.2, 2.5, int(burst.sum()))
        return tuple(times.tolist())

    return Samples(clock(0.34 * factor), clock(1e-11), clock(1e-10, copy_share))


def failing(factor: float, trials: int) -> float:
    """Share of runs that fail against a base, over many pairs of seeds."""
    failures = [
        slowdown(machine_run(2 * seed, factor), machine_run(2 * seed + 1, 1.0), WORK, seed=seed).low > ALLOWED
        for seed in range(trials)
    ]
    return float(np.mean(failures))


def test_no_slowdown_is_reported_where_there_is_none() -> None:
    assert failing(1.0, trials=150) == 0.0


def test_a_slowdown_of_1_3_is_found() -> None:
    assert failing(1.3, trials=60) >= 0.95


def test_what_is_allowed_is_allowed() -> None:
    assert failing(1.08, trials=60) <= 0.05


def test_plain_medians_would_have_failed_builds() -> None:
    """What the anchors are for: without them a machine in a bad mood is a regression."""
    alarms = [
        np.median(machine_run(2 * seed, 1.0).seconds) / np.median(machine_run(2 * seed + 1, 1.0).seconds)
        > ALLOWED
        for seed in range(150)
    ]
    assert np.mean(alarms) > 0.2


def test_the_interval_holds_the_truth_where_the_anchors_drift_like_the_network() -> None:
    held = 0
    for seed in range(100):
        runs = (machine_run(2 * seed + one, factor, copy_share=1.0) for one, factor in enumerate((1.3, 1.0)))
        found = slowdown(*runs, WORK, seed=seed)
        held += found.low <= 1.3 <= found.high
    # 95 of 100, less three standard deviations; 86 where the anchors are as imperfect as above.
    assert held >= 88


def test_a_network_that_grew_is_slower_although_its_rate_is_the_same() -> None:
    base, grown = machine_run(1, 1.0), machine_run(2, 1.5)
    assert slowdown(grown, base, WORK).low > ALLOWED


def test_one_disturbed_anchor_moves_nothing() -> None:
    samples = Samples((1.0,) * 9, (1.0,) * 4 + (50.0,) + (1.0,) * 4, (1.0,) * 9)
    assert set(samples.relative(Work(1.0, 0.0)).tolist()) == {1.0}


def test_ratios_of_pairs_do_not_see_what_hits_both() -> None:
    mood = np.exp(np.random.default_rng(3).normal(0, 0.5, 15))
    found = paired_ratio((2.0 * mood).tolist(), mood.tolist())
    assert (found.estimate, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_intervals_are_reproducible_and_contain_the_estimate() -> None:
    draw = np.random.default_rng(4)
    first, second = draw.uniform(1, 2, 12).tolist(), draw.uniform(1, 2, 12).tolist()
    one = paired_ratio(first, second)
    assert one == paired_ratio(first, second)
    assert one.low < one.estimate < one.high


def test_too_few_samples_give_no_interval() -> None:
    found = paired_ratio([2.0, 2.5], [1.0, 1.0])
    assert found.low == found.estimate == found.high == 2.25
    assert MIN_SAMPLES > 2


def test_unequal_series_are_refused() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        paired_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="anchors"):
        Samples((1.0, 1.0), (1.0,), (1.0, 1.0))


def test_percentiles_are_milliseconds() -> None:
    assert percentiles([0.001 * value for value in range(101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_more_cases_to_judge_ask_for_a_wider_interval() -> None:
    runs = machine_run(1, 1.0), machine_run(2, 1.0)
    alone, one_of_twenty = slowdown(*runs, WORK), slowdown(*runs, WORK, cases=20)
    assert one_of_twenty.estimate == alone.estimate
    assert one_of_twenty.low < alone.low < alone.high < one_of_twenty.high
