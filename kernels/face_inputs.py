"""What the lip and the enhancement network see of a frame. Reference of `face_inputs.cu`.

    frame[face box] --384x384--> face  --rows 192.. black--> masked -+
                                                                      +-> 6 x 96 x 96  (faces_96)
    frame with reference_256 in its crop box                          |
      cut at face box --384x384--> reference -------------------------+-> 3 x 384 x 384 (reference_384)

Only the face box is ever copied. The 96 x 96 planes are the bilinear reduction of the 384 x 384 ones
without antialias: output pixel i lies at (i + 0.5) * 4 - 0.5 = 4i + 1.5, halfway between samples 4i + 1
and 4i + 2 on each axis, so it is the mean of those four, and the other twelve are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import Box, as_box, box_size, cut, intersect
from dubstream.kernels.checks import F32, U8, check_out, check_picture
from dubstream.kernels.paste import paste
from dubstream.kernels.planes import BGR_UNIT, to_planes
from dubstream.kernels.resample import crop, crop_resize
from dubstream.kernels.workspace import Workspace, thread_workspace

FACE = 384  # pixels, side of a face as the enhancement network sees it
LIPS = 96  # pixels, side of a face as the lip network sees it
REFERENCE = 256  # pixels, side of a stabilised reference
STEP = FACE // LIPS
VISIBLE = FACE // 2  # rows of the face that stay; the mouth below is black


def face_inputs(
    frame: U8,
    reference_256: U8,
    crop_box: Sequence[SupportsIndex],
    face_box: Sequence[SupportsIndex],
    *,
    faces_96: F32,
    reference_384: F32,
    workspace: Workspace | None = None,
) -> None:
    """Fill the network inputs of one frame (upstream behaviour of the lip synthesis batch).

    Args:
        frame: uint8 BGR (H, W, 3), any strides.
        reference_256: uint8 BGR (256, 256, 3), the stabilised picture of `crop_box`.
        crop_box: where `reference_256` belongs in the frame; the part beyond the frame is dropped.
        face_box: the face; may leave the frame in part, whose edge is then repeated.
        faces_96: float32 (6, 96, 96), C-contiguous; written: the face with its lower half black, then the
            reference; BGR planes in [0, 1].
        reference_384: float32 (3, 384, 384), C-contiguous; written: the reference, BGR planes in [0, 1].
        workspace: scratch memory; the thread's own by default.

    Raises:
        InternalError: a wrong shape or dtype, a box without a pixel, or a face outside the frame.
    """
    check_picture(frame, "frame")
    check_picture(reference_256, "reference_256", (REFERENCE, REFERENCE))
    check_out(faces_96, "faces_96", (6, LIPS, LIPS), np.float32)
    check_out(reference_384, "reference_384", (3, FACE, FACE), np.float32)
    space = workspace or thread_workspace()
    box = as_box(face_box, "face box")
    small = space.array("face_384", (FACE, FACE, 3), np.uint8)

    crop_resize(frame, box, small)
    _reduce(small[:VISIBLE], faces_96[:3, : LIPS // 2])
    faces_96[:3, LIPS // 2 :] = 0

    window = _pasted(frame, reference_256, as_box(crop_box, "crop box"), box, space)
    cv2.resize(window, (FACE, FACE), dst=small, interpolation=cv2.INTER_LINEAR)
    _reduce(small, faces_96[3:])
    to_planes(small, BGR_UNIT, out=reference_384)


def face_inputs_batch(
    frames: U8,
    references_256: U8,
    crop_boxes: npt.NDArray[np.integer],
    face_boxes: npt.NDArray[np.integer],
    *,
    faces_96: F32,
    references_384: F32,
    workspace: Workspace | None = None,
) -> None:
    """`face_inputs` over stacked frames.

    Args:
        frames: uint8 BGR (N, H, W, 3).
        references_256: uint8 BGR (N, 256, 256, 3).
        crop_boxes: integers (N, 4).
        face_boxes: integers (N, 4).
        faces_96: float32 (N, 6, 96, 96); written.
        references_384: float32 (N, 3, 384, 384); written.
        workspace: scratch memory; the thread's own by default.

    Raises:
        InternalError: stacks of different length, or what `face_inputs` refuses.
    """
    stacks = (frames, references_256, crop_boxes, face_boxes, faces_96, references_384)
    lengths = [len(stack) for stack in stacks]
    if len(set(lengths)) != 1:
        raise InternalError(f"stacks of {lengths} items, expected one length for all six")
    for frame, reference, crop_box, face_box, faces, out in zip(*stacks, strict=True):
        face_inputs(
            frame, reference, crop_box, face_box, faces_96=faces, reference_384=out, workspace=workspace
        )


def _pasted(frame: U8, reference: U8, crop_box: Box, face_box: Box, space: Workspace) -> U8:
    """The frame inside `face_box` with the reference written over its part of the frame."""
    inner = intersect(face_box, (0, 0, frame.shape[1], frame.shape[0]))
    if inner is None:
        raise InternalError(f"face box {face_box} lies outside a frame of {frame.shape[1]}x{frame.shape[0]}")
    width, height = box_size(inner)
    window = space.array("face_window", (height, width, 3), np.uint8)
    np.copyto(window, frame[cut(inner, (0, 0, 0, 0))])
    paste(window, reference, _seen_from(inner, crop_box), workspace=space)
    return crop(window, _seen_from(inner, face_box))


def _seen_from(origin: Box, box: Box) -> Box:
    """The box in pixels of the array whose first pixel is the corner of `origin`."""
    x, y = origin[0], origin[1]
    return box[0] - x, box[1] - y, box[2] - x, box[3] - y


def _reduce(picture: U8, out: F32) -> None:
    """Mean of the 2x2 centre of every 4x4 block, over 255, as planes: (4h, 4w, 3) to (3, h, w)."""
    rows = picture[1::STEP].astype(np.uint16)
    rows += picture[2::STEP]
    total = rows[:, 1::STEP] + rows[:, 2::STEP]
    np.divide(total.transpose(2, 0, 1), np.float32(4 * 255), out=out)
