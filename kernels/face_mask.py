"""The soft mask that says where the synthesised face replaces the source."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import Box, box_size
from dubstream.kernels.checks import F32, check_out


@dataclass(frozen=True)
class FaceMaskShape:
    """Where the mask rises and falls, in fractions of the face box.

    The network sees the upper half of the face as it is, so nothing there needs replacing: the mask
    starts around the tip of the nose and covers cheeks, mouth and jaw. Each ramp is a smoothstep.

        box top      0 ..................  0
        top       0.44 ..................  0      height fractions
                  0.56 ####  full  ######  1      (top + top_feather)
        box bottom     ####  full  ######         falls to 0 `bottom` above the box's end
                    0 / 1          1 \\ 0          `side` is 0, then `side_feather` rises, at both sides

    Attributes:
        top: height down to which the mask is 0.
        top_feather: height of the ramp below it.
        side: width that stays 0 at the left and at the right.
        side_feather: width of the ramps there.
        bottom: height that stays 0 at the bottom; small, as boxes end just below the chin.
        bottom_feather: height of the ramp above it.
    """

    top: float = 0.44
    top_feather: float = 0.12
    side: float = 0.03
    side_feather: float = 0.12
    bottom: float = 0.01
    bottom_feather: float = 0.06

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise InternalError(f"mask shape {field.name} is {value}, expected a fraction in 0..1")
        down = self.top + self.top_feather + self.bottom + self.bottom_feather
        if down > 1 or 2 * (self.side + self.side_feather) > 1:
            raise InternalError(
                f"{self} leaves no room for the full mask, expected ramps that fit into the box"
            )


def face_mask(box: Box, window: Box, shape: FaceMaskShape, *, out: F32) -> F32:
    """The mask of a face box, seen through a window.

    Args:
        box: face box in frame pixels.
        window: the frame pixels wanted; the mask is 0 in its part outside the box.
        shape: the ramps.
        out: float32 (window height, window width), C-contiguous; written, values in [0, 1].

    Returns:
        `out`.

    Raises:
        InternalError: `out` of another shape or dtype.
    """
    width, height = box_size(window)
    check_out(out, "mask", (height, width), np.float32)
    down = _positions(window[1], window[3], box[1], box[3])
    across = _positions(window[0], window[2], box[0], box[2])
    rows = np.minimum(
        _ramp(down - shape.top, shape.top_feather), _ramp(1 - shape.bottom - down, shape.bottom_feather)
    )
    nearest_side = np.minimum(across, 1 - across)
    columns = _ramp(nearest_side - shape.side, shape.side_feather)
    return np.multiply(rows[:, None], columns[None, :], out=out)


def _positions(start: int, stop: int, low: int, high: int) -> npt.NDArray[np.float64]:
    """Pixel centres of start..stop as fractions of low..high."""
    return (np.arange(start, stop) + 0.5 - low) / (high - low)


def _ramp(distance: npt.NDArray[np.float64], width: float) -> F32:
    """Smoothstep from 0 at distance 0 to 1 at `width`; a step where the width is 0."""
    t = np.clip(distance / max(width, 1e-9), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
