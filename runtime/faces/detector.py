"""Where faces are in one picture: the interface, and the cascade that needs no download.

A detector gives boxes, a landmark estimator gives five points for a box. Both are protocols, so that
landmark networks take the cascade's place without a change elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import DeviceError, InternalError

if TYPE_CHECKING:
    import cv2

SEARCH_SIDE = 480  # pixels of the longer side; cascades find no more above it, at twice the cost
_SMALLEST_WINDOW = 24  # pixels, the size the cascade was trained at
_SMALLEST_SHARE = 0.05  # of the longer side; smaller "faces" are mostly texture
_PYRAMID_STEP = 1.1
_NEIGHBOURS = 5  # overlapping hits that make a face

# Five points in a cascade's square face box, as shares of its side, measured on portraits:
# the mouth line is 0.41 below the eyes in frontal faces, smiling or not.
_EYES_Y, _LEFT_EYE_X, _RIGHT_EYE_X = 0.38, 0.31, 0.69
_NOSE_DROP, _MOUTH_DROP, _MOUTH_HALF = 0.20, 0.41, 0.16

_EYE_SEARCH_SIDE = (
    160  # pixels to which a face box is resized to look for eyes; 240 costs three times as much
)
_EYE_SEARCH_ROWS = 0.62
_LARGEST_ROLL = 0.45  # radians
_EYE_DISTANCES = (0.24, 0.60)  # of the box's side


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face: corners in pixels of the full frame, and a score that grows with confidence."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float

    @property
    def box(self) -> NDArray[np.float64]:
        """x1, y1, x2, y2 as float64 (4,)."""
        return np.array([self.x1, self.y1, self.x2, self.y2])


class FaceDetector(Protocol):
    """Finds faces in one picture."""

    def detect(self, bgr: NDArray[np.uint8]) -> list[Face]:
        """All faces of a uint8 (H, W, 3) BGR picture, best score first. Same picture, same faces."""


class LandmarkEstimator(Protocol):
    """Finds five points of one face."""

    def points(self, bgr: NDArray[np.uint8], face: Face) -> NDArray[np.float64]:
        """Left eye, right eye, nose, mouth corners: float64 (5, 2) in pixels of the full picture."""


class CascadeDetector:
    """OpenCV's frontal-face Haar cascade on a reduced picture: the embedded default.

    Finds upright, roughly frontal faces from about 5 % of the longer side. Not safe to share between threads.

    Args:
        side: the longer side is reduced to this many pixels before the search.
        threads: OpenCV's threads, a setting of the whole process; 1 keeps results and load predictable.

    Raises:
        DeviceError: an OpenCV without cascades (5.x).
    """

    def __init__(self, *, side: int = SEARCH_SIDE, threads: int = 1) -> None:
        import cv2

        cv2.setNumThreads(threads)
        self._side = side
        self._cascade = _load_cascade("haarcascade_frontalface_default.xml")

    def detect(self, bgr: NDArray[np.uint8]) -> list[Face]:
        """As `FaceDetector.detect`; the score is the cascade's margin in its last stage."""
        gray, scale = reduced_gray(bgr, self._side)
        smallest = max(_SMALLEST_WINDOW, int(_SMALLEST_SHARE * max(gray.shape)))
        boxes, _, margins = self._cascade.detectMultiScale3(
            gray, _PYRAMID_STEP, _NEIGHBOURS, minSize=(smallest, smallest), outputRejectLevels=True
        )
        faces = [
            Face(x / scale, y / scale, (x + width) / scale, (y + height) / scale, float(margin))
            for (x, y, width, height), margin in zip(boxes, np.ravel(margins), strict=True)
        ]
        return sorted(faces, key=lambda face: (-face.score, face.x1, face.y1, face.x2))


