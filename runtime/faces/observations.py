"""The table of faces seen in a clip: small, plain arrays between observing frames and choosing a face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import InternalError

CARRIED, MISSED, MEASURED = 0, 1, 2  # how a row came about: flow alone; looked for and not found; found
LOOK = 8  # side of the tiny picture kept to recognise a face after a gap
VALUES = 14  # box x1, y1, x2, y2, then x and y of five points


@dataclass(frozen=True)
class Observations:
    """Rows of seen faces, and the frames that were looked at. Plain arrays, fit for npz.

    Attributes:
        frames: int64 (n,), absolute indices of all frames observed, ascending, faces or not.
        frame: int64 (m,), the frame of each row.
        tracklet: int64 (m,), rows of one uninterrupted sighting share a number.
        kind: uint8 (m,), CARRIED, MISSED or MEASURED.
        carried: float32 (m, 14), box and five points by optical flow alone, full-frame pixels.
        measured: float32 (m, 14), the same as the detector and landmark estimator saw it; NaN
            unless MEASURED.
        look: uint8 (m, 8, 8, 3), the face at a glance, BGR; zeros unless MEASURED.
    """

    frames: NDArray[np.int64]
    frame: NDArray[np.int64]
    tracklet: NDArray[np.int64]
    kind: NDArray[np.uint8]
    carried: NDArray[np.float32]
    measured: NDArray[np.float32]
    look: NDArray[np.uint8]

    def __post_init__(self) -> None:
        rows = len(self.frame)
        expected = {
            "tracklet": (rows,),
            "kind": (rows,),
            "carried": (rows, VALUES),
            "measured": (rows, VALUES),
            "look": (rows, LOOK, LOOK, 3),
        }
        wrong = {
            name: getattr(self, name).shape
            for name in expected
            if getattr(self, name).shape != expected[name]
        }
        if wrong or self.frames.ndim != 1:
            raise InternalError(
                f"face observations with {rows} rows have shapes {wrong}; expected {expected}"
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for `np.savez`."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Observations:
        """Inverse of `arrays`; dtypes are restored, shapes checked.

        Raises:
            InternalError: arrays missing or misshapen.
        """
        missing = [item.name for item in fields(cls) if item.name not in arrays]
        if missing:
            raise InternalError(
                f"face observations lack {missing}; remove the prepared folder to make them again"
            )
        return cls(**{name: np.asarray(arrays[name], dtype=dtype) for name, dtype in _DTYPES.items()})

    @classmethod
    def join(cls, chunks: Sequence[Observations]) -> Observations:
        """One table from the chunks of a clip, in order; tracklets are renumbered."""
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _DTYPES}
        offset = 0
        for chunk in chunks:
            for name, array in chunk.arrays().items():
                parts[name].append(array + offset if name == "tracklet" else array)
            offset += int(chunk.tracklet.max()) + 1 if chunk.tracklet.size else 0
        return cls.from_arrays({name: np.concatenate([_empty(name), *parts[name]]) for name in _DTYPES})


_DTYPES: dict[str, Any] = {
    "frames": np.int64,
    "frame": np.int64,
    "tracklet": np.int64,
    "kind": np.uint8,
    "carried": np.float32,
    "measured": np.float32,
    "look": np.uint8,
}


def _empty(name: str) -> NDArray[Any]:
    shapes = {"carried": (0, VALUES), "measured": (0, VALUES), "look": (0, LOOK, LOOK, 3)}
    return np.zeros(shapes.get(name, (0,)), dtype=_DTYPES[name])


def overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    total = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / total if total > 0 else 0.0
