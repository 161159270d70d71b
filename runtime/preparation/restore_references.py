"""GPEN on the references: what D-Net made, sharpened before it is put into its frame.

    edited 256 ── align ── image 512 ──┬─ parsenet ── masks ───┬─ improve ── improved 256
                                       └─ gpen ────── restored ┘

The original program does so by default. Here it is asked for, as GPEN is for non-commercial use only; the
mask is a parse of D-Net's picture, and only GPEN's change is brought back.

The networks run on the job's platform, aligning and improving on the host's two threads beside them: 1.2 and
3.0 ms a picture on one core (n = 60, medians). A reference is made once per source frame, so kernels would
save what a video pays once; on a GPU it is 0.8 MB up and 1.3 MB down a picture instead of none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dubstream.engines.engine import Engine
from dubstream.engines.errors import InternalError, StageError
from dubstream.kernels.face_align import GPEN_POINTS, align_face, inverse, similarity
from dubstream.kernels.parse_mask import face_masks, mask_in_window
from dubstream.kernels.restore_paste import add_restored
from dubstream.runtime.faces.geometry import CANONICAL
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.preparation.regress import Picture, in_batches, wanted_outputs
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.streamer import Streamer

_WHOLE = (0, 0, CANONICAL, CANONICAL)


@dataclass(frozen=True)
class Edited:
    """What D-Net made of one source frame.

    Attributes:
        index: of the source frame.
        picture: uint8 BGR (256, 256, 3).
        points: float64 (5, 2), the face's five points in it.
    """

    index: int
    picture: Picture
    points: npt.NDArray[np.float64]


class ReferenceRestorer:
    """Sharpens references.

    Args:
        platform: where the networks run.
        parser, restorer: ParseNet and GPEN, opened together on that platform and apart from others; closed by
            the caller, afterwards.
        batch, slots: of the stream.
    """

    def __init__(
        self, platform: Platform, parser: Engine, restorer: Engine, *, batch: int, slots: int
    ) -> None:
        self._batch = batch
        buffers = [
            BufferSpec.of(parser.spec.input("image"), "input"),
            *wanted_outputs(parser, "masks"),
            *wanted_outputs(restorer, "restored"),
        ]
        stages = platform.network_stages(parser, restorer)
        self._streamer = Streamer(platform.device, buffers, stages, batch=batch, slots=slots)

    def close(self) -> None:
        """Let go of streams and buffers. Idempotent."""
        self._streamer.close()

    def run(
        self, edited: Iterable[Edited], deliver: Callable[[int, Picture], None], *, trace: bool = False
    ) -> StreamReport:
        """Restore pictures, in order.

        Args:
            edited: the pictures.
            deliver: called with every index and its picture, uint8 BGR (256, 256, 3), own memory.
            trace: keep spans.

        Raises:
            StageError: a network failed or gave values that are no finite numbers.
        """

        def drain(slot: Slot) -> None:
            for item, one in enumerate(slot.context):
                deliver(one.index, _improved(one, slot, item))

        return self._streamer.run(in_batches(edited, self._batch), _fill, drain, trace=trace)


def _fill(slot: Slot, batch: list[Edited]) -> None:
    slot.first, slot.count, slot.context = batch[0].index, len(batch), batch
    for item, one in enumerate(batch):
        align_face(one.picture, inverse(_to_aligned(one)), out=slot.inputs["image"][item])


def _improved(one: Edited, slot: Slot, item: int) -> Picture:
    to_aligned, share = _to_aligned(one), np.empty((CANONICAL, CANONICAL), np.float32)
    levels = one.picture.astype(np.float32)
    aligned, outputs = slot.inputs["image"][item], slot.outputs
    try:
        mask_in_window(face_masks(outputs["masks"][item]).face, to_aligned, _WHOLE, out=share)
        add_restored(levels, outputs["restored"][item], aligned, share, to_aligned, _WHOLE)
    except InternalError as error:
        raise StageError("restore", one.index, error) from error
    return np.rint(levels).clip(0, 255).astype(np.uint8)


def _to_aligned(one: Edited) -> npt.NDArray[np.float64]:
    """From pixels of D-Net's picture to those of the aligned face."""
    return similarity(one.points, GPEN_POINTS)
