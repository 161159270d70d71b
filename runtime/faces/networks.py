"""Faces by S3FD and landmarks by FAN-4: the protocols of `dubstream.runtime.faces.detector` over networks.

The detector sees the frame reduced to fit its one size (640x384 by default), so its cost does not grow with
the video; the landmark network sees the face at the video's own resolution. Both answer for one picture a
call, and take float planes or, in half precision, the pixels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import InternalError
from dubstream.engines.face_specs import BGR_MEANS
from dubstream.kernels.checks import check_picture
from dubstream.kernels.detection import (
    S3FD_RULE,
    FaceRule,
    FanCrop,
    faces_among,
    fan_crop,
    fan_picture,
    fine_points,
)
from dubstream.kernels.planes import RGB_UNIT, to_planes
from dubstream.runtime.faces.detector import Face

SMALLEST_SHARE = 0.05
"""Of the frame's longer side: the smallest face that is reported, as by the cascade."""

MOST_FACES = 8
"""Reported of one picture, the largest: each costs a call of FAN-4, and an untrained S3FD sees a hundred."""

_LARGEST_SHARE = 2.0  # of the frame's longer side; a larger box is no face
_POINTS = 68
_LEFT_EYE, _RIGHT_EYE, _NOSE = slice(36, 42), slice(42, 48), 30
_MOUTH = (48, 54)
_UNIT = FanCrop((0.5, 0.5), 1.0)  # points as shares of the crop


class Call(Protocol):
    """One network, called for one item; `dubstream.runtime.streaming.call.NetworkCall` is one."""

    def input(self, name: str) -> NDArray[Any]:
        """The item to fill, without a batch axis; the same memory every time."""

    def run(self) -> Mapping[str, NDArray[Any]]:
        """The outputs for what was filled in, without a batch axis; the next call may overwrite them."""


class NetworkDetector:
    """S3FD on a frame reduced to the network's picture; the rest of that picture has the mean colour.

    A frame smaller than the network's picture is not enlarged, as in the original. Not safe to share between
    threads.

    Args:
        call: of `s3fd_spec`, any size.
        rule: which of its boxes are faces.
        threads: OpenCV's, as for the cascade.
    """

    def __init__(self, call: Call, rule: FaceRule = S3FD_RULE, *, threads: int = 1) -> None:
        import cv2

        cv2.setNumThreads(threads)
        self._call = call
        self._rule = rule

    def detect(self, bgr: NDArray[np.uint8]) -> list[Face]:
        """As `FaceDetector.detect`; the score is the network's probability.

        The largest `MOST_FACES`, without boxes below `SMALLEST_SHARE` or with their middle outside the frame.

        Raises:
            InternalError: another kind of picture, or the network failed.
        """
        height, width = check_picture(bgr, "picture")
        image = self._call.input("image")
        small, scale = _reduced(bgr, *(image.shape[:2] if image.dtype == np.uint8 else image.shape[1:]))
        _show_on_mean(small, image)
        found = self._call.run()
        boxes, scores = found["boxes"], found["scores"]
        kept = faces_among(boxes, scores, self._rule)
        corners = boxes[kept].astype(np.float64) / np.tile(scale, 2)
        usable = np.flatnonzero(_are_faces(corners, width, height))
        areas = np.prod(corners[usable, 2:] - corners[usable, :2], axis=1)
        largest = np.sort(usable[np.argsort(-areas, kind="stable")[:MOST_FACES]])  # best first, as `kept` is
        return [Face(*map(float, (*corners[at], scores[kept[at]]))) for at in largest]


class NetworkLandmarks:
    """FAN-4 on the crop around a face box of S3FD. Not safe to share between threads.

    Args:
        call: of the spec ``fan4``.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def points(self, bgr: NDArray[np.uint8], face: Face) -> NDArray[np.float64]:
        """As `LandmarkEstimator.points`, from `all_points`."""
        return five_of(self.all_points(bgr, face))

    def all_points(self, bgr: NDArray[np.uint8], face: Face) -> NDArray[np.float64]:
        """The 68 landmarks between the pixels, float64 (68, 2), in pixels of the full picture.

        Peaks by `fine_points`: on synthetic Gaussians of 0.8 to 2 cells with noise up to a tenth of the peak
        it is off by less than the quarter-cell rule and than a parabola through the heights in every case
        (at one cell and 1 % noise by 0.017, 0.192 and 0.049 cells, n = 2000). They are taken back through
        the whole pixels that were cut, not through the crop that was aimed at: the original mixes the two,
        and a point on a steadily moving face then jitters by half a pixel instead of a tenth (n = 120).

        Raises:
            InternalError: another kind of picture, a box without extent, or the network failed.
        """
        crop = fan_crop(face.box.tolist())
        image, seen = self._call.input("image"), fan_picture(bgr, crop)
        if image.dtype == np.uint8:
            np.copyto(image, seen)
        else:
            to_planes(seen, RGB_UNIT, out=image)
        shares = fine_points(self._call.run()["heatmaps"], _UNIT)
        x1, y1, x2, y2 = crop.box
        return shares * (x2 - x1, y2 - y1) + (x1 - 0.5, y1 - 0.5)


def five_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Our five points of the 68: means of the eyes' outlines, tip of the nose, corners of the mouth.

    Args:
        points: float (68, 2) in the order of 300-W; "left" as seen in the picture.

    Returns:
        float64 (5, 2): left eye, right eye, nose, left and right mouth corner.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.shape != (_POINTS, 2):
        raise InternalError(f"landmarks have shape {array.shape}; expected ({_POINTS}, 2)")
    eyes = [array[eye].mean(axis=0) for eye in (_LEFT_EYE, _RIGHT_EYE)]
    return np.stack([*eyes, array[_NOSE], *(array[corner] for corner in _MOUTH)])


def _reduced(
    bgr: NDArray[np.uint8], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A frame reduced to fit, and the scales across and down, 1 or less."""
    import cv2

    scale = min(1.0, height / bgr.shape[0], width / bgr.shape[1])
    if scale == 1.0:
        return bgr, np.ones(2)
    size = (max(round(bgr.shape[1] * scale), 1), max(round(bgr.shape[0] * scale), 1))
    small = np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, np.array([size[0] / bgr.shape[1], size[1] / bgr.shape[0]])


def _show_on_mean(small: NDArray[np.uint8], image: NDArray[Any]) -> None:
    """Write a picture into the network's, top left; the rest is the mean colour, as its layers pad."""
    rows, columns = small.shape[:2]
    if image.dtype == np.uint8:
        image[:] = np.array(BGR_MEANS, np.uint8)
        image[:rows, :columns] = small
        return
    image.fill(0.0)
    for channel, mean in enumerate(BGR_MEANS):
        np.subtract(small[..., channel], np.float32(mean), out=image[channel, :rows, :columns])


def _are_faces(corners: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Which boxes (n, 4) have a plausible size and their middle inside the frame."""
    sides = corners[:, 2:] - corners[:, :2]
    longer, shorter = sides.max(axis=1), sides.min(axis=1)
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    inside = ((middle >= 0) & (middle < (width, height))).all(axis=1)
    frame = max(width, height)
    sized = (longer >= SMALLEST_SHARE * frame) & (longer <= _LARGEST_SHARE * frame)
    return np.asarray(inside & sized & (shorter > 0))
