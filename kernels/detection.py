"""From the maps of face detectors and landmark networks to faces and points, in numpy.

What the exported graphs of S3FD and RetinaFace compute themselves (priors and decoding) is here as their
reference; what follows it (suppression, crops for FAN-4, peaks of its heat maps) has its only home here.
Boxes are x1 y1 x2 y2 in pixels and may leave the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.engines.face_specs import RETINAFACE_STRIDES, retinaface_maps, s3fd_maps
from dubstream.kernels.checks import F32, U8, check_picture

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

S3FD_STRIDES = (4, 8, 16, 32, 64, 128)
"""Pixels per cell of its six maps; a prior is a square four times as wide."""

RETINAFACE_SIDES = ((16, 32), (64, 128), (256, 512))
"""Pixels, the two square priors of a cell in each of its three maps."""

CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
FAN_SIDE = 256
"""Pixels of FAN-4's square input."""

_FACE_UNIT = 195.0  # pixels: width plus height of a face box whose scale is 1, when FAN-4 was trained
_CROP_UNIT = 200.0  # pixels: side of the crop around such a face
_RISE = 0.12  # of the box's height: how far the crop's centre is above the box's
_MOST_AROUND = 8  # times the picture's longer side; a larger crop is a detector's nonsense, not a face
_FLAT = 1e-3  # of a peak: what a neighbour counts at least when a Gaussian is fitted


@dataclass(frozen=True)
class FaceRule:
    """Which of a detector's boxes are faces.

    Attributes:
        score: a face's score is above it.
        overlap: of two boxes that overlap more (intersection over union), the better one stays.
        plus_one: widths, heights and overlaps count one pixel more, as for boxes with inclusive ends.
        most: at most so many faces, the best ones.
    """

    score: float
    overlap: float
    plus_one: bool
    most: int = 750


S3FD_RULE = FaceRule(0.5, 0.3, plus_one=True)
RETINAFACE_RULE = FaceRule(0.9, 0.4, plus_one=True)
"""The original's in front of GPEN and of the face mask."""
RETINAFACE_STRICT_RULE = FaceRule(0.97, 0.4, plus_one=False)
"""The original's in front of GFPGAN."""


def s3fd_priors(height: int, width: int) -> tuple[F64, F64]:
    """Priors of a picture: centres x y (A, 2) and sides (A, 1) in pixels, level by level, row by row.

    The last three maps are larger than their strides suggest; their priors are not shifted for it.
    """
    middles, sides = [], []
    for stride, (rows, columns) in zip(S3FD_STRIDES, s3fd_maps(height, width), strict=True):
        middles.append(_cells(rows, columns, stride))
        sides.append(np.full((rows * columns, 1), 4.0 * stride))
    return np.concatenate(middles), np.concatenate(sides)


def retinaface_priors(height: int, width: int) -> tuple[F64, F64]:
    """As `s3fd_priors`; two priors a cell, the smaller first."""
    middles, sides = [], []
    maps = retinaface_maps(height, width)
    for stride, pair, (rows, columns) in zip(RETINAFACE_STRIDES, RETINAFACE_SIDES, maps, strict=True):
        middles.append(np.repeat(_cells(rows, columns, stride), 2, axis=0))
        sides.append(np.tile(np.array(pair, float), rows * columns)[:, None])
    return np.concatenate(middles), np.concatenate(sides)


def decode_s3fd(maps: Sequence[F32], height: int, width: int) -> tuple[F64, F64]:
    """S3FD's raw maps of one picture to boxes (A, 4) and face probabilities (A,).

    Args:
        maps: class logits (2, h, w), background first, and regressions (4, h, w) by turns, finest first.
        height, width: of the picture.
    """
    logits = np.concatenate([level.reshape(2, -1) for level in maps[::2]], axis=1).astype(np.float64)
    changes = np.concatenate([level.reshape(4, -1) for level in maps[1::2]], axis=1).T
    boxes = decode_boxes(changes, *s3fd_priors(height, width))
    return boxes, 1 / (1 + np.exp(logits[0] - logits[1]))


