"""The mouth through GFPGAN, its mask, and the first of two blends (stages 7.4 and 7.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from dubstream.kernels.boxes import as_box, box_size
from dubstream.kernels.checks import F32, U8, check_picture
from dubstream.kernels.face_align import BORDER, inverse
from dubstream.kernels.upstream_blend import laplacian_blend_uint8
from dubstream.runtime.upstream.enhancement import Parser, Restorer, class_mask
from dubstream.runtime.upstream.five_points import F64, Faces, centre_face, gfpgan_fit
from dubstream.runtime.upstream.pixels import SQUASHED, parser_planes, picture_of, planes_of, squash, unsquash

MOUTH_CLASSES = (10, 11, 12)
"""ParseNet's classes of the mouth, the upper and the lower lip."""

LEVELS = 10
"""Pictures in the pyramid of the first blend; the coarsest is a single pixel."""

_EDGE_SHARE = 20  # of the pasted face's side: its soft edge is a twentieth


def restore_centre_face(frame: U8, faces: Faces, restore: Restorer) -> U8:
    """The face nearest to the frame's centre, restored and pasted back (stage 7.4).

    Args:
        frame: uint8 BGR (H, W, 3), with the synthesised face.
        faces: found in it at its own size with the rule `RETINAFACE_STRICT_RULE`.
        restore: GFPGAN.

    Returns:
        uint8 BGR (H, W, 3); a copy of `frame` where there is no face.
    """
    height, width = check_picture(frame, "frame")
    chosen = centre_face(faces, width, height)
    if chosen is None:
        return frame.copy()
    to_face = gfpgan_fit(faces.points[chosen])
    face = cv2.warpAffine(
        frame, to_face, SQUASHED, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER
    )
    restored = picture_of(restore(planes_of(np.asarray(face, np.uint8))), truncate=False)
    return paste_restored(frame, restored, inverse(to_face))


def paste_restored(frame: U8, restored: U8, to_frame: F64) -> U8:
    """A restored face in its frame, its edge a twentieth of its side soft (stage 7.4), truncated.

    Args:
        frame: uint8 BGR (H, W, 3).
        restored: uint8 BGR (512, 512, 3).
        to_frame: float64 (2, 3), from pixels of the face to those of the frame.

    Returns:
        uint8 BGR (H, W, 3).
    """
    height, width = check_picture(frame, "frame")
    check_picture(restored, "restored", SQUASHED)
    size = (width, height)
    there = cv2.warpAffine(restored, to_frame, size, flags=cv2.INTER_LINEAR)
    ones = np.ones(SQUASHED, np.float32)
    covered = _eroded(np.asarray(cv2.warpAffine(ones, to_frame, size, flags=cv2.INTER_LINEAR), np.float32), 2)
    edge = int(math.sqrt(float(covered.sum()))) // _EDGE_SHARE
    blur = 2 * edge + 1
    soft = cv2.GaussianBlur(_eroded(covered, 2 * edge), (blur, blur), 0)[..., None]
    mixed = soft * (covered[..., None] * there) + (1 - soft) * frame
    return np.asarray(mixed, np.float32).astype(np.uint8)


def mouth_mask(restored: U8, face_box: Sequence[int], parse: Parser) -> U8:
    """Where the mouth is (stage 7.5): uint8 (H, W) of 0 and 1.

    The mask is divided by 255 into whole numbers, so that its bilinear rim, all below 1, is lost.

    Args:
        restored: uint8 BGR (H, W, 3).
        face_box: x1, y1, x2, y2 inside the frame; it is parsed as it is, not aligned.
        parse: ParseNet.
    """
    height, width = check_picture(restored, "restored")
    box = as_box(face_box, "face box")
    x1, y1, x2, y2 = box
    found = class_mask(parse(parser_planes(restored[y1:y2, x1:x2])), MOUTH_CLASSES)
    levels = cv2.resize(found.astype(np.uint8) * 255, box_size(box), interpolation=cv2.INTER_LINEAR)
    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = levels // 255
    return mask


def blend_mouth(restored: U8, frame: U8, mask: U8) -> U8:
    """The restored mouth over the frame: a pyramid of the whole frame at 512 x 512 (stage 7.5).

    Args:
        restored, frame: uint8 BGR (H, W, 3).
        mask: uint8 (H, W) of 0 and 1, 1 takes `restored`.

    Returns:
        uint8 BGR (H, W, 3); all of it has been through 512 x 512.
    """
    height, width = check_picture(frame, "frame")
    check_picture(restored, "restored", (height, width))
    small = cv2.resize(mask.astype(np.float32), SQUASHED, interpolation=cv2.INTER_LINEAR)
    blended = laplacian_blend_uint8(squash(restored), squash(frame), np.asarray(small, np.float32), LEVELS)
    return unsquash(blended, width, height)


def _eroded(mask: F32, side: int) -> F32:
    # For a side of 0 OpenCV takes a 3 x 3 kernel, and so did the original for faces below 20 pixels.
    return np.asarray(cv2.erode(mask, np.ones((side, side), np.uint8)), np.float32)
