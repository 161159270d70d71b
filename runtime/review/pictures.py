"""How far two pictures are apart: luma, structural similarity, signal to noise.

All on luma Y' = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), 0 to 255: chroma is stored at half size by nearly
every file, and SSIM was defined and validated on luma.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float64]

EQUAL_DB = 100.0
"""PSNR reported for equal pictures, whose noise is zero; an 8-bit picture with any error stays far below."""

_SIGMA = 1.5  # pixels; with taps up to 5 pixels away, as Wang et al. 2004
_TAPS = 11
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def luma(picture: Picture) -> Picture:
    """uint8 (H, W) luma of a uint8 BGR (H, W, 3) picture."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def ssim_map(first: Picture, second: Picture) -> Plane:
    """Structural similarity around every pixel (Wang, Bovik, Sheikh, Simoncelli 2004).

    Gaussian window of 11 x 11 with sigma 1.5, population covariance, borders mirrored: what scikit-image
    computes with `gaussian_weights=True`, in a third of its time.

    Args:
        first, second: uint8 (H, W), of one size.

    Returns:
        float64 (H, W) in [-1, 1]; 1 where both are alike.
    """
    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance = _blurred(x * y) - product
    variances = _blurred(x * x + y * y) - squares
    similar: Plane = ((2 * product + _C1) * (2 * covariance + _C2)) / ((squares + _C1) * (variances + _C2))
    return similar


def mean_ssim(similarity: Plane) -> float:
    """The mean of an `ssim_map` without the border that mirrored pixels reach into."""
    border = _TAPS // 2
    inner = similarity[border:-border, border:-border]
    return float(inner.mean() if inner.size else similarity.mean())


def psnr_db(first: Picture, second: Picture) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures of one shape, in dB; `EQUAL_DB` when equal."""
    difference = cv2.norm(first, second, cv2.NORM_L2SQR)
    if difference == 0:
        return EQUAL_DB
    return float(10 * math.log10(255**2 * first.size / difference))


def _blurred(plane: Plane) -> Plane:
    blurred = cv2.GaussianBlur(plane, (_TAPS, _TAPS), _SIGMA, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float64)
