"""What repeated measurements say: percentiles, paired ratios, and slowdowns against another run.

Everything is a median with a bootstrap interval (Efron & Tibshirani 1993, chapters 12 and 13), so that one
preempted sample moves nothing. Neighbouring samples of a shared machine resemble each other; they are
therefore drawn in blocks (Kuensch 1989), as independent draws would promise too narrow an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_SAMPLES = 5
"""Of fewer, no interval is given."""

Series = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds the truth with probability `CONFIDENCE`.

    Attributes:
        estimate: of the measured samples.
        low, high: of the bootstrap; both equal to the estimate where there were too few samples.
    """

    estimate: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Rounded and JSON-serialisable."""
        return {key: round(value, 4) for key, value in vars(self).items()}


@dataclass(frozen=True)
class Work:
    """What a case asks of a machine.

    Attributes:
        macs: multiply-accumulates.
        nbytes: bytes that have to move at least.
    """

    macs: float
    nbytes: float


@dataclass(frozen=True)
class Samples:
    """Times of one case, and how fast the machine was in the same rounds.

    Attributes:
        seconds: one per round.
        s_per_mac: seconds a multiply-accumulate took in the anchor convolution, per round.
        s_per_byte: seconds a byte took in the anchor copy, per round.
    """

    seconds: tuple[float, ...]
    s_per_mac: tuple[float, ...]
    s_per_byte: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.seconds) == len(self.s_per_mac) == len(self.s_per_byte) > 0:
            raise ValueError(
                f"received {len(self.seconds)} times, {len(self.s_per_mac)} and {len(self.s_per_byte)} "
                "anchors, expected as many of each and at least one"
            )

    def relative(self, work: Work) -> Series:
        """Times in units of what the machine of each round needs for `work`, arithmetic plus traffic."""
        needed = work.macs * _smoothed(self.s_per_mac) + work.nbytes * _smoothed(self.s_per_byte)
        found: Series = np.asarray(self.seconds) / needed
        return found


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds; of fewer than 100 samples p99 is about the slowest one."""
    found = np.percentile(seconds, (50, 95, 99)) * 1000
    return {name: round(float(value), 4) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}


def paired_ratio(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Interval:
    """How many times longer `first` took than `second`: median of the ratios of samples of one round.

    Raises:
        ValueError: not as many of one as of the other.
    """
    if len(first) != len(second):
        raise ValueError(f"received {len(first)} and {len(second)} samples, expected pairs")
    ratios = np.asarray(first, np.float64) / np.asarray(second, np.float64)
    return _bootstrap((ratios,), lambda drawn: np.median(drawn[0], axis=1), seed)


def slowdown(now: Samples, base: Samples, work: Work, *, cases: int = 1, seed: int = 0) -> Interval:
    """How many times longer a case takes than in another run, perhaps days ago in another process.

    Rounds of two runs are no pairs: the machine may have been faster then. Each time is therefore divided
    by what the anchors, measured in its own round, say the machine needed for the case's work; the medians
    of both runs are compared. `work` is the base's, so that a network that grew is slower.

    `cases` widens the interval for a decision over so many of them (Bonferroni): twenty cases of which none
    is slower must not fail a build because one of twenty intervals misses.
    """
    series = now.relative(work), base.relative(work)
    return _bootstrap(
        series, lambda drawn: np.median(drawn[0], axis=1) / np.median(drawn[1], axis=1), seed, cases
    )


def _smoothed(anchors: Sequence[float]) -> Series:
    """Medians of three neighbours: one disturbed anchor spoils no round."""
    padded = np.pad(np.asarray(anchors, np.float64), 1, mode="edge")
    found: Series = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return found


def _bootstrap(
    series: tuple[Series, ...],
    statistic: Callable[[list[Series]], npt.NDArray[Any]],
    seed: int,
    cases: int = 1,
) -> Interval:
    estimate = float(statistic([values[None] for values in series])[0])
    if min(len(values) for values in series) < MIN_SAMPLES:
        return Interval(estimate, estimate, estimate)
    draw = np.random.default_rng(seed)
    resampled = statistic([_in_blocks(values, draw) for values in series])
    tail = 100 * (1 - CONFIDENCE) / 2 / cases
    low, high = np.percentile(resampled, (tail, 100 - tail))
    return Interval(estimate, float(low), float(high))


def _in_blocks(values: Series, draw: np.random.Generator) -> Series:
    """(RESAMPLES, n): circular blocks of about the cube root of n neighbours."""
    n = len(values)
    length = max(1, round(n ** (1 / 3)))
    starts = draw.integers(0, n, (RESAMPLES, -(-n // length)))
    places = (starts[:, :, None] + np.arange(length)) % n
    found: Series = values[places.reshape(RESAMPLES, -1)[:, :n]]
    return found
