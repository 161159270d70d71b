"""Multi-band blending of a difference: the Laplacian pyramid blend at half the price.

Blending A over B with mask m mixes each band of their Laplacian pyramids, b + (a - b) * m, and adds the
bands up. Pyramids are linear, so this equals B plus the blend of D = A - B over nothing:

    D ── bands of D ── each times m of its level ── added up ── + B, rounded once

One pyramid instead of two, and B comes back untouched, to the bit, wherever D or the mask's pyramid is 0:
no test for "unchanged" is needed anywhere.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from dubstream.engines.errors import InternalError
from dubstream.kernels.checks import F32, check_array, check_out
from dubstream.kernels.workspace import Workspace, thread_workspace


def pyramid_reach(levels: int) -> int:
    """Pixels beyond the mask's support that a blend of so many levels can change.

    Reducing to scale 2^k gathers from 2 * (2^k - 1) pixels away, expanding back scatters as far.
    """
    return 4 * ((1 << (levels - 1)) - 1)


def blend_bands(difference: F32, mask: F32, levels: int, *, workspace: Workspace | None = None) -> F32:
    """Multi-band blend of a difference under a soft mask, in place.

    Args:
        difference: float32 (H, W, 3), C-contiguous; overwritten with the blend.
        mask: float32 (H, W) in [0, 1], C-contiguous.
        levels: number of bands, 1 or more; 1 is a plain product. Any size, odd ones included; levels beyond
            the size blend whole-picture means.
        workspace: scratch memory; the thread's own by default.

    Returns:
        `difference`: to be added to the picture underneath. Exactly 0 further than `pyramid_reach(levels)`
        pixels from where the mask is not 0.

    Raises:
        InternalError: a wrong shape or dtype, or no level.
    """
    height, width = difference.shape[:2]
    if levels < 1:
        raise InternalError(f"{levels} levels, expected 1 or more")
    check_out(difference, "difference", (height, width, 3), np.float32)
    check_array(mask, "mask", (height, width), np.float32)
    space = workspace or thread_workspace()
    bands = _gaussians(difference, "difference", levels, space)
    for fine, coarse in pairwise(bands):
        np.subtract(fine, _expand(coarse, fine, space), out=fine)
    for band, weight in zip(bands, _gaussians(mask, "mask", levels, space), strict=True):
        weights = space.array("band_weights", band.shape, np.float32)
        np.multiply(band, cv2.merge([weight] * 3, dst=weights), out=band)
    for fine, coarse in zip(bands[-2::-1], bands[:0:-1], strict=True):
        np.add(fine, _expand(coarse, fine, space), out=fine)
    return difference


def _gaussians(finest: F32, name: str, levels: int, space: Workspace) -> list[F32]:
    """`finest` and its successive halvings, (n + 1) // 2 pixels each."""
    pyramid = [finest]
    for level in range(1, levels):
        height, width = (pyramid[-1].shape[0] + 1) // 2, (pyramid[-1].shape[1] + 1) // 2
        half = space.array(f"{name}_{level}", (height, width, *finest.shape[2:]), np.float32)
        cv2.pyrDown(pyramid[-1], dst=half, dstsize=(width, height))
        pyramid.append(half)
    return pyramid


def _expand(coarse: F32, like: F32, space: Workspace) -> F32:
    """`coarse` at the size of the next finer level."""
    grown = space.array("expanded", like.shape, np.float32)
    cv2.pyrUp(coarse, dst=grown, dstsize=(like.shape[1], like.shape[0]))
    return grown
