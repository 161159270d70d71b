"""Alignment of a face for the 3DMM network: a scaled, shifted 224x224 cut without rotation.

The scale and shift come from the least-squares affine camera that maps five points of a mean 3D head onto
the picture (Deng et al. 2019, "Accurate 3D Face Reconstruction with Weakly-Supervised Learning").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubstream.engines.errors import NoFaceError
from dubstream.runtime.faces.geometry import CANONICAL, checked_points

TARGET = 224  # pixels, side of the network's input
FACE_SCALE = 102.0  # size of the head after alignment, in template units to pixels

# Left eye, right eye, nose, mouth corners of the mean head; x right, y up, z to the viewer.
TEMPLATE = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.0032534988, -0.046179324, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.2484662, -0.38128236, 0.22235769],
    ]
)

# A face outside these scales is smaller than 16 px or larger than six pictures: a failed fit, and
# enlarging by it would take memory without bound.
_SMALLEST_SCALE, _LARGEST_SCALE = 1.0 / 16.0, 16.0


class ReconAlignment(NamedTuple):
    """Scale and shift of one face in its 256x256 picture; tx and ty in pixels, ty upwards."""

    scale: float
    tx: float
    ty: float


def reconstruction_alignment(points_256: ArrayLike) -> ReconAlignment:
    """Fit the affine camera u = R1.X + tx, v = R2.X + ty to five points.

    Args:
        points_256: (5, 2) pixels of the 256x256 face picture, y downwards; flipped inside (v = 255 - y).

    Returns:
        scale = 102 / ((|R1| + |R2|) / 2), tx, ty.

    Raises:
        NoFaceError: unusable points, or a face out of all scale.
    """
    points = checked_points(points_256)
    upwards = np.stack([points[:, 0], CANONICAL - 1 - points[:, 1]], axis=1)
    design = np.concatenate([TEMPLATE, np.ones((5, 1))], axis=1)
    camera = np.linalg.lstsq(design, upwards, rcond=None)[0]
    head = float(np.linalg.norm(camera[:3], axis=0).mean())
    scale = FACE_SCALE / head if head > 0 else math.inf
    if not _SMALLEST_SCALE <= scale <= _LARGEST_SCALE:
        raise NoFaceError(
            f"3DMM alignment would scale the face by {scale:.3g}; "
            f"expected {_SMALLEST_SCALE:g} to {_LARGEST_SCALE:g}"
        )
    return ReconAlignment(scale, float(camera[3, 0]), float(camera[3, 1]))


def align_for_recon(
    image_rgb_256: NDArray[np.uint8], points_256: ArrayLike
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cut the picture that the 3DMM network sees.

    Args:
        image_rgb_256: uint8 (256, 256, 3), RGB.
        points_256: (5, 2) pixels of that picture, y downwards.

    Returns:
        uint8 (224, 224, 3) RGB, black outside the picture, resized by PIL's antialiased bicubic filter, and
        float32 (5,): 256, 256, scale, tx, ty, the last five of a frame's 262 coefficients.

    Raises:
        NoFaceError: as `reconstruction_alignment`.
    """
    from PIL import Image

    fit = reconstruction_alignment(points_256)
    size, left, up = _placement(fit)
    resized = Image.fromarray(image_rgb_256).resize((size, size), Image.Resampling.BICUBIC)
    aligned = np.asarray(resized.crop((left, up, left + TARGET, up + TARGET)))
    return aligned, np.array([CANONICAL, CANONICAL, *fit], dtype=np.float32)


def _placement(fit: ReconAlignment) -> tuple[int, int, int]:
    """Side of the resized picture, and left and top of the cut; truncated towards zero throughout."""
    size = int(CANONICAL * fit.scale)
    corner = size / 2 - TARGET / 2
    left = int(corner + (fit.tx - CANONICAL / 2) * fit.scale)
    up = int(corner + (CANONICAL / 2 - fit.ty) * fit.scale)
    return size, left, up
