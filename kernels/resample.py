"""Cut a box or a turned square out of a frame and bring it to a fixed size. Reference of `resample.cu`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.kernels.boxes import Box, as_box
from dubstream.kernels.checks import U8, check_array, check_out, check_picture


def crop(frame: U8, box: Box) -> U8:
    """The box as a view of the frame, or as a copy with the edge repeated where the box leaves it."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = box
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return frame[y1:y2, x1:x2]
    rows = np.clip(np.arange(y1, y2), 0, height - 1)
    columns = np.clip(np.arange(x1, x2), 0, width - 1)
    return frame[rows[:, None], columns]


def crop_resize(frame: U8, box: Sequence[SupportsIndex], out: U8) -> U8:
    """Bilinear crop: half-pixel centres, no antialias, the crop's own edge repeated (OpenCV INTER_LINEAR).

    Samples never come from outside the box, so the result equals cutting first and resizing after.
    Where the box leaves the frame, the frame's edge pixels are repeated.

    Args:
        frame: uint8 BGR (H, W, 3), any strides.
        box: x1, y1, x2, y2 in frame pixels, ends exclusive, at least one pixel.
        out: uint8 (h, w, 3), C-contiguous; written.

    Returns:
        `out`.

    Raises:
        InternalError: a wrong shape, dtype or an empty box.
    """
    check_picture(frame, "frame")
    size = check_picture(out, "out")
    check_out(out, "out", (*size, 3), np.uint8)
    cv2.resize(crop(frame, as_box(box)), size[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
    return out


def warp_affine(
    frame: U8, to_frame: npt.NDArray[np.float64], out: U8, *, border: tuple[int, int, int] = (0, 0, 0)
) -> U8:
    """Sample a frame along an affine map: bilinear, positions rounded to 1/32 pixel (OpenCV warpAffine).

    Args:
        frame: uint8 BGR (H, W, 3), any strides.
        to_frame: float64 (2, 3), from a pixel (x, y, 1) of `out` to one of the frame, pixel centres at whole
            numbers.
        out: uint8 (h, w, 3), C-contiguous; written.
        border: blue, green, red outside the frame.

    Returns:
        `out`.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    check_picture(frame, "frame")
    check_array(to_frame, "to_frame", (2, 3), np.float64)
    size = check_picture(out, "out")
    check_out(out, "out", (*size, 3), np.uint8)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(
        frame, to_frame, size[::-1], dst=out, flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=border
    )
    return out
