"""Real inputs for the range audit and the comparison of half-precision exports.

`real_inputs.npz` beside this file is made by `dubstream.benchmarks.real_inputs`, where it says from what.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FILE = Path(__file__).with_name("real_inputs.npz")
_PICTURES = ("crop", "aligned", "face", "reference")


@cache
def _stored() -> dict[str, Array]:
    with np.load(_FILE, allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    return stored | {name: _decoded(stored[name]) for name in _PICTURES}


def _decoded(files: Array) -> Array:
    return np.stack([np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)) for file in files])


def real_inputs(network: str) -> dict[str, Array]:
    """Two items of every input of the network's half-precision spec; KeyError for another network.

    Pictures are uint8 BGR (2, side, side, 3), everything else float32 or float16 as the spec says.
    """
    stored = _stored()
    inputs = {
        "recon": {"image": stored["aligned"]},
        "dnet": {"image": stored["crop"], "coefficients": stored["coefficients"]},
        "lnet": {name: stored[name] for name in ("mel", "face", "reference")},
        # A face as it is has more contrast than one that a seeded L-Net draws.
        "enet": {"lips": _lips(stored["face"]), "reference": stored["reference"]},
    }
    return inputs[network]


def _lips(faces: Array) -> Array:
    """float16 planes (2, 3, 96, 96) of the whole face: means of 4x4 squares, over 255."""
    small = [cv2.resize(face, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for face in faces]
    return (np.stack(small).transpose(0, 3, 1, 2) / 255).astype(np.float16)
