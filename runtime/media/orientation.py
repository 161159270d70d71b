"""Rotation and mirroring that a container asks for, applied to the pixels so that the tag can be dropped."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import MediaError


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes the displayed one: mirrored left-right first, then turned.

    Attributes:
        rotation: degrees clockwise, one of 0, 90, 180, 270.
        mirrored: whether the stored picture is mirrored left-right before it is turned.
    """

    rotation: int = 0
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.rotation not in (0, 90, 180, 270):
            raise MediaError(f"rotation of {self.rotation} degrees, expected 0, 90, 180 or 270")

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.rotation in (90, 270)

    def apply(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Displayed picture of a stored one: uint8 HxWxC in and out; the input itself if nothing changes."""
        if self == Orientation():
            return picture
        import cv2

        turn = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
        result: Any = cv2.flip(picture, 1) if self.mirrored else picture
        if self.rotation:
            result = cv2.rotate(result, turn[self.rotation])
        return np.ascontiguousarray(result, dtype=np.uint8)


def orientation_of(frame: Any) -> Orientation:
    """Orientation of a decoded PyAV frame; `MediaError` unless it is mirroring and quarter turns."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Orientation()
    return orientation_from_matrix(bytes(side_data))


def orientation_from_matrix(matrix: bytes) -> Orientation:
    """Orientation in a display matrix of FFmpeg: nine native-endian int32, its 2x2 part in 16.16 fixed point.

    A stored point (x, y) is shown at (a*x + c*y, b*x + d*y) with (a, b, _, c, d, ...) the matrix; y is down.
    """
    a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
    scale = max(abs(a), abs(b), abs(c), abs(d))
    unit = tuple(round(v / scale) if scale else 0 for v in (a, b, c, d))
    known = {
        (1, 0, 0, 1): Orientation(0),
        (0, 1, -1, 0): Orientation(90),
        (-1, 0, 0, -1): Orientation(180),
        (0, -1, 1, 0): Orientation(270),
        (-1, 0, 0, 1): Orientation(0, mirrored=True),
        (0, -1, -1, 0): Orientation(90, mirrored=True),
        (1, 0, 0, -1): Orientation(180, mirrored=True),
        (0, 1, 1, 0): Orientation(270, mirrored=True),
    }
    exact = scale and all(abs(v - u * scale) <= scale * 0.01 for v, u in zip((a, b, c, d), unit, strict=True))
    if not exact or unit not in known:
        raise MediaError(
            "the video asks to be shown turned by an angle that is no multiple of 90 degrees",
            hint="re-encode it upright first, for example with ffmpeg",
        )
    return known[unit]
