"""Two portraits that cross each other, one of which then leaves: who is where is known to the pixel."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

WIDTH, HEIGHT = 480, 270
FRAMES = 44
LEAVES = 33
"""The first frame in which the second person hurries out on the left."""

_HEAD = (160, 30, 290, 215)  # x1 y1 x2 y2 in the portrait


def places(frame: int) -> list[tuple[float, float] | None]:
    """Centres x y of the two heads in a frame; None for one that is out of it."""
    share = frame / (FRAMES - 1)
    first = (95 + 280 * share, 138 + 4 * np.sin(frame / 5))
    second = (390 - 290 * share - 55 * max(frame - LEAVES, 0), 132 + 4 * np.cos(frame / 7))
    return [first, second if second[0] > -70 else None]


@cache
def crossing_frames(front: int) -> tuple[np.ndarray, ...]:
    """The clip, uint8 BGR (HEIGHT, WIDTH, 3), not to be written to; person `front`, 0 or 1, passes before."""
    return tuple(_drawn(places(frame), front) for frame in range(FRAMES))


@cache
def head(person: int) -> tuple[np.ndarray, np.ndarray]:
    """A head, float32 BGR, and its soft outline, float32 0 to 1.

    The second is the first one's portrait mirrored, its colours swapped and lit from one side: as like
    as two people may be who are to be told apart.
    """
    from skimage import data

    x1, y1, x2, y2 = _HEAD
    cut = data.astronaut()[y1:y2, x1:x2, ::-1].astype(np.float32)
    if person == 1:
        cut = cut[:, ::-1, ::-1] * np.linspace(1.0, 0.45, x2 - x1, dtype=np.float32)[None, :, None]
    y, x = np.mgrid[-1 : 1 : (y2 - y1) * 1j, -1 : 1 : (x2 - x1) * 1j]
    return np.ascontiguousarray(cut), np.clip((1 - np.hypot(x, y)) / 0.12, 0, 1).astype(np.float32)


def _drawn(centres: list[tuple[float, float] | None], front: int) -> np.ndarray:
    canvas = _background().copy()
    for person in (1 - front, front):
        centre = centres[person]
        if centre is not None:
            cut, outline = head(person)
            move = np.array([[1, 0, centre[0] - cut.shape[1] / 2], [0, 1, centre[1] - cut.shape[0] / 2]])
            share = cv2.warpAffine(outline, move, (WIDTH, HEIGHT))[..., None]
            canvas = canvas * (1 - share) + cv2.warpAffine(cut, move, (WIDTH, HEIGHT)) * share
    return np.rint(canvas).astype(np.uint8)


@cache
def _background() -> np.ndarray:
    from skimage import data

    room = cv2.resize(np.ascontiguousarray(data.coffee()[..., ::-1]), (WIDTH, HEIGHT))
    return cv2.GaussianBlur(room, (0, 0), 3).astype(np.float32)
