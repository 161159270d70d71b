"""A slowdown put into a real network on this machine, whatever else it is doing, and none put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dubstream.benchmarks.bench.method.base import KEPT, SLOWER, Base, Verdict, held_against
from dubstream.benchmarks.bench.method.results import MeasuredCase, Results
from dubstream.benchmarks.bench.method.rounds import Stop, measure_rounds
from dubstream.benchmarks.bench.method.statistics import Work
from dubstream.benchmarks.bench.networks.peaks import (
    CONV,
    COPY,
    Peak,
    PeakSizes,
    cpu_share,
    opened_peaks,
    samples_beside,
)
from dubstream.runtime.streaming.host import HostDevice

SIZES = PeakSizes(channels=48, side=48, matmul=64, copy=1 << 20, batch=1)
ROUNDS = 30
ALLOWED = 1.10

Peaks = dict[str, Peak]


@pytest.fixture(scope="module")
def peaks() -> Iterator[Peaks]:
    with HostDevice() as device, opened_peaks(device, threads=1, sizes=SIZES) as opened:
        yield {peak.name: peak for peak in opened}


def run_of(peaks: Peaks, times: int) -> MeasuredCase:
    """A real bench of a network that is so many convolutions."""

    def network() -> None:
        for _ in range(times):
            peaks[CONV].run()

    runs: dict[str, Callable[[], float | None]] = {name: peaks[name].run for name in (CONV, COPY)}
    series = measure_rounds({**runs, "network": network}, Stop(ROUNDS))
    measured = {name: (peaks[name], series[name]) for name in (CONV, COPY)}
    wall = samples_beside(measured, series["network"], lambda one: one.wall_s)
    cpu = samples_beside(measured, series["network"], lambda one: one.cpu_s)
    work = Work(20 * peaks[CONV].macs, peaks[COPY].nbytes)
    return MeasuredCase(work, cpu_share(measured, 1), wall, cpu)


def outcome(now: MeasuredCase, before: MeasuredCase) -> Verdict:
    results = Results({})
    results.cases["toy"] = now
    (verdict,) = held_against(Base({}, {"toy": before}), results, ALLOWED)
    return verdict


def test_a_real_slowdown_fails_and_the_same_work_does_not(peaks: Peaks) -> None:
    base, again, slow = (run_of(peaks, times) for times in (10, 10, 13))
    assert outcome(again, base).outcome == KEPT
    assert outcome(slow, base).outcome == SLOWER
