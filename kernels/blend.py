"""Put a synthesised face into its frame, at the frame's own resolution. Reference of `blend.cu`.

    enhanced 3 x 384 x 384 ── resized to the face box ── minus the source ── D, zero around the box
    face box ── soft mask of the lower face ── bands of D under it ── + source, rounded once ── window

Everything happens in a window around the box. Its margin is as wide as the coarsest band can reach, so the
change has faded to exactly nothing at the window's edge: outside the window, and wherever the mask's pyramid
is zero inside it, the frame keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import SupportsIndex

import cv2
import numpy as np

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import Box, as_box, box_size, cut, grow, intersect
from dubstream.kernels.checks import F32, U8, check_array, check_picture
from dubstream.kernels.face_mask import FaceMaskShape, face_mask
from dubstream.kernels.multiband import blend_bands, pyramid_reach
from dubstream.kernels.planes import check_finite
from dubstream.kernels.workspace import Workspace, thread_workspace


@dataclass(frozen=True)
class BlendSettings:
    """How a face is blended.

    Attributes:
        mask: where the face is replaced.
        coarsest: scale of the coarsest band as a fraction of the box's shorter side. Coarser bands hide a
            difference in brightness better and let it reach further; 1/24 is 8 pixels for a 300 pixel face.
    """

    mask: FaceMaskShape = field(default_factory=FaceMaskShape)
    coarsest: float = 1 / 24

    def levels(self, face_box: Box) -> int:
        """Number of bands for this box: 1 for the smallest faces, one more per doubling."""
        scale = int(min(box_size(face_box)) * self.coarsest)
        return max(scale.bit_length(), 1)


DEFAULT_SETTINGS = BlendSettings()


def blend_window(face_box: Box, width: int, height: int, margin: int) -> Box:
    """The box with a margin, cut to a frame of width x height.

    Raises:
        InternalError: nothing of the box lies in the frame.
    """
    window = intersect(grow(face_box, margin), (0, 0, width, height))
    if window is None or intersect(face_box, window) is None:
        raise InternalError(f"face box {face_box} lies outside a frame of {width}x{height}")
    return window


def blend_face(
    frame: U8,
    enhanced: F32,
    face_box: Sequence[SupportsIndex],
    *,
    out: U8 | None = None,
    settings: BlendSettings = DEFAULT_SETTINGS,
    workspace: Workspace | None = None,
) -> Box:
    """Blend a synthesised face into a frame.

    Args:
        frame: uint8 BGR (H, W, 3), any strides; changed in place unless `out` is given.
        enhanced: float32 (3, h, w), the face box as BGR planes; clamped to [0, 1]. Enlarged by cubic
            interpolation, reduced by area averages.
        face_box: x1, y1, x2, y2 in frame pixels; may leave the frame in part.
        out: uint8 like `frame`, to hold the result while `frame` stays as it is.
        settings: mask and bands.
        workspace: scratch memory; the thread's own by default.

    Returns:
        The window: every pixel outside it equals the source exactly.

    Raises:
        InternalError: a wrong shape or dtype, a face outside the frame, or values that are not finite.
    """
    height, width = check_picture(frame, "frame")
    box = as_box(face_box, "face box")
    levels = settings.levels(box)
    window = blend_window(box, width, height, pyramid_reach(levels))
    space = workspace or thread_workspace()
    source = frame[cut(window, (0, 0, 0, 0))]
    difference = face_difference(source, enhanced, box, window, workspace=space)
    mask = space.array("blend_mask", source.shape[:2], np.float32)
    face_mask(box, window, settings.mask, out=mask)
    blend_bands(difference, mask, levels, workspace=space)
    add_to_frame(frame, difference, window, out)
    return window


def add_to_frame(frame: U8, difference: F32, window: Box, out: U8 | None) -> None:
    """Write frame + difference in the window as the nearest level, halves to even, clamped.

    Args:
        frame: uint8 BGR (H, W, 3); changed in place where there is no `out`.
        difference: float32 (h, w, 3), in levels; overwritten.
        window: of the frame, h x w pixels.
        out: uint8 like `frame`, for the whole frame; None for `frame` itself.

    Raises:
        InternalError: `out` has a wrong shape or dtype.
    """
    if out is None:
        out = frame
    else:
        check_picture(out, "out", frame.shape[:2])
        np.copyto(out, frame)
    inside = cut(window, (0, 0, 0, 0))
    np.add(difference, frame[inside], out=difference)
    np.rint(difference, out=difference)
    np.clip(difference, 0, 255, out=difference)
    np.copyto(out[inside], difference, casting="unsafe")


def face_difference(
    source: U8, enhanced: F32, box: Box, window: Box, *, workspace: Workspace | None = None
) -> F32:
    """What a synthesised face would change, before any mask.

    Args:
        source: uint8 BGR (H, W, 3), the frame inside `window`, any strides.
        enhanced: float32 (3, h, w), the face box as BGR planes; clamped to [0, 1].
        box: face box in frame pixels.
        window: in frame pixels.
        workspace: scratch memory, which holds the result; the thread's own by default.

    Returns:
        float32 (H, W, 3), face minus source in levels inside the box, 0 in the rest of the window.

    Raises:
        InternalError: a wrong shape or dtype, or values that are not finite.
    """
    space = workspace or thread_workspace()
    face = _at_box_size(enhanced, box, space)
    difference = space.array("blend_difference", source.shape, np.float32)
    difference[...] = 0
    shared = intersect(box, window)
    if shared is not None:
        inside = cut(shared, window)
        np.subtract(face[cut(shared, box)], source[inside], out=difference[inside])
    return difference


def _at_box_size(enhanced: F32, box: Box, space: Workspace) -> F32:
    """The face as a float picture 0..255 of the box's size."""
    if enhanced.ndim != 3:
        raise InternalError(f"enhanced face has shape {enhanced.shape}, expected (3, height, width)")
    check_array(enhanced, "enhanced face", (3, *enhanced.shape[1:]), np.float32)
    width, height = box_size(box)
    picture = space.array("enhanced", (*enhanced.shape[1:], 3), np.float32)
    cv2.merge(list(enhanced), dst=picture)
    check_finite(picture)
    np.clip(picture, 0, 1, out=picture)
    np.multiply(picture, np.float32(255), out=picture)
    shrinks = width <= enhanced.shape[2] and height <= enhanced.shape[1]
    sized = space.array("enhanced_sized", (height, width, 3), np.float32)
    cv2.resize(
        picture, (width, height), dst=sized, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return np.clip(sized, 0, 255, out=sized)  # cubic interpolation overshoots at edges
