"""The parts of a frame that a review looks at, from the five points of the face."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import NoFaceError
from dubstream.kernels.blend import DEFAULT_SETTINGS, blend_window
from dubstream.kernels.boxes import Box, box_size, intersect
from dubstream.kernels.multiband import pyramid_reach
from dubstream.runtime.faces.geometry import Pads, face_extent, padded_box

MOUTH_SIZE = (64, 48)
"""Width and height of the mouth in its own coordinates, in pixels."""

# Of the eye distance, from the middle between the mouth's corners: cheek to cheek, nose to chin.
_MOUTH_HALF_WIDTH = 0.72
_MOUTH_ABOVE = 0.42
_MOUTH_BELOW = 0.66
_SMOOTHING = 1.5  # pixels of the patch
_SMALLEST_MOUTH = 8  # pixels; below, no measure of it means anything


@dataclass(frozen=True)
class Windows:
    """Windows of one frame, ends exclusive, in pixels of the frame.

    Attributes:
        face: the box the synthesised face is resized to.
        mask: the part of it that is replaced (`dubstream.kernels.face_mask`).
        blend: the box outside which a dub leaves every pixel alone (`dubstream.kernels.blend`).
        mouth: lips, and the chin that moves with them.
        mouth_exact: float64 (4,), `mouth` before rounding and clipping: x1, y1, x2, y2.
    """

    face: Box
    mask: Box
    blend: Box
    mouth: Box
    mouth_exact: npt.NDArray[np.float64]


def windows_of(
    points: npt.NDArray[np.float64], width: int, height: int, pads: Pads | None = None
) -> Windows | None:
    """The windows of a face.

    Args:
        points: float (5, 2), eyes, nose, mouth corners, in pixels of the frame.
        width, height: of the frame.
        pads: widening of the face box, as the dub had it.

    Returns:
        None where face or mouth are (nearly) outside the frame.
    """
    try:
        extent = face_extent(points)
        face: Box = padded_box(extent, width, height, pads)
    except NoFaceError:
        return None
    eye_distance = (extent[2] - extent[0]) / 2.25  # `face_extent` is that many wide
    x, y = points[3:].mean(axis=0)
    exact = np.array(
        [
            x - _MOUTH_HALF_WIDTH * eye_distance,
            y - _MOUTH_ABOVE * eye_distance,
            x + _MOUTH_HALF_WIDTH * eye_distance,
            y + _MOUTH_BELOW * eye_distance,
        ]
    )
    x1, y1, x2, y2 = (int(value) for value in np.rint(exact))
    mouth = intersect((x1, y1, x2, y2), (0, 0, width, height))
    if mouth is None or min(mouth[2] - mouth[0], mouth[3] - mouth[1]) < _SMALLEST_MOUTH:
        return None
    reach = pyramid_reach(DEFAULT_SETTINGS.levels(face))
    return Windows(face, _mask_box(face), blend_window(face, width, height, reach), mouth, exact)


def _mask_box(face: Box) -> Box:
    """The support of the blend's mask."""
    shape = DEFAULT_SETTINGS.mask
    width, height = box_size(face)
    across = round(shape.side * width)
    return (
        face[0] + across,
        face[1] + round(shape.top * height),
        face[2] - across,
        face[3] - round(shape.bottom * height),
    )


def mouth_patch(luma: npt.NDArray[np.uint8], windows: Windows) -> npt.NDArray[np.float32]:
    """The mouth in its own coordinates, so that a moving head does not count as a moving mouth.

    Smoothed before it is resampled: fine texture that moves by a fraction of a pixel would change every
    sample, lips or no lips.

    Returns:
        float32 of `MOUTH_SIZE`, luma 0 to 255.
    """
    x1, y1, x2, y2 = windows.mouth_exact
    width, height = MOUTH_SIZE
    scale_x, scale_y = (x2 - x1) / width, (y2 - y1) / height
    sigma = _SMOOTHING * max(scale_x, scale_y)
    margin = math.ceil(3 * sigma)
    left, top = max(windows.mouth[0] - margin, 0), max(windows.mouth[1] - margin, 0)
    part = luma[top : windows.mouth[3] + margin, left : windows.mouth[2] + margin].astype(np.float32)
    # Maps centres of the patch's pixels to the part's.
    to_part = np.array(
        [[scale_x, 0, x1 - left + 0.5 * scale_x - 0.5], [0, scale_y, y1 - top + 0.5 * scale_y - 0.5]]
    )
    patch = cv2.warpAffine(
        cv2.GaussianBlur(part, (0, 0), sigma),
        to_part,
        MOUTH_SIZE,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(patch, dtype=np.float32)
