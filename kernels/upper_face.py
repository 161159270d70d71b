"""A change of the upper face, known coarsely, applied to a frame at the frame's own resolution.

The network that moves brows and eyes sees 128 x 128 pixels. Its picture in place of the source's would be
blurred; what it changed, enlarged and added to the source, leaves the source's detail, and leaves the source
as it is, to the byte, where nothing changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import cv2
import numpy as np

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import as_box, box_size, cut
from dubstream.kernels.checks import F32, U8, check_picture
from dubstream.kernels.face_mask import FaceMaskShape, face_mask
from dubstream.kernels.workspace import Workspace, thread_workspace

SEEN = 128  # pixels, side of what the network sees in float32

UPPER_FACE = FaceMaskShape(top=0.02, top_feather=0.08, bottom=0.44, bottom_feather=0.12)
"""Full down to 0.44 of the box's height and nothing from 0.56 on: where the synthesised face takes over."""


def change_upper_face(
    frame: U8,
    change: F32,
    face_box: Sequence[SupportsIndex],
    strength: float,
    *,
    shape: FaceMaskShape = UPPER_FACE,
    workspace: Workspace | None = None,
) -> None:
    """Add a change of the face's pixels to the upper half of its box, in place.

    Args:
        frame: uint8 BGR (H, W, 3), any strides; written inside the box.
        change: float32 (h, w, 3), levels of BGR, for the whole box; enlarged bilinearly.
        face_box: x1, y1, x2, y2 in frame pixels, inside the frame.
        strength: factor of the change.
        shape: where it shows, feathered towards every side.
        workspace: scratch memory; the thread's own by default.

    Raises:
        InternalError: a wrong shape, a box outside the frame, or a change that is not finite.
    """
    height, width = check_picture(frame, "frame")
    box = as_box(face_box, "face box")
    if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
        raise InternalError(f"face box {box} leaves a frame of {width}x{height}")
    if change.ndim != 3 or change.shape[2] != 3 or change.dtype != np.float32:
        raise InternalError(f"change is {change.dtype} {change.shape}, expected float32 h x w x 3")
    if not np.isfinite(change).all():
        raise InternalError("the change of the upper face is NaN or infinity")
    space = workspace or thread_workspace()
    columns, rows = box_size(box)
    mask = face_mask(box, box, shape, out=space.array("upper_mask", (rows, columns), np.float32))
    mask *= np.float32(strength)
    sized = space.array("upper_change", (rows, columns, 3), np.float32)
    cv2.resize(change, (columns, rows), dst=sized, interpolation=cv2.INTER_LINEAR)
    sized *= mask[..., None]
    part = frame[cut(box, (0, 0, 0, 0))]
    sized += part
    np.clip(np.rint(sized, out=sized), 0, 255, out=sized)
    np.copyto(part, sized, casting="unsafe")
