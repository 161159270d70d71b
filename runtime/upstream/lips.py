"""What L-Net and E-Net take, and their face's way into the frame (stages 5.4, 7.1 to 7.3)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import Box, as_box, box_size
from dubstream.kernels.checks import F32, U8, check_array, check_picture
from dubstream.kernels.face_inputs import FACE, STEP, VISIBLE
from dubstream.kernels.planes import BGR_SIGNED, BGR_UNIT
from dubstream.runtime.upstream.pixels import picture_of, planes_of

_EDITED = 128  # pixels, side of a face as GANimation sees it
_STEP = FACE // _EDITED


def face_at(frame: U8, face_box: Sequence[int]) -> U8:
    """A frame's box at 384 x 384, not antialiased: uint8 BGR (384, 384, 3).

    Args:
        frame: uint8 BGR (H, W, 3).
        face_box: x1, y1, x2, y2 inside the frame.
    """
    x1, y1, x2, y2 = _inside(frame, face_box)
    part = frame[y1:y2, x1:x2]
    return np.asarray(cv2.resize(part, (FACE, FACE), interpolation=cv2.INTER_LINEAR), np.uint8)


def lip_input(frame: U8, reference: U8, face_box: Sequence[int]) -> F32:
    """Both faces as L-Net takes them (stage 5.4).

    Args:
        frame: uint8 BGR (H, W, 3), the source.
        reference: the same with the stabilised face, from `reference_frame`.
        face_box: x1, y1, x2, y2 inside the frame.

    Returns:
        float32 BGR (6, 384, 384) in [0, 1]: the face with its lower half black, then the reference.
    """
    masked = face_at(frame, face_box)
    masked[VISIBLE:] = 0
    both = np.concatenate([masked, face_at(reference, face_box)], axis=2)
    return np.ascontiguousarray((both / 255.0).astype(np.float32).transpose(2, 0, 1))


def reduced_faces(faces: F32) -> F32:
    """Both faces at the size of L-Net (stage 7.1): a quarter, bilinear without antialias.

    Every value is the mean of the middle four of sixteen, halved in the order of PyTorch's own interpolation.

    Args:
        faces: float32 (6, 384, 384), from `lip_input`.

    Returns:
        float32 (6, 96, 96).
    """
    check_array(faces, "faces", (6, FACE, FACE), np.float32)
    half = np.float32(0.5)
    above, below = (faces[:, row::STEP, 1::STEP] + faces[:, row::STEP, 2::STEP] for row in (1, 2))
    return np.asarray(half * (half * above + half * below), np.float32)


def upper_face_input(face: U8) -> F32:
    """GANimation's picture of an unmasked face (stage 7.2).

    Reduced to a third without antialias: each pixel is one of the source's, the middle one of nine.

    Args:
        face: uint8 BGR (384, 384, 3).

    Returns:
        float32 BGR (3, 128, 128) in [-1, 1].
    """
    check_picture(face, "face", (FACE, FACE))
    return planes_of(face[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP], BGR_SIGNED)


def upper_face_planes(fused: F32) -> F32:
    """GANimation's result at the size of the face (stage 7.2).

    Args:
        fused: float32 BGR (3, 128, 128) in [-1, 1].

    Returns:
        float32 BGR (3, 384, 384) in [0, 1].
    """
    check_array(fused, "edited face", (3, _EDITED, _EDITED), np.float32)
    unit = fused / np.float32(2) + np.float32(0.5)
    return np.stack([cv2.resize(plane, (FACE, FACE), interpolation=cv2.INTER_LINEAR) for plane in unit])


def with_upper_face(predicted: F32, lips: F32, upper: F32) -> F32:
    """The prediction below, another face above (stage 7.2, only with the original's `--without_rl1`).

    The mask is where the network's input is exactly 0, channel by channel: black pixels of the upper half
    take the prediction too.

    Args:
        predicted: float32 BGR (3, 384, 384) in [0, 1].
        lips: float32 (6, 384, 384), what the network was given.
        upper: float32 BGR (3, 384, 384) in [0, 1]: the source's face, or an edited one.

    Returns:
        float32 BGR (3, 384, 384).
    """
    black = (lips[:3] == 0).astype(np.float32)
    return np.asarray(predicted * black + upper * (1 - black), np.float32)


def paste_face(frame: U8, predicted: F32, face_box: Sequence[int]) -> U8:
    """The synthesised face in a copy of the frame (stage 7.3): truncated to uint8 *before* it is resized.

    Args:
        frame: uint8 BGR (H, W, 3).
        predicted: float32 BGR (3, 384, 384), clamped here to [0, 1].
        face_box: x1, y1, x2, y2 inside the frame.

    Returns:
        uint8 BGR (H, W, 3), own memory.

    Raises:
        InternalError: a wrong shape or dtype, a box that leaves the frame, or values that are no numbers.
    """
    box = _inside(frame, face_box)
    x1, y1, x2, y2 = box
    check_array(predicted, "predicted face", (3, FACE, FACE), np.float32)
    face = picture_of(predicted, BGR_UNIT, truncate=True)
    pasted = frame.copy()
    pasted[y1:y2, x1:x2] = cv2.resize(face, box_size(box), interpolation=cv2.INTER_LINEAR)
    return pasted


def _inside(frame: U8, face_box: Sequence[int]) -> Box:
    height, width = check_picture(frame, "frame")
    box = as_box(face_box, "face box")
    if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
        raise InternalError(f"face box {box}, expected one inside a frame of {width}x{height}")
    return box
