"""Faces that came out black: the only trace that NaN leaves in a picture of bytes.

Float pictures are searched for NaN where the host reads them. A half-precision artifact ends in uint8 inside
its graph, and on a GPU the blend reads float pictures itself; both turn NaN into black. D-Net and L-Net
normalise over whole pictures, so there NaN in one place is NaN everywhere, and one patch of the face tells.
NaN that is born late in E-Net and stays outside that patch is not found.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError

Picture = npt.NDArray[np.uint8]

ROWS, COLUMNS = (0.66, 0.88), (0.3, 0.7)
"""A part of the face box where the blend keeps nothing of the source, in fractions of the box."""

_STEP = 4  # every fourth pixel is enough, and takes microseconds
_DARK = 4.0
"""Mean level of the source below which black is no surprise."""


def check_dubbed(dubbed: Picture, source: Picture, box: tuple[int, int, int, int]) -> None:
    """Raise `InternalError` when the face put into a frame is black and the source's is not.

    Args:
        dubbed, source: uint8 BGR (H, W, 3).
        box: the face box in frame pixels, (x1, y1, x2, y2).
    """
    x1, y1, x2, y2 = box
    rows = _part(y1, y2, ROWS)
    columns = _part(x1, x2, COLUMNS)
    _check("enhanced", dubbed[rows, columns], source[rows, columns])


def check_edited(edited: Picture, crop: Picture) -> None:
    """Raise `InternalError` when D-Net's picture is black and the one it was given is not."""
    _check("edited", edited[::_STEP, ::_STEP], crop[::_STEP, ::_STEP])


def _part(start: int, stop: int, fractions: tuple[float, float]) -> slice:
    first, last = (start + round(fraction * (stop - start)) for fraction in fractions)
    return slice(first, max(last, first + 1), _STEP)


def _check(name: str, found: Picture, given: Picture) -> None:
    if not found.any() and given.mean() > _DARK:
        raise InternalError(
            f"the picture '{name}' is black where its source is not: NaN or infinity in a network looks so"
        )
