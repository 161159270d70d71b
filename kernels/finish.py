"""The finish of a dubbed frame: parsed mask, restored mouth, matched colour, in a native-resolution window.

Reference of `face_align.cu` and `finish.cu`.

    align_dubbed   frame + face under the box's mask ── five points ── aligned face ─▶ parser, restorer
    finish_face    face - source ── + restored mouth ── x gains at the seam ── bands under mask ── + source

Everything is float32 between the frame's bytes and the result's; one rounding. As in
`dubstream.kernels.blend`, pixels outside the window keep their bytes, background inside it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, SupportsIndex

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.kernels.blend import BlendSettings, add_to_frame, blend_window, face_difference
from dubstream.kernels.boxes import Box, as_box, cut
from dubstream.kernels.checks import F32, U8, check_picture
from dubstream.kernels.colour_match import apply_gains, seam_gains
from dubstream.kernels.face_align import F64, Change, align_face, inverse
from dubstream.kernels.face_mask import FaceMaskShape, face_mask
from dubstream.kernels.multiband import blend_bands, pyramid_reach
from dubstream.kernels.parse_mask import FaceMasks, mask_in_window
from dubstream.kernels.restore_paste import add_restored
from dubstream.kernels.workspace import Workspace, thread_workspace

PARSED_SHAPE = FaceMaskShape(side=0.0, side_feather=0.05, bottom=0.0, bottom_feather=0.04)
"""The box's part of a parsed mask: narrow ramps at the sides, which the outline seldom reaches.

The upper edge is the box's own: eyes and forehead were shown to the network as they are, so the source's
pixels are the sharper ones, and they stay.
"""


@dataclass(frozen=True)
class FinishSettings:
    """How a frame is finished.

    Attributes:
        box: mask and bands without a parse; also what parser and restorer are shown.
        parsed: mask and bands that a parsed outline is laid over; None: the box's mask alone, and no match of
            colours, as it has no outline to match them at.
    """

    box: BlendSettings = field(default_factory=BlendSettings)
    parsed: BlendSettings | None = field(default_factory=lambda: BlendSettings(PARSED_SHAPE))

    @property
    def final(self) -> BlendSettings:
        """Mask and bands of the result."""
        return self.parsed or self.box


class Restored(NamedTuple):
    """A restorer's output and input, as `dubstream.kernels.restore_paste.add_restored` takes them."""

    restored: npt.NDArray[Any]
    aligned: npt.NDArray[Any]


DEFAULT_FINISH = FinishSettings()


def align_dubbed(
    frame: U8,
    enhanced: F32,
    face_box: Sequence[SupportsIndex],
    to_aligned: F64,
    *,
    out: npt.NDArray[Any],
    settings: FinishSettings = DEFAULT_FINISH,
    workspace: Workspace | None = None,
) -> None:
    """The aligned face of a frame with its synthesised mouth, for parser and restorer.

    Args:
        frame: uint8 BGR (H, W, 3), any strides.
        enhanced: float32 (3, h, w), the face box as BGR planes; clamped to [0, 1].
        face_box: x1, y1, x2, y2 in frame pixels; may leave the frame in part.
        to_aligned: float64 (2, 3), from pixels of the frame to those of the aligned face.
        out: float32 RGB (3, 512, 512), written with -1..1; or uint8 BGR (512, 512, 3).
        settings: mask under which the face is put into the frame.
        workspace: scratch memory; the thread's own by default.

    Raises:
        InternalError: a wrong shape or dtype, a face outside the frame, or values that are not finite.
    """
    height, width = check_picture(frame, "frame")
    box = as_box(face_box, "face box")
    window = blend_window(box, width, height, 1)
    space = workspace or thread_workspace()
    source = frame[cut(window, (0, 0, 0, 0))]
    change = face_difference(source, enhanced, box, window, workspace=space)
    mask = face_mask(
        box, window, settings.box.mask, out=space.array("blend_mask", source.shape[:2], np.float32)
    )
    np.multiply(change, _threefold(mask, space), out=change)
    align_face(frame, inverse(to_aligned), out=out, change=Change(change, window), workspace=space)


def finish_face(
    frame: U8,
    enhanced: F32,
    face_box: Sequence[SupportsIndex],
    to_aligned: F64,
    masks: FaceMasks,
    mouth: Restored | None = None,
    *,
    out: U8 | None = None,
    settings: FinishSettings = DEFAULT_FINISH,
    workspace: Workspace | None = None,
) -> Box:
    """Put a synthesised face into its frame, finished.

    Args:
        frame: uint8 BGR (H, W, 3), any strides; changed in place unless `out` is given.
        enhanced: float32 (3, h, w), the face box as BGR planes; clamped to [0, 1].
        face_box: x1, y1, x2, y2 in frame pixels; may leave the frame in part.
        to_aligned: float64 (2, 3), from pixels of the frame to those of the aligned face.
        masks: of the parsed aligned face.
        mouth: what a restorer made of the aligned face; None for no restoration.
        out: uint8 like `frame`, to hold the result while `frame` stays as it is.
        settings: masks and bands.
        workspace: scratch memory; the thread's own by default.

    Returns:
        The window: every pixel outside it equals the source exactly.

    Raises:
        InternalError: a wrong shape or dtype, a face outside the frame, or values that are not finite.
    """
    height, width = check_picture(frame, "frame")
    box = as_box(face_box, "face box")
    final = settings.final
    levels = final.levels(box)
    window = blend_window(box, width, height, pyramid_reach(levels))
    space = workspace or thread_workspace()
    source = frame[cut(window, (0, 0, 0, 0))]
    difference = face_difference(source, enhanced, box, window, workspace=space)
    mask = space.array("blend_mask", source.shape[:2], np.float32)
    parsed = space.array("parsed_mask", source.shape[:2], np.float32)
    if mouth is not None:
        mask_in_window(masks.mouth, to_aligned, window, out=parsed)
        add_restored(difference, *mouth, parsed, to_aligned, window, workspace=space)
    face_mask(box, window, final.mask, out=mask)
    if settings.parsed is not None:
        np.multiply(mask, mask_in_window(masks.face, to_aligned, window, out=parsed), out=mask)
        apply_gains(source, difference, seam_gains(source, difference, mask, workspace=space))
    blend_bands(difference, mask, levels, workspace=space)
    add_to_frame(frame, difference, window, out)
    return window


def _threefold(mask: F32, space: Workspace) -> F32:
    target = space.array("mask_threefold", (*mask.shape, 3), np.float32)
    return np.asarray(cv2.merge([mask] * 3, dst=target))
