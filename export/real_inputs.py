"""Real inputs for the range audit and the comparison of half-precision exports.

`real_inputs.npz` beside this file is made by `dubstream.benchmarks.real_inputs`, where it says from what.
The auxiliary networks see the same faces, placed in a frame or enlarged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.face_specs import DETECTOR_SIZE

Array = npt.NDArray[Any]

_FILE = Path(__file__).with_name("real_inputs.npz")
_PICTURES = ("crop", "aligned", "face", "reference")

RESTORER_SIDE = 512
_FACE_SIDES = (320, 128)  # pixels of the face pictures in the detectors' frames: near and far
_ACTION_UNITS = {  # intensities by position in GANimation's input; the others are 0
    "a frown": {2: 0.9, 4: 0.3, 5: 0.7, 13: 0.4},  # AU 04, 06, 07, 23
    "raised brows": {0: 0.8, 1: 1.0, 3: 0.6, 15: 0.5},  # AU 01, 02, 05, 26
}
_UNITS = 17


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
    inputs: dict[str, Callable[[], dict[str, Array]]] = {
        "recon": lambda: {"image": stored["aligned"]},
        "dnet": lambda: {"image": stored["crop"], "coefficients": stored["coefficients"]},
        "lnet": lambda: {name: stored[name] for name in ("mel", "face", "reference")},
        # A face as it is has more contrast than one that a seeded L-Net draws.
        "enet": lambda: {"lips": _lips(stored["face"]), "reference": stored["reference"]},
        "s3fd": lambda: {"image": _frames(stored["face"])},
        "retinaface": lambda: {"image": _frames(stored["face"])},
        "fan4": lambda: {"image": stored["crop"]},
        "gfpgan": lambda: {"image": _enlarged(stored["reference"])},
        "gpen": lambda: {"image": _enlarged(stored["reference"])},
        "parsenet": lambda: {"image": _enlarged(stored["reference"])},
        "ganimation": lambda: {"image": stored["face"], "aus": _action_units()},
    }
    return inputs[network]()


def _lips(faces: Array) -> Array:
    """float16 planes (2, 3, 96, 96) of the whole face: means of 4x4 squares, over 255."""
    small = [cv2.resize(face, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for face in faces]
    return (np.stack(small).transpose(0, 3, 1, 2) / 255).astype(np.float16)


def _frames(faces: Array) -> Array:
    """The faces in the middle of the detectors' frames, mirrored around: uint8 (2, H, W, 3)."""
    height, width = DETECTOR_SIZE
    frames = []
    for face, side in zip(faces, _FACE_SIDES, strict=True):
        small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        above, left = (height - side) // 2, (width - side) // 2
        margins = (above, height - side - above, left, width - side - left)
        frames.append(cv2.copyMakeBorder(small, *margins, cv2.BORDER_REFLECT))
    return np.stack(frames)


def _enlarged(faces: Array) -> Array:
    size = (RESTORER_SIDE, RESTORER_SIDE)
    return np.stack([cv2.resize(face, size, interpolation=cv2.INTER_LINEAR) for face in faces])


def _action_units() -> Array:
    """float32 (2, 17)."""
    rows = np.zeros((len(_ACTION_UNITS), _UNITS), np.float32)
    for row, intensities in zip(rows, _ACTION_UNITS.values(), strict=True):
        row[list(intensities)] = list(intensities.values())
    return rows
