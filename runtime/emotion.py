"""Emotions of the upper face: what `--emotion` names, as action units for GANimation (paper, section 3.1).

The lower face belongs to the speech; brows and eyes are edited by a network that takes intensities of facial
action units (Ekman and Friesen 1978; Pumarola et al. 2018). The values are the original program's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import GANIMATION

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
"""Their numbers in the order of the network's input."""

ORIGINAL = "original"

_BROW_LOWERER, _UPPER_LID_RAISER = 4, 5
_INTENSITIES: dict[str, dict[int, float]] = {
    ORIGINAL: {},
    "sad": {},  # all zero: a face without any of these movements
    "angry": {_BROW_LOWERER: 0.3},
    "surprise": {_UPPER_LID_RAISER: 0.2},
}


@dataclass(frozen=True)
class EmotionOptions:
    """The emotion of the upper face.

    Attributes:
        name: ``original`` leaves it as it is; ``sad``, ``angry``, ``surprise``.
        strength: 0 to 1, how much of the network's edit is applied; 1 is the original program's.

    Raises:
        UsageError: an unknown name, or a strength out of range.
    """

    name: str = ORIGINAL
    strength: float = 1.0

    NAMES: ClassVar[tuple[str, ...]] = tuple(_INTENSITIES)

    def __post_init__(self) -> None:
        if self.name not in _INTENSITIES:
            raise UsageError(f"--emotion received '{self.name}', expected one of {', '.join(self.NAMES)}")
        if not 0 <= self.strength <= 1:  # also refuses NaN
            raise UsageError(f"--emotion {self.name}:{self.strength}, expected a strength from 0 to 1")

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks it needs; none where nothing is edited."""
        return () if self.name == ORIGINAL or self.strength == 0 else (GANIMATION.name,)

    @property
    def intensities(self) -> NDArray[np.float32]:
        """float32 (17,), 0 to 1, in the order of `ACTION_UNITS`."""
        wanted = _INTENSITIES[self.name]
        return np.array([wanted.get(unit, 0.0) for unit in ACTION_UNITS], dtype=np.float32)


def parse_emotion(text: str) -> EmotionOptions:
    """Read ``NAME`` or ``NAME:STRENGTH``.

    Raises:
        UsageError: anything else.
    """
    name, colon, share = text.partition(":")
    if not colon:
        return EmotionOptions(name)
    try:
        strength = float(share)
    except ValueError:
        strength = math.nan
    if math.isnan(strength):
        raise UsageError(
            f"--emotion received '{text}', expected a name, or a name and a strength from 0 to 1",
            hint="for example --emotion angry:0.5",
        )
    return EmotionOptions(name, strength)
