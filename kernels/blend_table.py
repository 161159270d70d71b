"""What the blend kernels read about each face, and how much room they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.kernels.blend import DEFAULT_SETTINGS, BlendSettings, blend_window
from dubstream.kernels.boxes import as_box, box_size, intersect
from dubstream.kernels.multiband import pyramid_reach

_PIXEL_BYTES = 16  # three differences and the mask, float32


@dataclass(frozen=True)
class BlendTable:
    """Faces to blend in one launch.

    Attributes:
        items: int32 (count, 10): frame, face box, window, levels.
        largest: width, height no window exceeds.
        levels: the most bands of any face.
        item_pixels: pixels of arena per face: a window of the largest size and all its reductions.
    """

    items: npt.NDArray[np.int32]
    largest: tuple[int, int]
    levels: int
    item_pixels: int

    @property
    def count(self) -> int:
        """Faces."""
        return len(self.items)

    @property
    def arena_bytes(self) -> int:
        """Device memory the launches work in."""
        return self.count * self.item_pixels * _PIXEL_BYTES

    def threads(self, level: int) -> tuple[int, int, int]:
        """Width and height of the largest window at a level, and the number of faces."""
        width, height = self.largest
        return -(-width >> level), -(-height >> level), self.count


def blend_table(
    frame_of: Sequence[SupportsIndex],
    face_boxes: Sequence[Sequence[SupportsIndex]] | npt.NDArray[np.integer],
    width: int,
    height: int,
    settings: BlendSettings = DEFAULT_SETTINGS,
) -> BlendTable:
    """The table for faces in frames of one size.

    Args:
        frame_of: which frame of the stack each face is in.
        face_boxes: x1, y1, x2, y2 of each face, in frame pixels.
        width: of the frames.
        height: of the frames.
        settings: mask and bands.

    Raises:
        InternalError: no face, lists of different length, a face outside its frame, or two faces of one
            frame whose windows overlap.
    """
    if len(frame_of) != len(face_boxes) or len(frame_of) == 0:
        raise InternalError(
            f"{len(face_boxes)} boxes for {len(frame_of)} faces, expected one each, at least one"
        )
    rows = []
    for frame, values in zip(frame_of, face_boxes, strict=True):
        box = as_box(values, "face box")
        levels = settings.levels(box)
        rows.append((int(frame), *box, *blend_window(box, width, height, pyramid_reach(levels)), levels))
    _check_apart(rows)
    windows = [box_size(row[5:9]) for row in rows]
    largest = max(w for w, _ in windows), max(h for _, h in windows)
    most = max(row[9] for row in rows)
    return BlendTable(np.array(rows, np.int32), largest, most, _pyramid_pixels(largest, most))


def _pyramid_pixels(size: tuple[int, int], levels: int) -> int:
    return sum(-(-size[0] >> level) * -(-size[1] >> level) for level in range(levels))


def _check_apart(rows: Sequence[tuple[int, ...]]) -> None:
    """Faces of a launch are blended side by side, so none may read what another writes."""
    for index, row in enumerate(rows):
        for other in rows[:index]:
            if row[0] == other[0] and intersect(as_box(row[5:9]), as_box(other[5:9])) is not None:
                raise InternalError(
                    f"windows {row[5:9]}, {other[5:9]} of frame {row[0]} overlap, expected a launch for each"
                )
