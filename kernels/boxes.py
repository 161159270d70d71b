"""Integer boxes in frame pixels: (x1, y1, x2, y2), ends exclusive."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

from dubstream.engines.errors import InternalError

Box = tuple[int, int, int, int]


def as_box(values: Sequence[SupportsIndex], what: str = "box") -> Box:
    """Four whole numbers as a box.

    Args:
        values: x1, y1, x2, y2; a tuple or a row of an integer array.
        what: the box's name in the error.

    Raises:
        InternalError: not four integers, or a box without a pixel.
    """
    try:
        x1, y1, x2, y2 = (operator.index(value) for value in values)
    except (TypeError, ValueError) as error:
        raise InternalError(f"{what} is {values!r}, expected four integers x1, y1, x2, y2") from error
    if x2 <= x1 or y2 <= y1:
        raise InternalError(f"{what} {(x1, y1, x2, y2)} holds no pixel, expected x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def box_size(box: Box) -> tuple[int, int]:
    """Width and height."""
    return box[2] - box[0], box[3] - box[1]


def intersect(first: Box, second: Box) -> Box | None:
    """The box both share, or None."""
    x1, y1 = max(first[0], second[0]), max(first[1], second[1])
    x2, y2 = min(first[2], second[2]), min(first[3], second[3])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def grow(box: Box, margin: int) -> Box:
    """The box with `margin` pixels more on every side."""
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def cut(box: Box, origin: Box) -> tuple[slice, slice]:
    """Row and column slices of `box` inside an array whose first pixel is the corner of `origin`."""
    x, y = origin[0], origin[1]
    return slice(box[1] - y, box[3] - y), slice(box[0] - x, box[2] - x)
