"""Pure geometry on five facial points: crop box, quad and its mask, and the box of the lip network.

Everywhere, `points` is float (5, 2): left eye, right eye, nose, left mouth corner, right mouth corner,
as (x, y) in pixels, y downwards, "left" as seen in the picture. Arithmetic is float64. Points that
describe no face (not finite, coinciding, out of scale) raise `NoFaceError`; nothing here returns NaN.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubstream.engines.errors import NoFaceError

CANONICAL = 256  # pixels; side of the picture in which D-Net and the aligners see a face

_SMALLEST_CROP = 16  # pixels
_SMALLEST_FACE = 1.0  # pixels between the eyes, or from the eyes to the mouth
_FURTHEST = 1e6  # pixels; a point beyond is a failed fit


class Box(NamedTuple):
    """Whole pixels of a frame: columns x1..x2-1, rows y1..y2-1, never empty."""

    x1: int
    y1: int
    x2: int
    y2: int


class Pads(NamedTuple):
    """Widening of a face box in pixels; negative values narrow it."""

    top: float = 0.0
    bottom: float = 20.0
    left: float = 0.0
    right: float = 0.0


REFERENCE_HEIGHT = 250.0  # pixels of face height for which the default pads were chosen upstream


def checked_points(points: ArrayLike) -> NDArray[np.float64]:
    """The points as float64 (5, 2), after the checks every function here relies on.

    Raises:
        NoFaceError: wrong shape, not finite, or eyes and mouth that coincide.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.shape != (5, 2):
        raise NoFaceError(f"facial points have shape {array.shape}; expected (5, 2)")
    if not np.isfinite(array).all() or np.abs(array).max() > _FURTHEST:
        raise NoFaceError(f"facial points are not usable numbers: {array.tolist()}")
    eyes = float(np.hypot(*(array[1] - array[0])))
    descent = float(np.hypot(*(array[3:].mean(axis=0) - array[:2].mean(axis=0))))
    if max(eyes, descent) < _SMALLEST_FACE:
        raise NoFaceError(f"facial points coincide: eyes {eyes:.3f} px apart, mouth {descent:.3f} px below")
    return array


def quad(points: ArrayLike) -> NDArray[np.float64]:
    """The rotated square around a face, larger than the head (paper section 3.1, upstream behaviour).

    Returns:
        float64 (4, 2): top left, bottom left, bottom right, top right.
    """
    centre, x, y = _square(checked_points(points))
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def quad_to_crop(points: ArrayLike) -> NDArray[np.float64]:
    """Affine map from picture coordinates to the 256x256 crop of the quad.

    Coordinates count pixel edges (the first pixel's centre is 0.5), as PIL's transforms do.

    Returns:
        float64 (2, 3).
    """
    centre, x, y = _square(checked_points(points))
    half = CANONICAL / 2
    linear = half * np.stack([x / (x @ x), y / (y @ y)])
    offset = half - linear @ (centre + 0.5)
    return np.concatenate([linear, offset[:, None]], axis=1)


def quad_mask(points: ArrayLike, feather: float = 0.0, size: int = CANONICAL) -> NDArray[np.float32]:
    """Where the stabilised face replaces the source picture.

    One mask, one composite: the original cuts the quad out and pastes it back, two resamplings whose net
    effect is this choice plus blur.

    Args:
        points: in pixels of the picture the mask is for.
        feather: pixels over which the mask falls from 1 to 0, inwards from the quad and from the
            picture's border; 0 gives a binary mask.
        size: side of the square picture.

    Returns:
        float32 (size, size), 0 (source) to 1 (face).
    """
    centre, x, y = _square(checked_points(points))
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    half = float(np.hypot(*x))
    across = half - np.abs(((columns - centre[0]) * x[0] + (rows - centre[1]) * x[1]) / half)
    along = half - np.abs(((columns - centre[0]) * y[0] + (rows - centre[1]) * y[1]) / half)
    to_quad = np.minimum(across, along)
    if feather <= 0:
        return np.asarray(to_quad >= 0, dtype=np.float32)
    to_border = np.minimum(np.minimum(rows, size - 1 - rows), np.minimum(columns, size - 1 - columns))
    return np.asarray(np.clip(np.minimum(to_quad, to_border) / feather, 0.0, 1.0), dtype=np.float32)


