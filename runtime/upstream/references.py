"""The reference of the lip network: the stabilised face inside its quad, the source around it (stage 5.2).

    enhanced 256 x 256 ── quad cut ── 256 x 256 ── pasted back by the inverse map ── over the source's box
                                                     └── 256 x 256, resized to the box, written into the frame

Cut and paste undo each other but for two resamplings; they are kept apart to have the original's blur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from dubstream.kernels.boxes import as_box, box_size
from dubstream.kernels.checks import U8, check_picture
from dubstream.runtime.faces.geometry import CANONICAL, quad, quad_to_crop
from dubstream.runtime.upstream.landmarks import crop_points

_SIZE = (CANONICAL, CANONICAL)


def cut_quad(picture: U8, points: npt.ArrayLike) -> U8:
    """The face's quad as an upright square, bilinear at PIL's pixel centres.

    The picture is cut to the quad's bounds and a border first, as in the original, which takes the quad's
    *diagonal* for its side there: no pixel depends on that, rounding of coordinates may.

    Args:
        picture: uint8 (256, 256, 3), any colour order.
        points: (5, 2) as `crop_points`.

    Returns:
        uint8 (256, 256, 3), black where the quad leaves the picture.

    Raises:
        NoFaceError: points that describe no face.
    """
    check_picture(picture, "picture", _SIZE)
    corners = quad(points)
    border = max(int(np.rint(0.1 * math.dist(corners[1], corners[3]))), 3)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - border, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + border, CANONICAL)
    part = Image.fromarray(picture).crop((*low.tolist(), *high.tolist()))
    where = (corners - low + 0.5).ravel().tolist()
    return np.asarray(part.transform(_SIZE, Image.Transform.QUAD, where, Image.Resampling.BILINEAR))


def paste_quad(cut: U8, points: npt.ArrayLike, background: U8) -> U8:
    """A quad's picture back in its place, over a background, with its own soft edge.

    Args:
        cut: uint8 (256, 256, 3), from `cut_quad`.
        points: the same (5, 2).
        background: uint8 (256, 256, 3), same colour order.

    Returns:
        uint8 (256, 256, 3).
    """
    check_picture(cut, "cut", _SIZE)
    check_picture(background, "background", _SIZE)
    # The original solves for a perspective map; for a square its last two coefficients are 0.
    coefficients = [*quad_to_crop(points).ravel().tolist(), 0.0, 0.0]
    placed = (
        Image.fromarray(cut)
        .convert("RGBA")
        .transform(_SIZE, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
    )
    whole = Image.fromarray(background).convert("RGBA")
    whole.paste(placed, (0, 0), mask=placed)
    return np.asarray(whole.convert("RGB"))


def reference_frame(enhanced: U8, landmarks: npt.ArrayLike, frame: U8, source_box: Sequence[int]) -> U8:
    """A frame in which the face has its stabilised expression.

    Args:
        enhanced: uint8 BGR (256, 256, 3), the stabilised picture of `source_box`.
        landmarks: (68, 2) whole pixels found in `enhanced`. The original hands it BGR as if it were RGB.
        frame: uint8 BGR (H, W, 3), the source.
        source_box: x1, y1, x2, y2 inside the frame.

    Returns:
        uint8 BGR (H, W, 3), own memory; equal to `frame` outside the box.

    Raises:
        InternalError: wrong shapes or dtypes.
        NoFaceError: landmarks that describe no face, all -1 among them; the original stops with NaN there.
    """
    check_picture(frame, "frame")
    box = as_box(source_box, "source box")
    x1, y1, x2, y2 = box
    points = crop_points(landmarks)
    background = cv2.resize(frame[y1:y2, x1:x2], _SIZE, interpolation=cv2.INTER_LINEAR)
    pasted = paste_quad(cut_quad(enhanced, points), points, np.asarray(background, np.uint8))
    full = frame.copy()
    full[y1:y2, x1:x2] = cv2.resize(pasted, box_size(box), interpolation=cv2.INTER_LINEAR)
    return full
