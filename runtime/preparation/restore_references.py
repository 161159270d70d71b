"""GPEN on the references: the stages behind D-Net that sharpen what it made, on the host.

    edited 256 ── align ── aligned 512 ──┬─ parsenet ── masks ───┬─ improve ── improved 256
                                         └─ gpen ────── restored ┘

The original program does so by default. Here it is asked for, as GPEN is for non-commercial use only; the
mask is a parse of D-Net's picture, and only GPEN's change is brought back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.engine import Engine
from dubstream.kernels.face_align import GPEN_POINTS, align_face, inverse, similarity
from dubstream.kernels.parse_mask import face_masks, mask_in_window
from dubstream.kernels.planes import RGB_SIGNED, from_planes
from dubstream.kernels.restore_paste import add_restored
from dubstream.runtime.faces.geometry import CANONICAL
from dubstream.runtime.platforms.stages import HostStage
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import EngineStage, Stage

IMPROVED = "improved"
"""The output buffer: uint8 BGR (256, 256, 3), D-Net's picture restored."""

TO_ALIGNED = "to_aligned"
"""The input buffer: float64 (2, 3), from pixels of D-Net's picture to those of the aligned face."""

_SIZE = (CANONICAL, CANONICAL, 3)
_WHOLE = (0, 0, CANONICAL, CANONICAL)


@dataclass(frozen=True)
class ReferenceRestorer:
    """ParseNet and GPEN, opened together with D-Net."""

    parser: Engine
    restorer: Engine

    def buffers(self) -> list[BufferSpec]:
        """Slot buffers beside D-Net's."""
        return [
            BufferSpec(TO_ALIGNED, (2, 3), "float64", "input"),
            BufferSpec("picture", _SIZE, "uint8", "scratch"),
            BufferSpec.of(self.parser.spec.input("image"), "scratch", "aligned"),
            BufferSpec.of(self.parser.spec.output("masks"), "scratch"),
            BufferSpec.of(self.restorer.spec.output("restored"), "scratch"),
            BufferSpec(IMPROVED, _SIZE, "uint8", "output"),
        ]

    def stages(self) -> list[Stage]:
        """What follows D-Net."""
        return [
            HostStage("align", _align),
            EngineStage(self.parser, {"image": "aligned", "masks": "masks"}),
            EngineStage(self.restorer, {"image": "aligned", "restored": "restored"}),
            HostStage("improve", _improve),
        ]


def reference_to_aligned(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The map for a face whose five points (5, 2) lie so in D-Net's picture."""
    return similarity(points, GPEN_POINTS)


def _align(slot: Slot, count: int) -> None:
    """Reads `edited` and `to_aligned`; writes `picture` and `aligned`."""
    arrays = slot.device
    for item in range(count):
        picture = _as_picture(arrays["edited"][item], arrays["picture"][item])
        align_face(picture, inverse(arrays[TO_ALIGNED][item]), out=arrays["aligned"][item])


def _improve(slot: Slot, count: int) -> None:
    """Reads `picture`, `aligned`, `masks`, `restored`; writes `improved`."""
    arrays = slot.device
    share = np.empty(_SIZE[:2], np.float32)
    for item in range(count):
        to_aligned = arrays[TO_ALIGNED][item]
        mask_in_window(face_masks(arrays["masks"][item]).face, to_aligned, _WHOLE, out=share)
        levels = arrays["picture"][item].astype(np.float32)
        add_restored(levels, arrays["restored"][item], arrays["aligned"][item], share, to_aligned, _WHOLE)
        arrays[IMPROVED][item] = np.rint(levels).clip(0, 255)


def _as_picture(edited: npt.NDArray[Any], out: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if edited.dtype == np.uint8:
        np.copyto(out, edited)
        return out
    return from_planes(edited, RGB_SIGNED, out=out)