def crop_box(points: ArrayLike, width: int, height: int) -> Box:
    """The upright box around a face that is resized to 256x256 (upstream behaviour, equal to the pixel).

    The bounds of `quad`, truncated to whole pixels relative to a rounded-out cut around it, which is what
    decides the last pixel. Clipped to the frame, so the box need not be square.

    Args:
        points: in pixels of the frame.
        width, height: the frame's size in pixels.

    Raises:
        NoFaceError: unusable points, or fewer than 16 pixels of the face inside the frame.
    """
    corners = quad(points)
    border = max(int(np.rint(0.1 * math.dist(corners[0], corners[3]))), 3)
    left = max(math.floor(corners[:, 0].min()) - border, 0)
    top = max(math.floor(corners[:, 1].min()) - border, 0)
    right = min(math.ceil(corners[:, 0].max()) + border, width)
    bottom = min(math.ceil(corners[:, 1].max()) + border, height)
    top_left, bottom_left, bottom_right, top_right = corners - (left, top) + 0.5
    box = Box(
        left + int(max(min(top_left[0], bottom_left[0]), 0)),
        top + int(max(min(top_left[1], top_right[1]), 0)),
        min(left + int(max(bottom_right[0], top_right[0])), right, width),
        min(top + int(max(bottom_left[1], bottom_right[1])), bottom, height),
    )
    return _checked_box(box, width, height)


def points_in_crop(points: ArrayLike, box: Box) -> NDArray[np.float64]:
    """Where points of the frame lie in the 256x256 picture that `box` is resized to.

    Pixel centres map as a bilinear resize maps them; the aspect ratio is not kept.

    Returns:
        float64 (5, 2), pixels of the 256x256 picture.
    """
    scale = np.array([CANONICAL / (box.x2 - box.x1), CANONICAL / (box.y2 - box.y1)])
    return np.asarray((checked_points(points) - box[:2] + 0.5) * scale - 0.5)


def face_extent(points: ArrayLike) -> NDArray[np.float64]:
    """The upright rectangle from forehead to chin and ear to ear that a face detector would give.

    From the points rather than from a detector's box, so that it moves as smoothly as they do and
    means the same with every detector. Proportions: two and a quarter eye distances wide, the
    mouth line at four fifths of the height.

    Returns:
        float64 (4,): x1, y1, x2, y2 in pixels, not clipped.
    """
    array = checked_points(points)
    eyes, mouth = array[:2].mean(axis=0), array[3:].mean(axis=0)
    distance = max(float(np.hypot(*(array[1] - array[0]))), 0.88 * float(np.hypot(*(mouth - eyes))))
    centre_x = 0.5 * (eyes[0] + mouth[0])
    middle_y = 0.5 * (eyes[1] + mouth[1])
    return np.array(
        [
            centre_x - 1.125 * distance,
            middle_y - 1.75 * distance,
            centre_x + 1.125 * distance,
            middle_y + 1.2 * distance,
        ]
    )


def padded_box(
    extent: ArrayLike, width: int, height: int, pads: Pads | None = None, *, scale_pads: bool = True
) -> Box:
    """The lip network's box: a face's extent, padded, clipped to the frame, in whole pixels.

    Args:
        extent: float (4,), x1, y1, x2, y2 in pixels.
        width, height: the frame's size in pixels.
        pads: default 20 pixels below the chin.
        scale_pads: pads grow with the face, and are pixels for a face 250 pixels high (native). False:
            pixels whatever the size, and the box truncated before padding (upstream).

    Raises:
        NoFaceError: not finite, or fewer than 16 pixels inside the frame.
    """
    box = np.asarray(extent, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or np.abs(box).max() > _FURTHEST:
        raise NoFaceError(f"face box is not usable: {box.tolist()}; expected x1, y1, x2, y2")
    grow = np.array(Pads() if pads is None else pads)
    if scale_pads:
        grow = grow * ((box[3] - box[1]) / REFERENCE_HEIGHT)
    else:
        box = np.trunc(np.maximum(box, 0.0))
    x1, y1, x2, y2 = box + np.array([-grow[2], -grow[0], grow[3], grow[1]])
    limits = (int(max(x1, 0)), int(max(y1, 0)), int(min(x2, width)), int(min(y2, height)))
    return _checked_box(Box(*limits), width, height)


def _square(
    points: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre and the two half-axes of the face's square; the axes are equally long and orthogonal."""
    eyes = points[:2].mean(axis=0)
    eye_to_eye = points[1] - points[0]
    eye_to_mouth = points[3:].mean(axis=0) - eyes
    direction = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    length = float(np.hypot(*direction))
    if length < _SMALLEST_FACE:
        raise NoFaceError(f"the mouth is above the eyes: {points.tolist()}; no upright direction")
    reach = max(2.0 * float(np.hypot(*eye_to_eye)), 1.8 * float(np.hypot(*eye_to_mouth)))
    x = direction * (reach / length)
    return eyes + 0.1 * eye_to_mouth, x, np.array([-x[1], x[0]])


def _checked_box(box: Box, width: int, height: int) -> Box:
    if min(box.x2 - box.x1, box.y2 - box.y1) < _SMALLEST_CROP:
        raise NoFaceError(
            f"face box {tuple(box)} shows less than {_SMALLEST_CROP} px of a frame of {width}x{height}",
            hint="choose another face with --face, or a larger picture",
        )
    return box
