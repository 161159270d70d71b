"""The original's face enhancement, used twice (stage 6.4): on references with GPEN, on frames as a mask.

picture ── warp to 512 ── [restore] ── parse ── masks ──┐
                              └──────────── warp back ──┴── FaceLayer
FaceLayer over an original: rounded twice (blending off), or a pyramid at 512 x 512 inside a box (on)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.kernels.boxes import as_box
from dubstream.kernels.checks import F32, U8, check_array, check_picture
from dubstream.kernels.upstream_blend import laplacian_blend_uint8
from dubstream.runtime.upstream.five_points import F64, Faces, gpen_fits
from dubstream.runtime.upstream.pixels import SQUASHED, parser_planes, picture_of, planes_of, squash, unsquash

FACE_CLASSES = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12)
"""ParseNet's classes of a face: skin, nose, glasses, eyes, brows, mouth, lips; no ears, hair, hat, neck."""

LEVELS = 6
"""Pictures in the pyramid of the second blend; the coarsest is 16 x 16."""

Restorer = Callable[[F32], F32]
"""GPEN or GFPGAN: float32 RGB (3, 512, 512) in [-1, 1] to the same."""
Parser = Callable[[F32], U8]
"""ParseNet: float32 RGB (3, 512, 512) in [-1, 1] to the most probable class, uint8 (512, 512)."""

_LOWEST_SCORE = 0.9
_BORDER = 20  # pixels of the 512 x 512 face along its edges that are in no mask
_BLUR, _DEVIATION = (101, 101), 11.0
_SMALL = 100.0  # pixels: a detection whose shorter side is below has its restored face smoothed
_SMOOTHING = np.outer((1, 2, 1), (1, 2, 1)).astype(np.float32) / 16
_ABOVE_BOX_END = 5  # rows at the bottom of the box that the second blend leaves alone


@dataclass(frozen=True)
class FaceLayer:
    """The faces of a picture, on black, with their masks.

    Attributes:
        picture: uint8 BGR (H, W, 3).
        soft: float32 (H, W) in [0, 1], the larger of all faces' masks.
        sharp: float64 (H, W) in [0, 1], of the *last* face alone.
    """

    picture: U8
    soft: F32
    sharp: F64


def class_mask(classes: U8, wanted: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Where a parse says one of the wanted classes; bool (512, 512).

    Raises:
        InternalError: `classes` is not uint8 (512, 512).
    """
    check_array(classes, "classes", SQUASHED, np.uint8)
    return np.isin(classes, wanted)


def parse_masks(classes: U8) -> tuple[F64, F32]:
    """Sharp and soft mask of an aligned face.

    Args:
        classes: uint8 (512, 512).

    Returns:
        float64 (512, 512) of 0 and 1, nothing in the outer 20 pixels; and that twice blurred, float32.
    """
    sharp = class_mask(classes, FACE_CLASSES).astype(np.float64)
    for edge in (sharp[:_BORDER], sharp[-_BORDER:], sharp[:, :_BORDER], sharp[:, -_BORDER:]):
        edge[...] = 0
    once = cv2.GaussianBlur(sharp, _BLUR, _DEVIATION)
    return sharp, cv2.GaussianBlur(once, _BLUR, _DEVIATION).astype(np.float32)


def face_layer(picture: U8, faces: Faces, parse: Parser, restore: Restorer | None = None) -> FaceLayer | None:
    """Every face with a score from 0.9, through 512 x 512 and back.

    Args:
        picture: uint8 BGR (H, W, 3).
        faces: found in it by `detect_for_enhancement`.
        parse: ParseNet, called once a face, on the restored face if there is a restorer.
        restore: GPEN, or None.

    Returns:
        The layer; None without a face, where the original stops with an unbound variable.
    """
    height, width = check_picture(picture, "picture")
    whole = np.zeros_like(picture)
    largest = np.zeros((height, width), np.float32)
    last: F64 | None = None
    for box, score, points in zip(faces.boxes, faces.scores, faces.points, strict=True):
        if score < _LOWEST_SCORE:
            continue
        to_face, back = gpen_fits(points)
        face = _warp(picture, to_face, SQUASHED)
        if restore is not None:
            face = picture_of(restore(planes_of(face)), truncate=True)
        sharp, soft = parse_masks(parse(parser_planes(face)))
        if restore is not None and min(box[2] - box[0], box[3] - box[1]) < _SMALL:
            face = cv2.filter2D(face, -1, _SMOOTHING).astype(np.uint8)
        size = (width, height)
        soft, last = _warp(soft, back, size), _warp(sharp, back, size)
        above = soft > largest
        largest[above] = soft[above]
        whole[above] = _warp(face, back, size)[above]
    if last is None:
        return None
    return FaceLayer(whole, largest, cv2.GaussianBlur(last, (0, 0), 1.0).astype(np.float64))


def mix(layer: FaceLayer, original: U8) -> U8:
    """The layer over an original, blending off: two mixtures, each rounded, halves to even.

    Args:
        layer: of the original's size.
        original: uint8 BGR (H, W, 3).

    Returns:
        uint8 BGR (H, W, 3).
    """
    soft, sharp = layer.soft[..., None], layer.sharp[..., None]
    once = _rounded(original * (1 - soft) + layer.picture * soft)
    return _rounded(original * (1 - sharp) + once * sharp)


def blend_in_box(layer: FaceLayer, original: U8, face_box: Sequence[int]) -> U8:
    """The layer over an original, blending on: a pyramid of the whole frame at 512 x 512.

    Args:
        layer: of the original's size.
        original: uint8 BGR (H, W, 3).
        face_box: x1, y1, x2, y2; nothing outside it is taken, nor in its last five rows.

    Returns:
        uint8 BGR (H, W, 3); all of it has been through 512 x 512.
    """
    height, width = check_picture(original, "original")
    x1, y1, x2, y2 = as_box(face_box, "face box")
    mask = np.zeros((height, width), np.float32)
    inside = slice(y1, y2 - _ABOVE_BOX_END), slice(x1, x2)
    mask[inside] = layer.sharp[inside]
    small = np.asarray(cv2.resize(mask, SQUASHED, interpolation=cv2.INTER_LINEAR), np.float32)
    blended = laplacian_blend_uint8(squash(layer.picture), squash(original), small, LEVELS)
    return unsquash(blended, width, height)


def _warp(picture: npt.NDArray[Any], affine: F64, size: tuple[int, int]) -> npt.NDArray[Any]:
    # The original asks for area interpolation, for which OpenCV's affine warp takes the bilinear one.
    return np.asarray(cv2.warpAffine(picture, affine, size, flags=cv2.INTER_LINEAR))


def _rounded(levels: npt.NDArray[np.floating[Any]]) -> U8:
    # OpenCV's own, not numpy's: it rounds float64 in float32, which decides ties.
    return np.asarray(cv2.convertScaleAbs(levels), np.uint8)
