"""Pictures to network inputs and back, with the original's own arithmetic and rounding.

D-Net's output, the lip network's and GPEN's are truncated to uint8, GFPGAN's is rounded. The original writes
the same conversions in different ways ((x - 0.5) / 0.5, x * 2 - 1, ...); float32 rounds them alike, so that
one pair of functions serves all but the parser, which is scaled in float64.
"""

from __future__ import annotations

import cv2
import numpy as np

from dubstream.kernels.checks import F32, U8, check_picture
from dubstream.kernels.face_align import ALIGNED
from dubstream.kernels.planes import RGB_SIGNED, PlaneLayout, from_planes, to_planes

SQUASHED = (ALIGNED, ALIGNED)
"""Width and height at which the original parses and blends, whatever a picture's aspect."""


def planes_of(picture: U8, layout: PlaneLayout = RGB_SIGNED) -> F32:
    """Input of D-Net, GPEN and GFPGAN (stages 3.7, 6.4, 7.4).

    Args:
        picture: uint8 BGR (H, W, 3).
        layout: RGB in [-1, 1] by default.

    Returns:
        float32 (3, H, W), own memory.
    """
    height, width = check_picture(picture, "picture")
    return to_planes(picture, layout, out=np.empty((3, height, width), np.float32))


def picture_of(planes: F32, layout: PlaneLayout = RGB_SIGNED, *, truncate: bool) -> U8:
    """A network's output as uint8 BGR (H, W, 3), clamped.

    Args:
        planes: float32 (3, H, W).
        layout: RGB in [-1, 1] by default.
        truncate: as after D-Net, GPEN and the lip network; False rounds, as after GFPGAN.

    Raises:
        InternalError: a wrong shape or dtype, or values that are not finite numbers.
    """
    return from_planes(planes, layout, out=np.empty((*planes.shape[1:], 3), np.uint8), truncate=truncate)


def parser_planes(picture: U8) -> F32:
    """ParseNet's input (stages 6.4, 7.5): any uint8 BGR picture, squashed, as RGB planes in [-1, 1]."""
    small = squash(picture)
    scaled = (small[..., ::-1] / 255.0 * 2 - 1).astype(np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def squash(picture: U8) -> U8:
    """A picture or mask at 512 x 512, not antialiased (stages 6.4, 7.5)."""
    check_picture(picture, "picture")
    return np.asarray(cv2.resize(picture, SQUASHED, interpolation=cv2.INTER_LINEAR), np.uint8)


def unsquash(levels: F32, width: int, height: int) -> U8:
    """A blend at 512 x 512, float32, back at the frame's size: clipped, bilinear, truncated (6.4, 7.5)."""
    full = cv2.resize(np.clip(levels, 0, 255), (width, height), interpolation=cv2.INTER_LINEAR)
    return full.astype(np.uint8)
