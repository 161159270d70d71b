"""The constant frame rate a clip is dubbed at.

Time stamps of real clips are uneven: frames are dropped on a regular grid (a 30 fps recording that keeps
two frames of three), rounded to milliseconds by the container, or jittered by a phone. The rule:

1. The rates the container names, slowest first, and the even spacing of the time stamps are tried.
   The first whose grid every time stamp lies on (to one tick or one millisecond) is taken as it is,
   rational and unrounded: 24000/1001 stays 24000/1001.
2. Otherwise each gap counts as the nearest whole number of median gaps, at least one; the clip's length
   over their sum is the spacing. The nearest standard rate within 2 % is taken, else the estimate itself.

A rate above 240 or below 1 fps becomes that.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

MIN_RATE, MAX_RATE = Fraction(1), Fraction(240)
_FALLBACK = Fraction(25)
_NTSC = Fraction(1000, 1001)
_WHOLE = (5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)
STANDARD_RATES = (
    *(Fraction(rate) for rate in _WHOLE),
    *(rate * _NTSC for rate in (24, 30, 48, 60, 120, 240)),
    Fraction(15, 2),
    Fraction(25, 2),
)


def choose_rate(
    pts: npt.NDArray[np.int64], time_base: Fraction, named: Iterable[Fraction | None] = ()
) -> Fraction:
    """Frames per second to dub at, by the rule of this module.

    Args:
        pts: time stamps of the frames in units of `time_base`, ascending.
        time_base: seconds per unit.
        named: rates the container names, in any order; absent or absurd ones are ignored.
    """
    sane = [rate for rate in named if rate is not None and MIN_RATE <= rate <= MAX_RATE]
    usable = sorted({_nearest_standard(rate, within=0.0002) or rate for rate in sane})
    if len(pts) < 2:
        return usable[0] if usable else _FALLBACK
    ticks = (pts - pts[0]).astype(np.float64)
    candidates = [*usable, *_even_rates(ticks, time_base)]
    for rate in candidates:
        if MIN_RATE <= rate <= MAX_RATE and _on_grid(ticks * float(time_base), rate, time_base):
            return rate
    return _estimate(ticks, time_base)


def _even_rates(ticks: npt.NDArray[np.float64], time_base: Fraction) -> list[Fraction]:
    mean = Fraction(int(ticks[-1]), len(ticks) - 1) * time_base
    nearest = _nearest_standard(1 / mean, within=0.001)
    return [rate for rate in (nearest, 1 / mean) if rate is not None]


def _on_grid(seconds: npt.NDArray[np.float64], rate: Fraction, time_base: Fraction) -> bool:
    positions = seconds * float(rate)
    slots = np.rint(positions)
    tolerance = min(max(float(time_base), 0.001) * 1.01 * float(rate), 0.25)
    return bool(np.all(np.abs(positions - slots) <= tolerance) and np.all(np.diff(slots) >= 1))


def _estimate(ticks: npt.NDArray[np.float64], time_base: Fraction) -> Fraction:
    gaps = np.diff(ticks)
    steps = np.maximum(np.rint(gaps / np.median(gaps)), 1).sum()
    rate = Fraction(int(steps)) / (Fraction(int(ticks[-1])) * time_base)
    rate = _nearest_standard(rate, within=0.02) or rate.limit_denominator(1001)
    return max(MIN_RATE, min(rate, MAX_RATE))


def _nearest_standard(rate: Fraction, within: float) -> Fraction | None:
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest / rate - 1) <= within else None
