"""Between pictures (uint8, height x width x BGR) and network planes (float32, channel x height x width)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from dubstream.engines.errors import InternalError
from dubstream.kernels.checks import F32, U8, check_array, check_out, check_picture
from dubstream.kernels.workspace import Workspace, thread_workspace


@dataclass(frozen=True)
class PlaneLayout:
    """How a network wants its picture.

    Attributes:
        channels: order of the planes; pictures are always BGR.
        low: the value of black, 0.0 or -1.0; white is 1.0.
    """

    channels: Literal["RGB", "BGR"]
    low: Literal[0, -1]

    @property
    def order(self) -> tuple[int, int, int]:
        """BGR channel index of each plane."""
        return (2, 1, 0) if self.channels == "RGB" else (0, 1, 2)


RGB_SIGNED = PlaneLayout("RGB", -1)
RGB_UNIT = PlaneLayout("RGB", 0)
BGR_UNIT = PlaneLayout("BGR", 0)
BGR_SIGNED = PlaneLayout("BGR", -1)


def to_planes(picture: U8, layout: PlaneLayout, *, out: F32) -> F32:
    """A picture as network planes: x/255, or x/255*2-1.

    Args:
        picture: uint8 BGR (H, W, 3), any strides.
        layout: plane order and range.
        out: float32 (3, H, W), C-contiguous; written.

    Returns:
        `out`, in [0, 1] or [-1, 1].

    Raises:
        InternalError: a wrong shape or dtype.
    """
    height, width = check_picture(picture, "picture")
    check_out(out, "out", (3, height, width), np.float32)
    for plane, channel in zip(out, layout.order, strict=True):
        np.divide(picture[:, :, channel], np.float32(255), out=plane)
    if layout.low == -1:
        np.multiply(out, np.float32(2), out=out)
        np.subtract(out, np.float32(1), out=out)
    return out


def from_planes(
    planes: F32, layout: PlaneLayout, *, out: U8, truncate: bool = False, workspace: Workspace | None = None
) -> U8:
    """Network planes as a picture, clamped to the layout's range.

    Args:
        planes: float32 (3, H, W), any values; read only.
        layout: plane order and range.
        out: uint8 BGR (H, W, 3), C-contiguous; written.
        truncate: drop the fraction as the original program does; else the nearest level, halves to even.
        workspace: scratch memory; the thread's own by default.

    Returns:
        `out`.

    Raises:
        InternalError: a wrong shape or dtype, or a value that is not a finite number.
    """
    height, width = check_picture(out, "out")
    check_array(planes, "planes", (3, height, width), np.float32)
    check_out(out, "out", (height, width, 3), np.uint8)
    scratch = (workspace or thread_workspace()).array("from_planes", (height, width, 3), np.float32)
    cv2.merge([planes[channel] for channel in layout.order], dst=scratch)
    check_finite(scratch)
    if layout.low == -1:
        np.add(scratch, np.float32(1), out=scratch)
        np.divide(scratch, np.float32(2), out=scratch)
    np.multiply(scratch, np.float32(255), out=scratch)
    np.clip(scratch, 0, 255, out=scratch)
    if not truncate:
        np.rint(scratch, out=scratch)
    np.copyto(out, scratch, casting="unsafe")
    return out


def check_finite(values: F32) -> None:
    """Raise when a network's picture holds NaN or infinity.

    Raises:
        InternalError: naming how many values are not finite.
    """
    if not cv2.checkRange(values)[0]:
        count = int(values.size - np.count_nonzero(np.isfinite(values)))
        raise InternalError(f"{count} of {values.size} values of a network's picture are not finite numbers")
