"""Measuring in turn: A B C A B C ..., so that a shared machine's moods hit every variant alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, process_time

from dubstream.benchmarks.bench.method.statistics import MIN_SAMPLES

Run = Callable[[], float | None]


@dataclass(frozen=True)
class Stop:
    """When to stop measuring.

    Attributes:
        repeats: rounds.
        seconds: with this, as many rounds as fit, and at least `MIN_SAMPLES`; `repeats` is not looked at.
    """

    repeats: int
    seconds: float | None = None

    def reached(self, rounds: int, elapsed_s: float) -> bool:
        """Whether no further round is due."""
        if self.seconds is None:
            return rounds >= self.repeats
        return rounds >= MIN_SAMPLES and elapsed_s >= self.seconds


@dataclass
class Series:
    """One variant's samples, one per round.

    Attributes:
        wall_s: on the host, from the call to its synchronised end.
        device_s: between two events of the device; empty where a variant has none.
        cpu_s: of all threads of this process; less than wall time times threads where it had to wait.
    """

    wall_s: list[float] = field(default_factory=list)
    device_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


def measure_rounds(
    runs: Mapping[str, Run],
    stop: Stop,
    *,
    clock: Callable[[], float] = perf_counter,
    cpu_clock: Callable[[], float] = process_time,
) -> dict[str, Series]:
    """Run everything once to warm up, then in rounds until `stop`."""
    for run in runs.values():
        run()
    found = {name: Series() for name in runs}
    began, rounds = clock(), 0
    while not stop.reached(rounds, clock() - began):
        for name, run in runs.items():
            start, cpu_start = clock(), cpu_clock()
            device_s = run()
            found[name].cpu_s.append(cpu_clock() - cpu_start)
            found[name].wall_s.append(clock() - start)
            if device_s is not None:
                found[name].device_s.append(device_s)
        rounds += 1
    return found