def decode_boxes(changes: F32, middles: F64, sides: F64) -> F64:
    """Box regressions (A, 4) to corners (A, 4), given the priors' centres (A, 2) and sides (A, 1)."""
    wide = changes.astype(np.float64)
    centre = middles + CENTRE_VARIANCE * wide[:, :2] * sides
    half = sides * np.exp(SIZE_VARIANCE * wide[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def decode_points(shifts: F32, middles: F64, sides: F64) -> F64:
    """Point regressions (A, 10) to five points (A, 5, 2), given the priors' centres and sides."""
    return middles[:, None] + CENTRE_VARIANCE * shifts.astype(np.float64).reshape(-1, 5, 2) * sides[:, None]


def faces_among(boxes: npt.NDArray[np.floating], scores: npt.NDArray[np.floating], rule: FaceRule) -> I32:
    """Which boxes are faces: indices into `boxes`, best score first.

    The threshold comes before suppression, which is the same and far less work: a box can only be removed by
    a better one. Boxes that are not finite are none.

    Args:
        boxes: (A, 4) in pixels.
        scores: (A,).
        rule: what counts.
    """
    if boxes.shape != (len(scores), 4) or scores.ndim != 1:
        raise InternalError(f"boxes {boxes.shape} and scores {scores.shape}, expected (A, 4) and (A,)")
    likely = np.flatnonzero((scores > rule.score) & np.isfinite(boxes).all(axis=1))
    if not len(likely):
        return np.empty(0, np.int32)
    corners = boxes[likely].astype(np.float64)
    rectangles = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2] + rule.plus_one], axis=1)
    # OpenCV orders by score and, among equals, by index.
    kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores[likely].tolist(), rule.score, rule.overlap)
    return likely[np.asarray(kept, np.int64).ravel()[: rule.most]].astype(np.int32)


@dataclass(frozen=True)
class FanCrop:
    """The part of a picture FAN-4 sees for a face, and the way back.

    Attributes:
        centre: x and y of the crop's centre, pixels of the picture.
        side: pixels of the picture along its input's 256.
    """

    centre: tuple[float, float]
    side: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2, whole pixels, ends exclusive; may leave the picture and need not be quite square."""
        corners = self.back(np.array([[1.0, 1.0], [FAN_SIDE, FAN_SIDE]]), FAN_SIDE)
        x1, y1, x2, y2 = (int(value) for value in np.trunc(corners).ravel())
        return x1, y1, x2, y2

    def back(self, points: F64, resolution: int) -> F64:
        """Points (..., 2) of the crop, drawn at `resolution` pixels a side, in pixels of the picture."""
        corner = np.array(self.centre) - self.side / 2
        return np.asarray(points * (self.side / resolution) + corner)


def fan_crop(box: Sequence[float]) -> FanCrop:
    """The crop for a face box x1 y1 x2 y2 of S3FD.

    Raises:
        InternalError: a box without width or height.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    if not (x2 > x1 and y2 > y1):
        raise InternalError(f"face box {(x1, y1, x2, y2)}, expected x1 < x2 and y1 < y2")
    centre = (x1 + x2) / 2, (y1 + y2) / 2 - _RISE * (y2 - y1)
    return FanCrop(centre, _CROP_UNIT * (x2 - x1 + y2 - y1) / _FACE_UNIT)


