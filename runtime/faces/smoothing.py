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
    span = min(2 * radius + 1, count)
    if span <= order + 1:
        return series.copy()
    fitted = _projection(span, order)
    flat = series.reshape(count, -1)
    half = span // 2
    windows = np.lib.stride_tricks.sliding_window_view(flat, span, axis=0)
    out = np.empty_like(flat)
    out[half : half + windows.shape[0]] = windows @ fitted[half]
    out[:half] = fitted[:half] @ flat[:span]
    out[half + windows.shape[0] :] = fitted[half + 1 :] @ flat[count - span :]
    return out.reshape(series.shape)


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


def _projection(span: int, order: int) -> NDArray[np.float64]:
    """Matrix that maps `span` values to those of their least-squares polynomial."""
    position = np.linspace(-1.0, 1.0, span)
    basis = np.linalg.qr(np.vander(position, order + 1))[0]
    return np.asarray(basis @ basis.T)
