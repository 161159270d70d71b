"""Mix two pictures under a soft mask."""

from __future__ import annotations

import numpy as np

from dubstream.kernels.checks import F32, U8, check_array, check_out, check_picture
from dubstream.kernels.workspace import Workspace, thread_workspace


def composite(inside: U8, outside: U8, mask: F32, *, out: U8, workspace: Workspace | None = None) -> U8:
    """Mix two pictures: round(outside + (inside - outside) * mask), halves to even.

    Exact where the pictures agree and where the mask is 0 or 1.

    Args:
        inside: uint8 (H, W, 3), taken where the mask is 1.
        outside: uint8 (H, W, 3), taken where the mask is 0.
        mask: float32 (H, W) in [0, 1].
        out: uint8 (H, W, 3), C-contiguous; written; may be `inside` or `outside`.
        workspace: scratch memory; the thread's own by default.

    Returns:
        `out`.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    size = check_picture(outside, "outside")
    check_picture(inside, "inside", size)
    check_array(mask, "mask", size, np.float32)
    check_out(out, "out", (*size, 3), np.uint8)
    mixed = (workspace or thread_workspace()).array("composite", (*size, 3), np.float32)
    np.subtract(inside, outside, out=mixed, dtype=np.float32)
    for channel in range(3):
        np.multiply(mixed[:, :, channel], mask, out=mixed[:, :, channel])
    np.add(mixed, outside, out=mixed)
    np.rint(mixed, out=mixed)
    np.copyto(out, mixed, casting="unsafe")
    return out
