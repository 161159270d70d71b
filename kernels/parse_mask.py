"""Soft masks of a face and of its mouth, from what ParseNet says of the aligned face.

Reference of `parse_mask.cu`.

    probabilities 512 x 512 ── means of 4 x 4 ── blurred ── face: falls inwards ──┐
                                                        └─ mouth: falls outwards ─┴─ sampled in the frame

One parse serves both masks. The face's mask falls to 0 inside its outline, so that nothing behind the face
is ever replaced; the mouth's mask is 1 on the whole of the lips and falls to 0 on the skin around them. Both
are made at a quarter of the resolution: they are smoother than that, and cost a sixteenth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.kernels.boxes import Box, box_size
from dubstream.kernels.checks import F32, check_array, check_out
from dubstream.kernels.face_align import ALIGNED, F64, from_corner, sample
from dubstream.kernels.planes import check_finite

STEP = 4  # aligned pixels to a pixel of a mask
SIDE = ALIGNED // STEP
FEATHER = 8.0 / STEP
"""Deviation of the blur in pixels of a mask; 8 of the aligned face, a fifteenth of the eyes' distance."""

_EDGE = 5
"""Pixels of a mask along its border that stay 0: a face cut by the picture's edge must not end in a step."""


@dataclass(frozen=True)
class FaceMasks:
    """What one parse says.

    Attributes:
        face: float32 (128, 128) in [0, 1], brows, eyes, nose, skin and mouth; 0 from the outline outwards.
        mouth: float32 (128, 128) in [0, 1], 1 on mouth and lips.
    """

    face: F32
    mouth: F32

    @property
    def empty(self) -> bool:
        """Whether no face was seen at all: what is there now hides it."""
        return not (self.face > 0.5).any()


def face_masks(probabilities: npt.NDArray[Any]) -> FaceMasks:
    """The soft masks of a parse.

    Args:
        probabilities: of face (ParseNet's classes 1-7, 10-12) and mouth (10-12), for a face aligned
            by `dubstream.kernels.face_align`: float32 (2, 512, 512) in [0, 1], or uint8 (512, 512, 2) in
            levels of 1/255.

    Raises:
        InternalError: a wrong shape, or values that are not finite numbers.
    """
    if probabilities.dtype == np.uint8:
        check_array(probabilities, "masks", (ALIGNED, ALIGNED, 2), np.uint8)
        face, mouth = (_blurred(plane) / np.float32(255) for plane in cv2.split(probabilities))
    else:
        check_array(probabilities, "masks", (2, ALIGNED, ALIGNED), np.float32)
        face, mouth = (_blurred(plane) for plane in probabilities)
    # A straight outline is at one half after the blur: the face ends there, the mouth is full there.
    return FaceMasks(_smoothstep(2 * face - 1), _smoothstep(2 * mouth))


def mask_in_window(mask: F32, to_aligned: F64, window: Box, *, out: F32) -> F32:
    """A mask of the aligned face as a window of the frame sees it.

    Args:
        mask: float32 (128, 128).
        to_aligned: float64 (2, 3), from pixels of the frame to those of the aligned face.
        window: in frame pixels.
        out: float32 (window height, window width), C-contiguous; written, 0 outside the aligned face.

    Returns:
        `out`.

    Raises:
        InternalError: a wrong shape or dtype.
    """
    width, height = box_size(window)
    check_array(mask, "mask", (SIDE, SIDE), np.float32)
    check_out(out, "out", (height, width), np.float32)
    to_mask = from_corner(to_aligned, window[0], window[1])
    to_mask[:, 2] += 0.5
    to_mask /= STEP
    to_mask[:, 2] -= 0.5
    sample(mask, to_mask, width, height, out=out)
    return out


def _blurred(plane: npt.NDArray[Any]) -> F32:
    reduced = cv2.resize(plane, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small = np.asarray(reduced, np.float32)
    check_finite(small)
    small[:_EDGE] = small[-_EDGE:] = 0
    small[:, :_EDGE] = small[:, -_EDGE:] = 0
    return np.asarray(cv2.GaussianBlur(small, (0, 0), FEATHER, borderType=cv2.BORDER_REPLICATE), np.float32)


def _smoothstep(values: F32) -> F32:
    t = np.clip(values, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
