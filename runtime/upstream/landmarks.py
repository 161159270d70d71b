"""Where the original sees the face: five of 68 landmarks, its crop box, its 3DMM cut (stages 3.2 to 3.4).

Landmarks are whole pixels x, y in the order of the 300-W annotation: 36-41 left eye, 42-47 right eye, 30 tip
of the nose, 48 and 54 corners of the mouth, "left" as seen in the picture, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import as_box
from dubstream.kernels.checks import F32, U8, check_picture
from dubstream.runtime.faces.alignment import TEMPLATE, align_for_recon
from dubstream.runtime.faces.geometry import CANONICAL, Box, crop_box, quad

I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]

LANDMARKS = 68
MISSING = -1
"""Both coordinates of every landmark of a frame without a face."""


def crop_points(landmarks: npt.ArrayLike) -> F64:
    """Five points for crop box and quad: each eye is the mean of its six landmarks; float64 (5, 2).

    Raises:
        InternalError: not 68 landmarks.
    """
    points = _checked(landmarks)
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), *points[[30, 48, 54]]])


def recon_points(landmarks: npt.ArrayLike) -> F64:
    """Five points for the 3DMM cut: each eye is the mean of its two corners; errors as `crop_points`."""
    points = _checked(landmarks)
    return np.stack([points[[36, 39]].mean(axis=0), points[[42, 45]].mean(axis=0), *points[[30, 48, 54]]])


def source_box(landmarks: npt.ArrayLike, width: int, height: int) -> Box:
    """The box of every frame, from the first frame's landmarks (upstream behaviour, stage 3.2).

    As `crop_box`, with the original's slip in tall pictures: the box reaches at most the frame's *width*
    below the top of the cut around it. Faces wider than 2048 pixels, which the original mixes up, are not
    imitated.

    Args:
        landmarks: (68, 2) pixels of the frame; the original takes dlib's.
        width, height: the frame's size in pixels.

    Raises:
        InternalError: not 68 landmarks.
        NoFaceError: as `crop_box`.
    """
    points = crop_points(landmarks)
    box = crop_box(points, width, height)
    corners = quad(points)
    border = max(int(np.rint(0.1 * math.dist(corners[0], corners[3]))), 3)
    top = max(math.floor(corners[:, 1].min()) - border, 0)
    return box._replace(y2=min(box.y2, top + width))


def source_picture(frame: U8, box: Sequence[int]) -> U8:
    """What aligners and D-Net see of a frame: the box at 256 x 256, not antialiased (stage 3.2).

    Args:
        frame: uint8 BGR (H, W, 3).
        box: x1, y1, x2, y2 inside the frame.

    Returns:
        uint8 RGB (256, 256, 3), C-contiguous.
    """
    check_picture(frame, "frame")
    x1, y1, x2, y2 = as_box(box, "source box")
    small = cv2.resize(frame[y1:y2, x1:x2], (CANONICAL, CANONICAL), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(small[..., ::-1])


def filled_landmarks(found: Sequence[I32 | None]) -> list[I32]:
    """Landmarks of a clip without gaps (stage 3.3): a frame without a face repeats the one before it.

    Args:
        found: int32 (68, 2) of each frame, None where no face was.

    Returns:
        int32 (68, 2) for each frame; all `MISSING` for the frames before the first face.
    """
    filled: list[I32] = []
    for points in found:
        if points is not None:
            filled.append(points)
        else:
            filled.append(filled[-1] if filled else np.full((LANDMARKS, 2), MISSING, np.int32))
    return filled


def recon_input(picture: U8, landmarks: npt.ArrayLike) -> tuple[U8, F32]:
    """The 3DMM network's picture and the numbers that go with it (stage 3.4).

    Args:
        picture: uint8 RGB (256, 256, 3).
        landmarks: (68, 2) pixels of it; all `MISSING` takes the template's own points instead.

    Returns:
        uint8 RGB (224, 224, 3) and float32 (5,), as `align_for_recon`.

    Raises:
        InternalError: not 68 landmarks.
        NoFaceError: as `align_for_recon`.
    """
    points = _checked(landmarks)
    if (points == MISSING).all():
        across, up = ((TEMPLATE[:, :2] + 1) / 2 * CANONICAL).T
        return align_for_recon(picture, np.stack([across, CANONICAL - 1 - up], axis=1))
    return align_for_recon(picture, recon_points(points))


def _checked(landmarks: npt.ArrayLike) -> F64:
    points = np.asarray(landmarks, np.float64)
    if points.shape != (LANDMARKS, 2):
        raise InternalError(f"landmarks have shape {points.shape}, expected ({LANDMARKS}, 2)")
    return points
