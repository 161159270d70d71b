"""How a face moved from one frame to the next, by optical flow on its corners."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MOST_CORNERS = 80
_FEWEST_CORNERS = 8
_LEAST_KEPT = 0.4  # of the corners must come back to where they started
_ROUND_TRIP = 1.0  # pixels, forward and backward
_LARGEST_RESIDUAL = 1.5  # pixels, median distance from the fitted motion
_SCALE_STEP = 1.25  # a face grows by less between two frames
_LEAST_LIKENESS = 0.6  # correlation of the face before and after
_PATCH = 24  # pixels, for the likeness


def face_motion(
    before: NDArray[np.uint8], after: NDArray[np.uint8], box: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The similarity that carries a face from one grey picture to the next.

    Corners of the upper three quarters only: the mouth moves on its own.

    Args:
        before, after: uint8 (H, W).
        box: x1, y1, x2, y2 of the face in `before`, float64 (4,).

    Returns:
        float64 (2, 3), or None where the face was lost: a cut, an occlusion, or nothing to hold on to.
    """
    pairs = _tracked_corners(before, after, box)
    if pairs is None:
        return None
    motion = fit_similarity(*pairs)
    if motion is None:
        return None
    residual = np.hypot(*(pairs[0] @ motion[:, :2].T + motion[:, 2] - pairs[1]).T)
    scale = float(np.hypot(motion[0, 0], motion[1, 0]))
    if np.median(residual) > _LARGEST_RESIDUAL or not 1 / _SCALE_STEP < scale < _SCALE_STEP:
        return None
    return motion if _likeness(before, box, after, moved_box(motion, box)) > _LEAST_LIKENESS else None


def moved_points(motion: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) after a similarity (2, 3)."""
    return np.asarray(points @ motion[:, :2].T + motion[:, 2])


def moved_box(motion: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """An upright box (4,) after a similarity: its centre moves, its size scales, it does not turn."""
    centre = moved_points(motion, (box[None, :2] + box[None, 2:]) / 2)[0]
    half = (box[2:] - box[:2]) / 2 * np.hypot(motion[0, 0], motion[1, 0])
    return np.concatenate([centre - half, centre + half])


def fit_similarity(
    source: NDArray[np.float64], target: NDArray[np.float64], rounds: int = 5
) -> NDArray[np.float64] | None:
    """Scale, rotation and shift from points (n, 2) to points (n, 2), outliers weighted down.

    Deterministic: least squares reweighted by Tukey's function of the residual over its median.

    Returns:
        float64 (2, 3), or None for coinciding points.
    """
    weights = np.ones(len(source))
    motion = None
    for _ in range(rounds):
        total = weights.sum()
        middle, aim = weights @ source / total, weights @ target / total
        x, y = (source - middle).T
        u, v = (target - aim).T
        spread = weights @ (x * x + y * y)
        if spread < 1e-9:
            return None
        a, b = weights @ (x * u + y * v) / spread, weights @ (x * v - y * u) / spread
        linear = np.array([[a, -b], [b, a]])
        motion = np.concatenate([linear, (aim - linear @ middle)[:, None]], axis=1)
        residual = np.hypot(*(moved_points(motion, source) - target).T)
        limit = 4.0 * max(float(np.median(residual)), 0.05)
        weights = np.maximum(1.0 - (residual / limit) ** 2, 0.0) ** 2
    return motion


def _tracked_corners(
    before: NDArray[np.uint8], after: NDArray[np.uint8], box: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Corners of the face and where they went, those alone that return when tracked backwards."""
    import cv2

    width, height = box[2] - box[0], box[3] - box[1]
    left, top = max(int(box[0] + 0.1 * width), 0), max(int(box[1]), 0)
    right, bottom = int(box[2] - 0.1 * width), int(box[1] + 0.75 * height)
    patch = before[top:bottom, left:right] if right > left and bottom > top else before[:0]
    if min(patch.shape) < 8:
        return None
    corners = cv2.goodFeaturesToTrack(patch, _MOST_CORNERS, 0.01, max(2.0, width / 20))
    if corners is None or len(corners) < _FEWEST_CORNERS:
        return None
    start = corners.astype(np.float32) + np.array([left, top], dtype=np.float32)
    window = {"winSize": (15, 15), "maxLevel": 3}
    end, forward, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **window)  # type: ignore[call-overload]
    back, backward, _ = cv2.calcOpticalFlowPyrLK(after, before, end, None, **window)  # type: ignore[call-overload]
    distance = np.hypot(*(back - start).reshape(-1, 2).T)
    good = (forward.ravel() == 1) & (backward.ravel() == 1) & (distance < _ROUND_TRIP)
    if good.sum() < max(_FEWEST_CORNERS, _LEAST_KEPT * len(good)):
        return None
    return start.reshape(-1, 2)[good].astype(np.float64), end.reshape(-1, 2)[good].astype(np.float64)


def _likeness(
    before: NDArray[np.uint8], box: NDArray[np.float64], after: NDArray[np.uint8], moved: NDArray[np.float64]
) -> float:
    """Correlation of two grey patches, -1 to 1; -1 where one lies outside its picture."""
    patches = [_small_patch(before, box), _small_patch(after, moved)]
    first, second = (patch - patch.mean() if patch.size else patch for patch in patches)
    if not first.size or not second.size:
        return -1.0
    norm = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / norm if norm > 0 else -1.0


def _small_patch(gray: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.float64]:
    import cv2

    # At the rim both patches must be cut alike, so the box is sampled with repeated edge pixels.
    size = np.maximum(box[2:] - box[:2], 1.0)
    centre = (box[:2] + box[2:]) / 2
    if not (0 <= centre[0] < gray.shape[1] and 0 <= centre[1] < gray.shape[0]):
        return np.empty((0, 0))
    scale = _PATCH / size
    matrix = np.array([[scale[0], 0, -box[0] * scale[0]], [0, scale[1], -box[1] * scale[1]]])
    small = cv2.warpAffine(
        gray, matrix, (_PATCH, _PATCH), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(small, dtype=np.float64)
