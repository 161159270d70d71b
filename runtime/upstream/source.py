"""Which part of every frame is stabilised (stage 3.2), without dlib."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dubstream.engines.errors import NoFaceError, UsageError
from dubstream.kernels.checks import U8
from dubstream.runtime.faces.geometry import Box
from dubstream.runtime.upstream.landmarks import source_box
from dubstream.runtime.upstream.networks import FaceLandmarks

SMALLEST = 16
"""Pixels along each side of a box."""


def searched(count: int) -> int:
    """How many of a clip's first frames are searched for a face: the first half, as in the original."""
    return max(count // 2, 1)


def found_source_box(frames: Iterable[tuple[int, U8]], landmarks: FaceLandmarks) -> Box:
    """The box of every frame, from the first of these frames that shows a face.

    The original takes that face and its 68 points from dlib. Here they are S3FD's and FAN-4's on the whole
    frame, in the network's own channel order: the same points of a face, but not the same numbers, so that
    the box differs by a few pixels from the original's.

    Args:
        frames: (index, uint8 BGR (H, W, 3)), the first `searched` ones.
        landmarks: S3FD for whole frames, and FAN-4.

    Raises:
        NoFaceError: none of them shows a face. The original stops there.
    """
    last = -1
    for index, frame in frames:
        points = landmarks(np.ascontiguousarray(frame[..., ::-1]))
        if points is not None:
            return source_box(points, frame.shape[1], frame.shape[0])
        last = index
    raise NoFaceError(
        f"frames 0 to {last}, the first half of the video, show no face; the original's way expects one",
        hint="--source-box x1,y1,x2,y2 says where it is",
    )


def given_source_box(box: Box, width: int, height: int) -> Box:
    """A box that was handed in; `UsageError` unless it is a sensible part of the frame."""
    inside = min(box) >= 0 and box.x2 <= width and box.y2 <= height
    if not inside or min(box.x2 - box.x1, box.y2 - box.y1) < SMALLEST:
        received = ",".join(map(str, box))
        raise UsageError(
            f"--source-box {received}, expected {SMALLEST} pixels or more a side inside {width}x{height}"
        )
    return box
