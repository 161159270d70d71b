"""Write a picture into a box of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import cv2
import numpy as np

from dubstream.kernels.boxes import as_box, box_size, cut, intersect
from dubstream.kernels.checks import U8, check_picture
from dubstream.kernels.workspace import Workspace, thread_workspace


def paste(
    frame: U8, picture: U8, box: Sequence[SupportsIndex], *, workspace: Workspace | None = None
) -> None:
    """Resize a picture to a box (bilinear, OpenCV's rule) and write it there.

    Args:
        frame: uint8 BGR (H, W, 3), any strides; the part of the box inside it is overwritten.
        picture: uint8 BGR (h, w, 3).
        box: x1, y1, x2, y2 in frame pixels; may leave the frame.
        workspace: scratch memory; the thread's own by default.

    Raises:
        InternalError: a wrong shape or dtype, or an empty box.
    """
    height, width = check_picture(frame, "frame")
    check_picture(picture, "picture")
    target = as_box(box)
    shared = intersect(target, (0, 0, width, height))
    if shared is None:
        return
    box_width, box_height = box_size(target)
    sized = (workspace or thread_workspace()).array("pasted", (box_height, box_width, 3), np.uint8)
    cv2.resize(picture, (box_width, box_height), dst=sized, interpolation=cv2.INTER_LINEAR)
    frame[cut(shared, (0, 0, 0, 0))] = sized[cut(shared, target)]
