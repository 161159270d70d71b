"""Five points to the 512 x 512 face: detections, and the original's two fits (stages 6.2 and 6.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError, NoFaceError
from dubstream.kernels.checks import F32, U8, check_picture
from dubstream.kernels.face_align import GFPGAN_POINTS, GPEN_POINTS, similarity

F64 = npt.NDArray[np.float64]

_LARGE, _REDUCED = 1500, 1000  # pixels of the longer side: from where, and to what, GPEN's detector reduces
_CLOSEST = 5.0  # pixels, what stands for the distance of the eyes


@dataclass(frozen=True)
class Faces:
    """RetinaFace's answer for one picture, best score first.

    Attributes:
        boxes: float (F, 4), x1 y1 x2 y2 in pixels.
        scores: float (F,).
        points: float (F, 5, 2): left eye, right eye, nose, left and right mouth corner.

    Raises:
        InternalError: lengths or shapes that do not agree, or scores that rise.
    """

    boxes: npt.NDArray[np.floating]
    scores: npt.NDArray[np.floating]
    points: npt.NDArray[np.floating]

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.points.shape != (count, 5, 2):
            raise InternalError(
                f"boxes {self.boxes.shape} and points {self.points.shape} of {count} faces, "
                f"expected ({count}, 4) and ({count}, 5, 2)"
            )
        if (np.diff(self.scores) > 0).any():
            raise InternalError("faces are not in the order of their scores, expected the best one first")


FaceDetector = Callable[[F32], Faces]
"""float32 BGR (H, W, 3) in levels, to the faces in it."""


def enhancement_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which `detect_for_enhancement` shows its detector a picture of that size."""
    longer = max(width, height)
    if longer <= _LARGE:
        return width, height
    factor = _REDUCED / longer
    return round(width * factor), round(height * factor)  # OpenCV rounds halves to even, as Python does


def detect_for_enhancement(picture: U8, detector: FaceDetector) -> Faces:
    """RetinaFace in front of GPEN and of the face mask: reduced where a side is longer than 1500 (stage 6.2).

    The reduction is bilinear in float32, not antialiased, its result neither rounded nor of exactly the
    picture's aspect; everything found is divided by one factor, the scores too, as in the original.

    Args:
        picture: uint8 BGR (H, W, 3).
        detector: with the rule `RETINAFACE_RULE`.
    """
    longer = max(check_picture(picture, "picture"))
    levels = picture.astype(np.float32)
    if longer <= _LARGE:
        return detector(levels)
    factor = _REDUCED / longer
    small = cv2.resize(levels, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    faces = detector(np.asarray(small, np.float32))
    return Faces(faces.boxes / factor, faces.scores / factor, faces.points / factor)


def gpen_fits(points: npt.ArrayLike) -> tuple[F64, F64]:
    """Five points to GPEN's face and back (stage 6.3): Umeyama's similarity, 1991, twice.

    The sums are float32, as in the original, and decide the sixth digit. The way back is a fit of its own
    with the scale held: the inverse up to that rounding.

    Args:
        points: (5, 2) in pixels of the picture.

    Returns:
        float64 (2, 3) from the picture to the 512 x 512 face, and (2, 3) from the face to the picture.

    Raises:
        InternalError: points that do not span a face.
    """
    found, template = np.asarray(points, np.float32), GPEN_POINTS.astype(np.float32)
    similarity(found, template)  # refuses points that span nothing
    to_face, scale = _umeyama(found, template)
    return to_face, _umeyama(template, found, 1 / scale)[0]


def gfpgan_fit(points: npt.ArrayLike) -> F64:
    """Five points to GFPGAN's face (stage 6.3): OpenCV's least-median similarity.

    It may drop points as outliers, and then moves by pixels from one frame to the next: `similarity` with
    `GFPGAN_POINTS` is the steady fit.

    Returns:
        float64 (2, 3), from pixels of the picture to those of the 512 x 512 face.

    Raises:
        NoFaceError: no similarity fits.
    """
    fit, _ = cv2.estimateAffinePartial2D(np.asarray(points, np.float64), GFPGAN_POINTS, method=cv2.LMEDS)
    if fit is None:
        raise NoFaceError(f"points {np.asarray(points).tolist()} do not span a face")
    return np.asarray(fit, np.float64)


def centre_face(faces: Faces, width: int, height: int) -> int | None:
    """The face GFPGAN restores: the one nearest to the picture's centre (stage 7.4); None without one.

    Faces are dropped where a distance is below 5 pixels. It was meant to be that of the eyes, but is taken
    from shifted indices: y of left eye to y of right eye, and x of right eye to x of nose.
    """
    left, right, nose = faces.points[:, 0], faces.points[:, 1], faces.points[:, 2]
    distance = np.hypot(left[:, 1] - right[:, 1], right[:, 0] - nose[:, 0])
    kept = np.flatnonzero(distance >= _CLOSEST)
    if not len(kept):
        return None
    middles = (faces.boxes[kept, :2] + faces.boxes[kept, 2:]) / 2
    away = np.hypot(*(middles - (width / 2, height / 2)).T)
    return int(kept[away.argmin()])


def _umeyama(source: F32, target: F32, scale: float | None = None) -> tuple[F64, float]:
    """The similarity from source to target, (n, 2) each, and its scale; fitted unless it is given."""
    around, goal = source.mean(axis=0), target.mean(axis=0)
    centred = source - around
    left, stretch, right = np.linalg.svd((target - goal).T @ centred / len(source))
    keep = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])  # a turn, never a mirror
    turn = left @ np.diag(keep) @ right
    factor = float(1.0 / centred.var(axis=0).sum() * (stretch @ keep)) if scale is None else scale
    return np.concatenate([factor * turn, (goal - factor * (turn @ around))[:, None]], axis=1), factor
