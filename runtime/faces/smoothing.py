"""Smoothing of per-frame values over time, without lag."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubstream.engines.errors import InternalError

_UPSTREAM_SPAN = 5  # frames, forward


def smooth(values: ArrayLike, radius: int, order: int = 2) -> NDArray[np.float64]:
    """Savitzky-Golay: every value becomes that of a polynomial fitted to its neighbours.

    Symmetric, so a constant speed passes unchanged and nothing lags. Towards the ends the same window
    slides no further and the polynomial is evaluated off its centre; short series use a shorter window.

    Args:
        values: float (n, ...), no NaN, evenly spaced in time.
        radius: neighbours on each side, 0 for none.
        order: degree of the polynomial; 0 is a moving mean.

    Returns:
        float64, same shape.
    """
    series = np.asarray(values, dtype=np.float64)
    count = series.shape[0]
    span = min(2 * radius + 1, count - 1 + count % 2)
    if span <= order + 1:
        return series.copy()
    from scipy.signal import savgol_filter

    return np.asarray(savgol_filter(series, span, order, axis=0, mode="interp"), dtype=np.float64)


def smooth_boxes_upstream(boxes: ArrayLike) -> NDArray[np.int64]:
    """The original's box filter, kept for regression: use `smooth` otherwise.

    Each box becomes the mean of itself and the next four, truncated, in place. Near the end the last
    five are taken instead, which by then contain means; with three or four boxes that slice starts
    from the wrong end and takes the last two or the last one.

    Args:
        boxes: whole numbers (n, 4).

    Returns:
        int64 (n, 4).
    """
    out = np.array(boxes)
    if out.ndim != 2 or out.shape[1] != 4 or not np.issubdtype(out.dtype, np.integer):
        raise InternalError(f"boxes are {out.dtype} {out.shape}; expected whole numbers (n, 4)")
    count = len(out)
    for index in range(count):
        ends = index + _UPSTREAM_SPAN > count
        window = out[count - _UPSTREAM_SPAN :] if ends else out[index : index + _UPSTREAM_SPAN]
        out[index] = window.mean(axis=0)
    return out.astype(np.int64)
