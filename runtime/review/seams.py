"""Faults of putting a face into a frame: seams, flicker, a background that was touched.

All look at the difference D = B - A of luma, in levels, so that what the scene shows cancels out and coding
noise, which is everywhere, is subtracted by comparing neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.kernels.boxes import Box

Signed = npt.NDArray[np.int16]
Picture = npt.NDArray[np.uint8]

GRID = 4
"""Rows and columns of cells in which the window's brightness is followed."""

_FEWEST_PIXELS = 16  # along a side that is judged


def seam_step(difference: Signed, boxes: Sequence[Box]) -> float:
    """How visibly a rectangle's outline shows in D.

    Along each side that lies inside the frame: the mean absolute step of D from the last pixel inside to the
    first outside, less the mean of the steps one pixel further in and out.

    Args:
        difference: int16 (H, W), B - A.
        boxes: the rectangles at whose sides a seam can be.

    Returns:
        The largest over all sides, in levels. A blend that fades out, and coding noise, give about 0; a
        pasted rectangle the height of its step.
    """
    steps = [0.0]
    for x1, y1, x2, y2 in boxes:
        columns, rows = difference[:, max(x1, 0) : x2], difference[max(y1, 0) : y2]
        steps += [_excess(rows.T, x1), _excess(rows.T, x2), _excess(columns, y1), _excess(columns, y2)]
    return max(steps)


def _excess(lines: Signed, at: int) -> float:
    """The excess step between rows `at - 1` and `at` of `lines`; 0 where the picture ends."""
    if at < 2 or at > len(lines) - 2 or lines.shape[1] < _FEWEST_PIXELS:
        return 0.0
    further_in, border, further_out = np.abs(np.diff(lines[at - 2 : at + 2], axis=0)).mean(axis=1)
    return float(border - 0.5 * (further_in + further_out))


def cell_means(difference: Signed, window: Box) -> npt.NDArray[np.float64]:
    """Mean of D in each of the `GRID` x `GRID` cells of a window: float64 (GRID * GRID,), levels."""
    x1, y1, x2, y2 = window
    part = difference[y1:y2, x1:x2].astype(np.float32)
    return np.asarray(cv2.resize(part, (GRID, GRID), interpolation=cv2.INTER_AREA), dtype=np.float64).ravel()


def flicker(
    before: npt.NDArray[np.float64], here: npt.NDArray[np.float64], after: npt.NDArray[np.float64]
) -> float:
    """Brightness that jumps from frame to frame in B and not in A.

    Args:
        before, here, after: `cell_means` of three consecutive frames.

    Returns:
        How far D of the middle frame is from the mean of its neighbours, in levels, as the median over the
        cells, so that moving lips, which fill a few of them, do not count. Twice the amplitude of an
        alternation; 0 for a constant or steadily changing difference.
    """
    return float(np.median(np.abs(here - 0.5 * (before + after))))


@dataclass(frozen=True)
class Background:
    """What differs outside the window.

    Attributes:
        largest: the largest absolute difference of a colour channel, levels 0 to 255.
        share: pixels with a channel that differs by more than the tolerated level, over all outside, 0 to 1.
    """

    largest: int
    share: float


def background(first: Picture, second: Picture, window: Box | None, level: int) -> Background:
    """Compare two uint8 BGR (H, W, 3) pictures outside a window, or everywhere without one.

    Args:
        level: difference of a channel, in levels, up to which a pixel counts as equal. 0 for lossless files.
    """
    largest, changed, pixels = 0, 0, 0
    for part in _around(window, first.shape[1], first.shape[0]):
        apart = cv2.absdiff(first[part], second[part])
        if apart.size:
            largest = max(largest, int(apart.max()))
            changed += int(np.count_nonzero(apart.max(axis=2) > level)) if apart.max() > level else 0
            pixels += apart.shape[0] * apart.shape[1]
    return Background(largest, changed / pixels if pixels else 0.0)


def _around(window: Box | None, width: int, height: int) -> list[tuple[slice, slice]]:
    """Slices of rows and columns that cover everything but the window, once."""
    if window is None:
        return [(slice(0, height), slice(0, width))]
    x1, y1, x2, y2 = window
    middle = slice(y1, y2)
    whole = slice(0, width)
    return [
        (slice(0, y1), whole),
        (slice(y2, height), whole),
        (middle, slice(0, x1)),
        (middle, slice(x2, width)),
    ]
