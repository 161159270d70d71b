"""Bring what a restorer changed back into the picture its face was taken from.

    restored - aligned ── sampled where a mask shows it ── times the mask ── added to what is there

It is the change that travels, not the picture: where the restorer changed nothing the result is untouched to
the bit, and what the 512 x 512 picture could not hold of a larger face stays.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.kernels.boxes import Box, box_size, cut
from dubstream.kernels.checks import F32, check_array, check_out
from dubstream.kernels.face_align import ALIGNED, F64, from_corner, sample
from dubstream.kernels.planes import check_finite
from dubstream.kernels.workspace import Workspace, thread_workspace

_HALF_RANGE = np.float32(255 / 2)  # levels to one unit of a plane in [-1, 1]


def add_restored(
    difference: F32,
    restored: npt.NDArray[Any],
    aligned: npt.NDArray[Any],
    mask: F32,
    to_aligned: F64,
    window: Box,
    *,
    workspace: Workspace | None = None,
) -> F32:
    """Add a restorer's change to a picture in levels, in place.

    Args:
        difference: float32 BGR (h, w, 3), C-contiguous, anything in levels inside `window`; changed.
        restored, aligned: the restorer's output and input: float32 RGB (3, 512, 512), the output clamped to
            [-1, 1], or uint8 BGR (512, 512, 3); both alike.
        mask: float32 (h, w) in [0, 1], the share of the change that is wanted.
        to_aligned: float64 (2, 3), from pixels of the picture to those of the aligned face.
        window: where `difference` lies in the picture.
        workspace: scratch memory; the thread's own by default.

    Returns:
        `difference`.

    Raises:
        InternalError: a wrong shape or dtype, or values under the mask that are not finite numbers.
    """
    width, height = box_size(window)
    check_out(difference, "difference", (height, width, 3), np.float32)
    check_array(mask, "mask", (height, width), np.float32)
    space = workspace or thread_workspace()
    x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    if width == 0:
        return difference
    inside = slice(y, y + height), slice(x, x + width)
    to_part = from_corner(to_aligned, window[0] + x, window[1] + y)
    region = _region(to_part, width, height)
    change = _levels(restored, aligned, region, space)
    there = space.array("restored_change", (height, width, 3), np.float32)
    sample(change, to_part - [[0, 0, region[0]], [0, 0, region[1]]], width, height, out=there)
    weights = space.array("restored_mask", there.shape, np.float32)
    np.multiply(there, cv2.merge([np.ascontiguousarray(mask[inside])] * 3, dst=weights), out=there)
    np.add(difference[inside], there, out=difference[inside])
    return difference


def _region(to_aligned: F64, width: int, height: int) -> Box:
    """The aligned pixels that a picture of this size is sampled from, with some around them."""
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ to_aligned.T
    spare = 2 * max(int(np.hypot(to_aligned[0, 0], to_aligned[1, 0])), 1) + 2
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - spare, 0, ALIGNED - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + spare, low + 1, ALIGNED)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _levels(restored: npt.NDArray[Any], aligned: npt.NDArray[Any], region: Box, space: Workspace) -> F32:
    """Restored minus aligned inside a region, float32 BGR (h, w, 3) in levels."""
    rows, columns = cut(region, (0, 0, 0, 0))
    width, height = box_size(region)
    change = space.array("restored_levels", (height, width, 3), np.float32)
    if restored.dtype == np.uint8:
        check_array(restored, "restored", (ALIGNED, ALIGNED, 3), np.uint8)
        check_array(aligned, "aligned", restored.shape, np.uint8)
        np.subtract(restored[rows, columns], aligned[rows, columns], out=change, dtype=np.float32)
        return change
    check_array(restored, "restored", (3, ALIGNED, ALIGNED), np.float32)
    check_array(aligned, "aligned", restored.shape, np.float32)
    planes = space.array("restored_planes", (3, height, width), np.float32)
    np.copyto(planes, restored[:, rows, columns])
    check_finite(planes)
    np.clip(planes, -1, 1, out=planes)
    np.subtract(planes, aligned[:, rows, columns], out=planes)
    np.multiply(planes, _HALF_RANGE, out=planes)
    cv2.merge([planes[2], planes[1], planes[0]], dst=change)
    return change
