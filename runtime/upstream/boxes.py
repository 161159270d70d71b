"""Whole clips: which source frame an output frame shows, and the lip network's boxes (stages 4 and 5.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError, NoFaceError
from dubstream.kernels.detection import S3FD_RULE, faces_among
from dubstream.runtime.faces.geometry import Box, Pads, padded_box
from dubstream.runtime.faces.smoothing import smooth_boxes_upstream

I64 = npt.NDArray[np.int64]


def shown_frames(frames: int, windows: int, *, static: bool = False) -> I64:
    """Source frames of a dub's output frames (stage 4): as many as mel windows, jumping back to frame 0.

    Args:
        frames: of the source, 1 or more. Those beyond the windows' number are dropped before anything else,
            so that boxes must be smoothed over `min(frames, windows)` of them.
        windows: mel windows of the speech, `window_starts(..., rule="upstream")`.
        static: show the first frame throughout.

    Returns:
        int64 (windows,).

    Raises:
        InternalError: no frames.
    """
    if frames < 1:
        raise InternalError(f"a source of {frames} frames, expected 1 or more")
    order = np.arange(windows, dtype=np.int64)
    return order * 0 if static else order % frames


def best_face(
    boxes: npt.NDArray[np.floating], scores: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64] | None:
    """The face with the highest score, neither the largest nor a tracked one; float64 (4,) or None.

    Args:
        boxes: (A, 4), x1 y1 x2 y2 in pixels, one a prior of S3FD.
        scores: (A,).
    """
    kept = faces_among(boxes, scores, S3FD_RULE)
    return boxes[kept[0]].astype(np.float64) if len(kept) else None


def no_face(frame: int) -> NoFaceError:
    """What is raised where a frame lacks a face; the original ends its run there."""
    return NoFaceError(
        f"frame {frame} shows no face; the original's way expects one in every frame",
        hint="use the native mode, which passes such frames through",
    )


def face_boxes(
    found: Sequence[npt.ArrayLike | None],
    width: int,
    height: int,
    pads: Pads | None = None,
    *,
    smooth: bool = True,
) -> list[Box]:
    """The lip network's boxes of a clip.

    Truncated to whole pixels, padded, clipped, then the forward mean of five in place and in whole numbers.

    Args:
        found: for each frame the best face's x1 y1 x2 y2, or None.
        width, height: the frames' size in pixels.
        pads: pixels whatever the face's size; default 20 below the chin.
        smooth: False is the original's `--nosmooth`.

    Raises:
        NoFaceError: a frame without a face, or with less than 16 pixels of one.
    """
    boxes = []
    for index, face in enumerate(found):
        if face is None:
            raise no_face(index)
        boxes.append(padded_box(face, width, height, pads, scale_pads=False))
    if not boxes or not smooth:
        return boxes
    return [Box(*row) for row in smooth_boxes_upstream(np.array(boxes)).tolist()]
