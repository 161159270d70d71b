"""The second pass: output frames from source frames, references and sound, one segment at a time.

A segment is the unit of resuming: it depends on nothing but the job's identity and its frame range. Frames
without the face ride along on the host, untouched, in the order of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dubstream.engines.engine import Engine
from dubstream.engines.errors import InternalError, StageError
from dubstream.kernels.face_align import GFPGAN_POINTS, similarity
from dubstream.runtime.audio import mel_window, window_start
from dubstream.runtime.blackout import check_dubbed
from dubstream.runtime.faces.geometry import Pads, face_extent, padded_box
from dubstream.runtime.platforms.emotion_stages import EMOTION_FINITE, Emotion
from dubstream.runtime.platforms.finish_stages import Finish
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.preparation.preparation import Prepared
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.streaming.slots import Slot
from dubstream.runtime.streaming.streamer import Streamer
from dubstream.runtime.timeline import Timeline

Picture = npt.NDArray[np.uint8]
FramesAt = Callable[[npt.NDArray[np.int64]], Iterable[tuple[int, Picture]]]

_UNTOUCHED_PER_DUBBED = 2
"""Frames a batch may hold for each item, so that a long stretch without a face stays flat in memory."""


class _Item(NamedTuple):
    """One output frame. `reference` is None where the frame passes through."""

    output: int
    source: int
    frame: Picture
    reference: Picture | None


@dataclass(frozen=True)
class Scene:
    """What all segments of a job share.

    Attributes:
        prepared: track, crop box, references.
        timeline: source frame of every output frame.
        mel: float32 (80, T), the sound.
        pads: widening of the face box.
        width, height: of the frames.
    """

    prepared: Prepared
    timeline: Timeline
    mel: npt.NDArray[np.float32]
    pads: Pads
    width: int
    height: int

    def face_box(self, source: int) -> tuple[int, int, int, int]:
        """The lip network's box in source frame `source`, in frame pixels."""
        extent = face_extent(self.prepared.track.points[source])
        return padded_box(extent, self.width, self.height, self.pads)

    def to_aligned(self, source: int) -> npt.NDArray[np.float64]:
        """Map (2, 3) from pixels of source frame `source` to those of its aligned face."""
        return similarity(self.prepared.track.points[source], GFPGAN_POINTS)


class Synthesiser:
    """Renders segments.

    Args:
        platform: where it is computed.
        lnet, enet: the networks, opened together on that platform; closed by the caller, afterwards.
        scene: what all segments share.
        finish: networks that finish every dubbed frame, opened together with the others; None: a blend.
        emotion: of the upper face, its network opened together with the others; None: as it was filmed.
        batch, slots: of the stream.

    Attributes:
        unparsed: dubbed frames so far in which the parser saw no face: they show the source.
    """

    def __init__(
        self,
        platform: Platform,
        lnet: Engine,
        enet: Engine,
        scene: Scene,
        *,
        finish: Finish | None = None,
        emotion: Emotion | None = None,
        batch: int,
        slots: int,
    ) -> None:
        self._platform = platform
        self._scene = scene
        self._batch = batch
        self.unparsed = 0
        buffers = platform.synthesis_buffers(lnet, enet, scene.height, scene.width)
        stages = platform.synthesis_stages(lnet, enet)
        if emotion is not None:
            more, before_blend = platform.emotional(emotion)
            buffers, stages = [*buffers, *more], [*stages[:-1], *before_blend, stages[-1]]
        if finish is not None:
            more, instead_of_blend = platform.finished(finish)
            buffers, stages = [*buffers, *more], [*stages[:-1], *instead_of_blend]
        self._streamer = Streamer(platform.device, buffers, stages, batch=batch, slots=slots)

    def close(self) -> None:
        """Let go of streams and buffers. Idempotent."""
        self._streamer.close()

    def render(
        self,
        frames_at: FramesAt,
        start: int,
        stop: int,
        write: Callable[[Picture], None],
        advance: Callable[[int], None],
        *,
        trace: bool = False,
    ) -> StreamReport:
        """Render output frames start..stop-1 in order.

        Args:
            frames_at: gives (source index, uint8 BGR frame) for a sequence of source indices.
            start, stop: the segment.
            write: called with every finished frame, uint8 BGR (H, W, 3); must not keep it.
            advance: called with the number of frames written since the last call.
            trace: keep spans.
        """

        def drain(slot: Slot) -> None:
            _check_emotions(slot)
            dubbed = iter(slot.outputs["dubbed"])
            for item in slot.context:
                write(item.frame if item.reference is None else self._checked(item, next(dubbed)))
            self._count(slot)
            advance(len(slot.context))

        return self._streamer.run(
            self._batches(self._items(frames_at, start, stop)), self._fill, drain, trace=trace
        )

    def _count(self, slot: Slot) -> None:
        if "parsed" in slot.outputs:
            self.unparsed += slot.count - int(slot.outputs["parsed"][: slot.count].sum())

    def _checked(self, item: _Item, dubbed: Picture) -> Picture:
        try:
            check_dubbed(dubbed, item.frame, self._scene.face_box(item.source))
        except InternalError as error:
            raise StageError("blend", item.output, error) from error
        return dubbed

    def _items(self, frames_at: FramesAt, start: int, stop: int) -> Iterator[_Item]:
        prepared = self._scene.prepared
        wanted = self._scene.timeline.sources[start:stop]
        for output, (source, frame) in enumerate(frames_at(wanted), start):
            present = bool(prepared.track.present[source])
            yield _Item(output, source, frame, prepared.references.read(source) if present else None)

    def _batches(self, items: Iterable[_Item]) -> Iterator[list[_Item]]:
        batch: list[_Item] = []
        dubbed = 0
        for item in items:
            batch.append(item)
            dubbed += item.reference is not None
            if dubbed == self._batch or len(batch) == _UNTOUCHED_PER_DUBBED * self._batch:
                yield batch
                batch, dubbed = [], 0
        if batch:
            yield batch

    def _fill(self, slot: Slot, batch: list[_Item]) -> None:
        scene, inputs = self._scene, slot.inputs
        dubbed = [item for item in batch if item.reference is not None]
        slot.first, slot.count, slot.context = batch[0].output, len(dubbed), batch
        for position, item in enumerate(dubbed):
            inputs["frames"][position] = item.frame
            inputs["references"][position] = item.reference
            inputs["crop_boxes"][position] = scene.prepared.crop_box
            inputs["face_boxes"][position] = scene.face_box(item.source)
            if "to_aligned" in inputs:
                inputs["to_aligned"][position] = scene.to_aligned(item.source)
            inputs["mel"][position] = mel_window(scene.mel, window_start(item.output, scene.timeline.rate))
        self._platform.finish_fill(slot)


def _check_emotions(slot: Slot) -> None:
    if EMOTION_FINITE not in slot.outputs:
        return
    dubbed = (item.output for item in slot.context if item.reference is not None)
    for output, finite in zip(dubbed, slot.outputs[EMOTION_FINITE][: slot.count], strict=True):
        if not finite:
            cause = InternalError("the change of the upper face is NaN or infinity")
            raise StageError("emotion", output, cause)
