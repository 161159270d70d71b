"""Which of several faces to dub: the value of `--face`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dubstream.engines.errors import UsageError


@dataclass(frozen=True, slots=True)
class FaceSelector:
    """One rule for choosing a face.

    Attributes:
        rule: "largest" (most picture area over the clip), "center" (nearest to the frame's centre over the
            clip), "index" (from left to right in the first frame that shows a face) or "box" (best overlap).
        index: for "index", from 0.
        box: for "box", x1, y1, x2, y2 in pixels.
    """

    rule: Literal["largest", "center", "index", "box"] = "largest"
    index: int = 0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


def parse_face_selector(text: str) -> FaceSelector:
    """Read `largest`, `center`, an index from 0, or `x,y,w,h` in pixels.

    Raises:
        UsageError: anything else.
    """
    word = text.strip().lower()
    if word == "largest":
        return FaceSelector("largest")
    if word == "center":
        return FaceSelector("center")
    if word.isascii() and word.isdigit() and len(word) <= 4:
        return FaceSelector("index", index=int(word))
    box = _parse_box(word)
    if box is None:
        raise UsageError(
            f"face is '{text}'; expected largest, center, an index such as 0, or x,y,w,h in pixels",
            hint="for example --face largest or --face 120,80,200,240",
        )
    return FaceSelector("box", box=box)


def _parse_box(word: str) -> tuple[float, float, float, float] | None:
    try:
        x, y, width, height = (float(part) for part in word.split(","))
    except ValueError:
        return None
    usable = all(math.isfinite(value) and abs(value) < 1e6 for value in (x, y, width, height))
    return (x, y, x + width, y + height) if usable and width > 0 and height > 0 else None
