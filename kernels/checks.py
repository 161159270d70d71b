"""Checks of the arrays that callers hand in; a wrong one is a fault of ours, not of the user."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


def check_picture(array: U8, what: str, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width of a uint8 HxWx3 picture.

    Args:
        array: the picture; any strides.
        what: its name in the error.
        size: (height, width) it must have, or None for any of at least one pixel.

    Raises:
        InternalError: another dtype, rank, channel count or size.
    """
    fits = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size > 0
    if not fits or (size is not None and array.shape[:2] != size):
        wanted = "H x W" if size is None else f"{size[0]} x {size[1]}"
        raise InternalError(f"{what} is {array.dtype} {array.shape}, expected uint8 {wanted} x 3")
    return array.shape[0], array.shape[1]


def check_array(array: npt.NDArray[Any], what: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Raise unless `array` has exactly this shape and dtype."""
    if array.shape != shape or array.dtype != dtype:
        raise InternalError(f"{what} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")


def check_out(array: npt.NDArray[Any], what: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Raise unless `array` can be written in place: shape, dtype, C order, writable."""
    check_array(array, what, shape, dtype)
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise InternalError(f"{what} is not a writable C-contiguous array, as an output must be")
