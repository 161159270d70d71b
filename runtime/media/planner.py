"""Which source frame each output frame shows: variable frame rate in, constant frame rate out.

Each source frame is given the output slot nearest to its time stamp, so that it appears at most half an
output frame early or late, and is held until the next source frame's slot. Two source frames in one slot
(a source faster than the output) show the later one. The last frame is held for its own duration, and
is left out if that is half an output frame or less and the output would grow by a frame for it.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dubstream.runtime.media.limits import MediaLimits


def plan_cfr(
    pts: npt.NDArray[np.int64], end: int, time_base: Fraction, rate: Fraction, limits: MediaLimits
) -> npt.NDArray[np.int64]:
    """Source index of every output frame; output frame k is shown at k / rate seconds.

    Args:
        pts: source time stamps in units of `time_base`, strictly ascending, at least one.
        end: when the last frame stops being shown, same units.
        time_base: seconds per unit.
        rate: output frames per second.

    Returns:
        int64 array, at least one entry, starting at 0 (or later if several frames share the first
        slot), never descending.

    Raises:
        LimitError: a pause longer than `max_gap_s`, or more output frames than `max_frame_ratio` per
            source frame or `max_frames` in all. Checked before anything of that size is allocated.
    """
    ticks_per_slot = 1 / (time_base * rate)
    edges = [int(p) - int(pts[0]) for p in pts] + [max(int(end), int(pts[-1])) - int(pts[0])]
    _check_gaps(edges, time_base, limits)
    total = max(_slot(edges[-1], ticks_per_slot), 1)
    if 2 * (edges[-1] - edges[-2]) > ticks_per_slot or len(pts) == 1:
        total = max(total, _slot(edges[-2], ticks_per_slot) + 1)
    limits.check_most("max_frame_ratio", Fraction(total, len(pts)), "output frames planned per source frame")
    limits.check_most("max_frames", total, "output frames planned")
    slots = np.array([_slot(edge, ticks_per_slot) for edge in edges[:-1]], dtype=np.int64)
    return np.searchsorted(slots, np.arange(total), side="right").astype(np.int64) - 1


def _slot(ticks: int, ticks_per_slot: Fraction) -> int:
    numerator, denominator = ticks_per_slot.numerator, ticks_per_slot.denominator
    return (2 * ticks * denominator + numerator) // (2 * numerator)


def _check_gaps(edges: list[int], time_base: Fraction, limits: MediaLimits) -> None:
    longest = max(after - before for before, after in pairwise(edges))
    limits.check_most("max_gap_s", longest * time_base, "seconds between two frames of the video")
