"""Which of several faces to dub: the value of `--face`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dubstream.engines.errors import UsageError


@dataclass(frozen=True, slots=True)
class FaceSelector:
    """One rule for choosing a face.

    Attributes:
        rule: "largest" (most picture area over the clip), "center" (nearest to the frame's centre over the
            clip), "index" (from left to right in the first frame that shows a face), "box" (best overlap),
            "picture" (looks like a reference, see `likeness`) or "person" (what a picture was found to be).
        index: for "index", from 0; for "person", the place in `identities.people`.
        box: for "box", x1, y1, x2, y2 in pixels.
        picture: for "picture", the reference's file.
    """

    rule: Literal["largest", "center", "index", "box", "picture", "person"] = "largest"
    index: int = 0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    picture: Path | None = None


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""What a reference picture's name ends in, in any case."""


def parse_face_selector(text: str) -> FaceSelector:
    """Read `largest`, `center`, an index from 0, `x,y,w,h` in pixels, or a picture's path; nothing is opened.

    Raises:
        UsageError: anything else.
    """
    word = text.strip().lower()
    if word.endswith(PICTURE_SUFFIXES):
        return FaceSelector("picture", picture=Path(text.strip()))
    if word == "largest":
        return FaceSelector("largest")
    if word == "center":
        return FaceSelector("center")
    if word.isascii() and word.isdigit() and len(word) <= 4:
        return FaceSelector("index", index=int(word))
    box = _parse_box(word)
    if box is None:
        raise UsageError(
            f"face is '{text}'; expected largest, center, an index such as 0, x,y,w,h in pixels, "
            "or a picture of the person",
            hint="for example --face largest, --face 120,80,200,240 or --face person.png",
        )
    return FaceSelector("box", box=box)


def _parse_box(word: str) -> tuple[float, float, float, float] | None:
    try:
        x, y, width, height = (float(part) for part in word.split(","))
    except ValueError:
        return None
    usable = all(math.isfinite(value) and abs(value) < 1e6 for value in (x, y, width, height))
    return (x, y, x + width, y + height) if usable and width > 0 and height > 0 else None