def fan_picture(picture: U8, crop: FanCrop) -> U8:
    """FAN-4's input for a crop, uint8 (256, 256, 3) in the picture's colour order; black outside it.

    Raises:
        InternalError: the picture is no uint8 (H, W, 3), or the crop is empty or far larger.
    """
    height, width = check_picture(picture, "picture")
    x1, y1, x2, y2 = crop.box
    largest = _MOST_AROUND * max(height, width)
    if not (0 < x2 - x1 <= largest and 0 < y2 - y1 <= largest):
        raise InternalError(
            f"crop {crop.box} of a picture of {width}x{height}, expected 1 to {largest} pixels"
        )
    inside = picture[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    whole = np.zeros((y2 - y1, x2 - x1, 3), np.uint8)
    top, left = max(-y1, 0), max(-x1, 0)
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return np.asarray(cv2.resize(whole, (FAN_SIDE, FAN_SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)


def whole_points(heatmaps: F32, crop: FanCrop) -> I32:
    """Landmarks as the original has them: whole pixels of the picture, int32 (P, 2).

    The highest cell, a quarter of a cell towards the higher neighbour on each axis, truncated toward zero.

    Args:
        heatmaps: (P, S, S), S cells along the crop's side.
        crop: where the heat maps were made.
    """
    columns, rows, inner = _peaks(heatmaps)
    left, right, above, below = _neighbours(heatmaps, columns, rows)
    shift = 0.25 * np.stack([np.sign(right - left), np.sign(below - above)], axis=1) * inner[:, None]
    points = np.stack([columns, rows], axis=1) + shift + 0.5
    return np.trunc(crop.back(points, heatmaps.shape[1])).astype(np.int32)


def fine_points(heatmaps: F32, crop: FanCrop) -> F64:
    """Landmarks between the pixels, float64 (P, 2) in the coordinates of `whole_points`.

    The peaks are Gaussians (the network was trained on such), so that a parabola through the logarithms of
    the highest cell and its neighbours has its top at the landmark; at most half a cell from that cell.

    Args:
        heatmaps, crop: as for `whole_points`.
    """
    columns, rows, inner = _peaks(heatmaps)
    peak = heatmaps[np.arange(len(heatmaps)), rows, columns].astype(np.float64)
    floor = np.maximum(peak * _FLAT, np.finfo(np.float32).tiny)
    top, *around = (
        np.log(np.maximum(value, floor)) for value in (peak, *_neighbours(heatmaps, columns, rows))
    )
    left, right, above, below = around
    shift = np.stack([_vertex(left, top, right), _vertex(above, top, below)], axis=1) * inner[:, None]
    return crop.back(np.stack([columns, rows], axis=1) + shift + 0.5, heatmaps.shape[1])


def _cells(rows: int, columns: int, stride: int) -> F64:
    """Centres x y of a map's cells, row by row, (rows * columns, 2)."""
    y, x = np.mgrid[:rows, :columns]
    return (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * stride


def _peaks(heatmaps: F32) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Column and row of each map's first maximum, and whether it has neighbours on all sides."""
    if heatmaps.ndim != 3 or heatmaps.shape[1] != heatmaps.shape[2]:
        raise InternalError(f"heat maps {heatmaps.shape}, expected (points, cells, cells)")
    cells = heatmaps.shape[1]
    rows, columns = np.divmod(heatmaps.reshape(len(heatmaps), -1).argmax(axis=1), cells)
    inner = (rows > 0) & (rows < cells - 1) & (columns > 0) & (columns < cells - 1)
    return columns, rows, inner


def _neighbours(
    heatmaps: F32, columns: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]
) -> tuple[F64, F64, F64, F64]:
    """Values left, right, above and below of each map's cell; at an edge, the cell's own."""
    which, last = np.arange(len(heatmaps)), heatmaps.shape[1] - 1
    wide = heatmaps.astype(np.float64)
    return (
        wide[which, rows, np.maximum(columns - 1, 0)],
        wide[which, rows, np.minimum(columns + 1, last)],
        wide[which, np.maximum(rows - 1, 0), columns],
        wide[which, np.minimum(rows + 1, last), columns],
    )


def _vertex(before: F64, top: F64, after: F64) -> F64:
    """Where a parabola through three values in a row has its top, from the middle one, within half a step."""
    bend = before - 2 * top + after
    flat = bend >= 0  # a plateau: all three are equal, as the middle one is the highest
    return np.where(flat, 0.0, 0.5 * (before - after) / np.where(flat, 1.0, bend)).clip(-0.5, 0.5)
