"""Bring what a restorer changed back into the picture its face was taken from.

    restored - aligned ── sampled in the window ── times a soft mask ── added to what is there

It is the change that travels, not the picture: where the restorer changed nothing the result is untouched to
the bit, and what the 512 x 512 picture could not hold of a larger face stays.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.kernels.boxes import Box, box_size
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
        InternalError: a wrong shape or dtype, or values that are not finite numbers.
    """
    width, height = box_size(window)
    check_out(difference, "difference", (height, width, 3), np.float32)
    check_array(mask, "mask", (height, width), np.float32)
    space = workspace or thread_workspace()
    change = _levels(restored, aligned, space)
    there = space.array("restored_change", (height, width, 3), np.float32)
    sample(change, from_corner(to_aligned, window[0], window[1]), width, height, out=there)
    np.multiply(
        there, cv2.merge([mask] * 3, dst=space.array("restored_mask", there.shape, np.float32)), out=there
    )
    np.add(difference, there, out=difference)
    return difference


def _levels(restored: npt.NDArray[Any], aligned: npt.NDArray[Any], space: Workspace) -> F32:
    """Restored minus aligned, float32 BGR (512, 512, 3) in levels."""
    change = space.array("restored_levels", (ALIGNED, ALIGNED, 3), np.float32)
    if restored.dtype == np.uint8:
        check_array(restored, "restored", change.shape, np.uint8)
        check_array(aligned, "aligned", change.shape, np.uint8)
        np.subtract(restored, aligned, out=change, dtype=np.float32)
        return change
    check_array(restored, "restored", (3, ALIGNED, ALIGNED), np.float32)
    check_array(aligned, "aligned", restored.shape, np.float32)
    check_finite(restored)
    planes = space.array("restored_planes", restored.shape, np.float32)
    np.clip(restored, -1, 1, out=planes)
    np.subtract(planes, aligned, out=planes)
    np.multiply(planes, _HALF_RANGE, out=planes)
    cv2.merge([planes[2], planes[1], planes[0]], dst=change)
    return change
