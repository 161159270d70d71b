"""The Laplacian blend of the original program, for results that must match it number by number."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from dubstream.engines.errors import InternalError
from dubstream.kernels.checks import F32, U8, check_array, check_picture


def laplacian_blend_uint8(inside: U8, outside: U8, mask: F32, levels: int) -> F32:
    """Laplacian pyramid blend with pictures reduced in uint8.

    Upstream behaviour, there with 10 and then 6 levels at 512x512. Every reduced picture is rounded to uint8
    before the next reduction; bands and mask are float32. Exact where the two pictures agree everywhere.

    Args:
        inside: uint8 (H, W, 3), taken where the mask is 1.
        outside: uint8 (H, W, 3).
        mask: float32 (H, W).
        levels: pictures in the pyramid, 1 or more; the coarsest is mixed as it is.

    Returns:
        float32 (H, W, 3), which may leave 0..255: the caller clips and truncates.

    Raises:
        InternalError: a wrong shape or dtype, or no level.
    """
    size = check_picture(outside, "outside")
    check_picture(inside, "inside", size)
    check_array(mask, "mask", size, np.float32)
    if levels < 1:
        raise InternalError(f"{levels} levels, expected 1 or more")
    weights = [mask]
    for _ in range(1, levels):
        weights.append(cv2.pyrDown(weights[-1]).astype(np.float32, copy=False))
    mixed = [
        a * weight[..., None] + b * (1 - weight[..., None])
        for a, b, weight in zip(_bands(inside, levels), _bands(outside, levels), weights, strict=True)
    ]
    blended = mixed.pop()
    while mixed:
        finer = mixed.pop()
        blended = cv2.pyrUp(blended, dstsize=(finer.shape[1], finer.shape[0])) + finer
    return blended


def _bands(picture: U8, levels: int) -> list[F32]:
    """Finest band first; the last entry is the coarsest picture itself."""
    reduced = [picture]
    for _ in range(1, levels):
        reduced.append(cv2.pyrDown(reduced[-1]).astype(np.uint8, copy=False))
    pictures = [level.astype(np.float32) for level in reduced]
    bands = [
        fine - cv2.pyrUp(coarse, dstsize=(fine.shape[1], fine.shape[0]))
        for fine, coarse in pairwise(pictures)
    ]
    return [*bands, pictures[-1]]
