"""Whether two mouths move alike.

A mouth's *motion energy* in frame k is the mean absolute difference of luma, in levels (0 to 255), between
its patch in frames k and k - 1, both in the mouth's own coordinates, less the change of their mean
brightness. The series of two videos of one speech must rise and fall together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]

STILL = 0.02
"""Standard deviation of motion energy, in levels, below which a mouth does not move at all."""

LARGEST_LAG = 8
"""Frames searched in both directions for the lag; a third of a second at 25 frames per second."""

_FEWEST = 4  # values; fewer correlate by chance


@dataclass(frozen=True)
class LipMotion:
    """What became of the motion.

    Attributes:
        correlation: Pearson's, over time, -1 to 1; 0 when only one of the two mouths moves; None when
            neither does or there are too few frames.
        energy_ratio: total energy of B over A's; 1 is as much movement, near 0 none. None as above.
        lag_frames: by how many frames B's mouth comes late (negative: early); None where no lag within
            `LARGEST_LAG` frames correlates.
        lag_correlation: the correlation at that lag.
    """

    correlation: float | None
    energy_ratio: float | None
    lag_frames: int | None
    lag_correlation: float | None


def motion_energy(patch: npt.NDArray[np.float32], before: npt.NDArray[np.float32]) -> float:
    """Mean absolute difference of two patches of one shape, in their unit, without that of their means.

    A picture that becomes brighter as a whole is flicker or a lamp, no lips.
    """
    change = patch - before
    return float(np.abs(change - change.mean()).mean())


def lip_motion(first: Series, second: Series) -> LipMotion:
    """Compare two series of motion energy of equal length; NaN marks frames without a mouth."""
    known = np.isfinite(first) & np.isfinite(second)
    if np.count_nonzero(known) < _FEWEST:
        return LipMotion(None, None, None, None)
    total = float(first[known].sum())
    ratio = float(second[known].sum()) / total if total > 0 else None
    lag, at_lag = _best_lag(first, second)
    return LipMotion(pearson(first, second), ratio, lag, at_lag)


def pearson(first: Series, second: Series) -> float | None:
    """Correlation over the values that both have; see `LipMotion.correlation` for what has none."""
    known = np.isfinite(first) & np.isfinite(second)
    if np.count_nonzero(known) < _FEWEST:
        return None
    x, y = first[known], second[known]
    moving = (x.std() > STILL, y.std() > STILL)
    if not any(moving):
        return None
    if not all(moving):
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _best_lag(first: Series, second: Series) -> tuple[int | None, float | None]:
    found: tuple[int | None, float | None] = (None, None)
    reach = min(LARGEST_LAG, len(first) // 2)
    for lag in sorted(range(-reach, reach + 1), key=abs):
        low, high = max(lag, 0), len(first) + min(lag, 0)
        correlation = pearson(first[low - lag : high - lag], second[low:high])
        if correlation and correlation > (found[1] or 0.0):
            found = (lag, correlation)
    return found
