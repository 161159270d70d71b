"""Bring the synthesised face to the colour of the skin it will touch.

The face is compared with the source where they will be mixed: along the edge of the mask, with weights
m (1 - m), which are largest where both count the same and 0 where only one of them is seen. There both show
the same skin, so their means per channel should agree, and one gain per channel makes them:

    gain = weighted mean of the source / weighted mean of the face

Why one gain: exposure and white balance scale light, and the power law of coded levels keeps a factor a
factor, so nothing has to be decoded. An offset would lift the dark of an open mouth to grey. A match of
deviations would read the face's blur as low contrast and overdo it; a regression would read what is not
aligned as noise and underdo it. Means suffer from neither.
"""

from __future__ import annotations

import cv2
import numpy as np

from dubstream.engines.errors import InternalError
from dubstream.kernels.checks import F32, U8, check_array, check_out, check_picture
from dubstream.kernels.workspace import Workspace, thread_workspace

LOWEST, HIGHEST = 0.8, 1.25
"""Gains beyond are no difference in colour but something before the face."""

LEAST_WEIGHT = 16.0
"""Weight along the edge, in pixels; with less there is nothing to compare."""


def seam_gains(source: U8, difference: F32, mask: F32, *, workspace: Workspace | None = None) -> F32:
    """Gains that make a face match its source along the edge of its mask.

    Args:
        source: uint8 (H, W, 3), any strides.
        difference: float32 (H, W, 3), C-contiguous, face minus source in levels.
        mask: float32 (H, W) in [0, 1], C-contiguous: the share of the face in the result.
        workspace: scratch memory; the thread's own by default.

    Returns:
        float32 (3,), one gain per channel in [0.8, 1.25]; ones where the mask has no edge.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    height, width = check_picture(source, "source")
    check_out(difference, "difference", (height, width, 3), np.float32)
    check_array(mask, "mask", (height, width), np.float32)
    space = workspace or thread_workspace()
    weights = space.array("seam_weights", (height, width), np.float32)
    np.subtract(1, mask, out=weights)
    np.multiply(weights, mask, out=weights)
    total = float(weights.sum(dtype=np.float64))
    if total < LEAST_WEIGHT:
        return np.ones(3, np.float32)
    threefold = space.array("seam_threefold", (height, width, 3), np.float32)
    cv2.merge([weights] * 3, dst=threefold)
    # Sums by OpenCV, in float64 and in one thread: a BLAS product waits for threads of its own.
    wanted = np.array(cv2.sumElems(cv2.multiply(threefold, source, dtype=cv2.CV_32F))[:3]) / total
    found = wanted + np.array(cv2.sumElems(cv2.multiply(threefold, difference))[:3]) / total
    # One level on both sides: black on black is a gain of 1.
    gains = np.clip((wanted + 1) / np.maximum(found + 1, 1), LOWEST, HIGHEST)
    return np.asarray(gains, np.float32)


def apply_gains(source: U8, difference: F32, gains: F32) -> F32:
    """Scale the face of which `difference` is left after its source is taken off, in place.

    Args:
        source: uint8 (H, W, 3).
        difference: float32 (H, W, 3); overwritten with gain * (source + difference) - source.
        gains: float32 (3,).

    Returns:
        `difference`.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    height, width = check_picture(source, "source")
    check_out(difference, "difference", (height, width, 3), np.float32)
    if gains.shape != (3,):
        raise InternalError(f"gains have shape {gains.shape}, expected (3,)")
    if (gains != 1).any():
        cv2.add(difference, source, dst=difference, dtype=cv2.CV_32F)
        cv2.transform(difference, np.diag(gains), dst=difference)
        cv2.subtract(difference, source, dst=difference, dtype=cv2.CV_32F)
    return difference