class CascadeLandmarks:
    """Five points from a face box: eyes by the eye cascade, the rest by proportion.

    Where the cascade does not see exactly two plausible eyes, they too come from proportions. Not safe to
    share between threads.
    """

    def __init__(self) -> None:
        self._cascade = _load_cascade("haarcascade_eye_tree_eyeglasses.xml")

    def points(self, bgr: NDArray[np.uint8], face: Face) -> NDArray[np.float64]:
        """As `LandmarkEstimator.points`; always five finite points for a finite box."""
        side = max(face.x2 - face.x1, face.y2 - face.y1)
        eyes = self._eyes(bgr, face)
        if eyes is None:
            corner = np.array([face.x1, face.y1])
            eyes = corner + side * np.array([[_LEFT_EYE_X, _EYES_Y], [_RIGHT_EYE_X, _EYES_Y]])
        return five_points(eyes, side)

    def _eyes(self, bgr: NDArray[np.uint8], face: Face) -> NDArray[np.float64] | None:
        """Left and right eye in pixels of the picture, float64 (2, 2), or None."""
        import cv2

        left, top = max(int(face.x1), 0), max(int(face.y1), 0)
        patch = bgr[top : int(face.y1 + _EYE_SEARCH_ROWS * (face.y2 - face.y1)), left : int(face.x2)]
        if min(patch.shape[:2]) < 12:
            return None
        scale = _EYE_SEARCH_SIDE / (face.x2 - face.x1)
        size = (max(round(patch.shape[1] * scale), 1), max(round(patch.shape[0] * scale), 1))
        gray = cv2.resize(cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY), size, interpolation=cv2.INTER_AREA)
        found = self._cascade.detectMultiScale(gray, _PYRAMID_STEP, 4, minSize=(24, 24), maxSize=(67, 67))
        centres = np.array([(x + width / 2, y + height / 2) for x, y, width, height in found])
        pair = _plausible_pair(centres.reshape(-1, 2) / _EYE_SEARCH_SIDE)
        return None if pair is None else pair * _EYE_SEARCH_SIDE / scale + (left, top)


def five_points(eyes: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Complete two eyes to five points by the proportions of a cascade's box of `side` pixels."""
    across = eyes[1] - eyes[0]
    across = across / np.hypot(*across)
    down = np.array([-across[1], across[0]])
    middle = eyes.mean(axis=0)
    mouth = middle + _MOUTH_DROP * side * down
    spread = _MOUTH_HALF * side * across
    return np.stack([eyes[0], eyes[1], middle + _NOSE_DROP * side * down, mouth - spread, mouth + spread])


def reduced_gray(bgr: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    """Grey picture whose longer side is at most `side`, and the factor it was scaled by (1 or less)."""
    import cv2

    if bgr.ndim != 3 or bgr.shape[2] != 3 or bgr.dtype != np.uint8:
        raise InternalError(f"picture is {bgr.dtype} {bgr.shape}; expected uint8 (H, W, 3)")
    gray = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    scale = min(1.0, side / max(gray.shape))
    if scale < 1.0:
        size = (max(round(gray.shape[1] * scale), 1), max(round(gray.shape[0] * scale), 1))
        gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return gray, scale


def _plausible_pair(centres: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The one pair of eye centres (shares of the box) that can be a face's, left first; None if none."""
    best, best_error = None, np.inf
    for first in centres:
        for second in centres:
            across = second - first
            if not _EYE_DISTANCES[0] < across[0] < _EYE_DISTANCES[1]:
                continue
            middle = (first + second) / 2
            error = float(np.hypot(middle[0] - 0.5, middle[1] - _EYES_Y))
            if abs(np.arctan2(across[1], across[0])) < _LARGEST_ROLL and error < min(best_error, 0.12):
                best, best_error = np.stack([first, second]), error
    return best


def _load_cascade(name: str) -> cv2.CascadeClassifier:
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    path = Path(folder or ".") / name
    if folder is None or not path.is_file() or not hasattr(cv2, "CascadeClassifier"):
        raise DeviceError(
            f"OpenCV {cv2.__version__} has no cascade {name}; expected an OpenCV 4.x with its data files",
            hint="pip install 'opencv-python-headless>=4.10,<5'",
        )
    return cv2.CascadeClassifier(str(path))
