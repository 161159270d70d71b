"""Source frames to stabilised references: driving window, D-Net, composite.

One call works on one chunk of source frames and depends on nothing but the track and the coefficients, so
chunks can be made in any order, again, or on another machine, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.engine import Engine
from dubstream.engines.errors import InternalError, StageError
from dubstream.kernels.composite import composite
from dubstream.kernels.planes import RGB_SIGNED, from_planes
from dubstream.runtime.blackout import check_edited
from dubstream.runtime.coefficients import driving_rows, driving_window
from dubstream.runtime.faces.geometry import CANONICAL, Box, points_in_crop, quad_mask
from dubstream.runtime.faces.track import Track
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.preparation.regress import (
    CoefficientTable,
    Frames,
    Picture,
    cropped,
    in_batches,
    show_picture,
    wanted_outputs,
)
from dubstream.runtime.preparation.restore_references import Edited, ReferenceRestorer
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.streamer import Streamer

FEATHER = 6.0
"""Pixels over which a reference goes from the stabilised face to the source around it."""


@dataclass(frozen=True)
class _Windowed:
    """One present frame on its way to D-Net; `moved` is the picture D-Net moves, `crop` the frame's own."""

    index: int
    crop: Picture
    moved: Picture
    points: npt.NDArray[np.float64]
    mask: npt.NDArray[np.float32]
    window: npt.NDArray[np.float32]


class Stabiliser:
    """Makes the references of chunks of source frames.

    Args:
        platform: where it is computed.
        dnet: the network, opened by itself on that platform; closed by the caller, afterwards.
        track: the face in every source frame.
        crop_box: the part of the frame that is stabilised, in frame pixels.
        expression: float32 (64,), the expression every reference gets, or (n, 64), that of each source frame.
        anchor: uint8 BGR (256, 256, 3), the one picture that D-Net moves for every frame; None to move each
            frame's own (paper, appendix B: one-shot and video-to-video).
        restorer: sharpens what D-Net made; None to leave it. Closed by the caller.
        batch, slots: of the stream.
    """

    def __init__(
        self,
        platform: Platform,
        dnet: Engine,
        track: Track,
        crop_box: Box,
        expression: npt.NDArray[np.float32],
        *,
        anchor: Picture | None = None,
        restorer: ReferenceRestorer | None = None,
        batch: int,
        slots: int,
    ) -> None:
        self._track = track
        self._crop_box = crop_box
        self._expression = expression
        self._anchor = anchor
        self._batch = batch
        self._restorer = restorer
        buffers = [BufferSpec.of(tensor, "input") for tensor in dnet.spec.inputs]
        buffers += wanted_outputs(dnet, "edited")
        stages = platform.network_stages(dnet)
        self._streamer = Streamer(platform.device, buffers, stages, batch=batch, slots=slots)

    def close(self) -> None:
        """Let go of streams and buffers. Idempotent."""
        self._streamer.close()

    def run(
        self,
        frames: Frames,
        start: int,
        stop: int,
        table: CoefficientTable,
        crops: Mapping[int, Picture],
        deliver: Callable[[int, Picture], None],
        advance: Callable[[int], None],
        *,
        trace: bool = False,
    ) -> list[StreamReport]:
        """Make the references of the present frames in start..stop-1, in order.

        Args:
            frames: gives (index, uint8 BGR frame) for a range of source frames.
            start, stop: the chunk.
            table: its coefficients.
            crops: pictures at hand, uint8 BGR (256, 256, 3) by index: all present frames of the chunk, or
                none, then the frames are read.
            deliver: called with every index and its reference, uint8 BGR (256, 256, 3), own memory.
            advance: called with the number of references that D-Net finished since the last call.
            trace: keep spans.

        Returns:
            The report of every stream, one after the other: D-Net's, and the restorer's where there is one.
        """
        waiting: dict[int, tuple[_Windowed, Picture]] = {}

        def finish(slot: Slot) -> None:
            for item, frame in enumerate(slot.context):
                edited = _as_picture(frame, slot.outputs["edited"][item])
                if self._restorer is None:
                    deliver(frame.index, _reference(frame, edited))
                else:
                    waiting[frame.index] = frame, edited
            advance(slot.count)

        def restored(index: int, picture: Picture) -> None:
            deliver(index, _reference(waiting.pop(index)[0], picture))

        pictures = crops.items() if crops else self._read(frames, start, stop)
        windows = in_batches(self._windows(pictures, table), self._batch)
        reports = [self._streamer.run(windows, _fill, finish, trace=trace)]
        if self._restorer is not None:
            # After D-Net's stream, not inside it: a chunk's pictures are a few dozen MiB.
            edited = [Edited(index, made, frame.points) for index, (frame, made) in waiting.items()]
            reports.append(self._restorer.run(edited, restored, trace=trace))
        return reports

    def _read(self, frames: Frames, start: int, stop: int) -> Iterator[tuple[int, Picture]]:
        present = np.flatnonzero(self._track.present[start:stop]) + start
        for run in _consecutive(present):
            for index, frame in frames(int(run[0]), int(run[-1]) + 1):
                yield index, cropped(frame, self._crop_box)

    def _windows(
        self, pictures: Iterable[tuple[int, Picture]], table: CoefficientTable
    ) -> Iterator[_Windowed]:
        wanted = self._expression if self._expression.ndim == 1 else self._expression[table.frames]
        rows = driving_rows(table.coefficients, wanted)
        runs = {
            int(index): (rows[np.searchsorted(table.frames, run)], int(run[0]))
            for run in _consecutive(table.frames)
            for index in run
        }
        for index, crop in pictures:
            driving, first = runs[index]
            points = points_in_crop(self._track.points[index], self._crop_box)
            moved = crop if self._anchor is None else self._anchor
            yield _Windowed(
                index, crop, moved, points, quad_mask(points, FEATHER), driving_window(driving, index - first)
            )


def _consecutive(indices: npt.NDArray[np.int64]) -> Sequence[npt.NDArray[np.int64]]:
    """Runs of consecutive numbers in ascending ones; none of none."""
    return np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1) if len(indices) else []


def _fill(slot: Slot, batch: list[_Windowed]) -> None:
    slot.first, slot.count, slot.context = batch[0].index, len(batch), batch
    for item, frame in enumerate(batch):
        show_picture(frame.moved, RGB_SIGNED, slot.inputs["image"][item])
        slot.inputs["coefficients"][item] = frame.window


def _as_picture(frame: _Windowed, edited: npt.NDArray[Any]) -> Picture:
    """D-Net's output as uint8 BGR (256, 256, 3), own memory."""
    if edited.dtype == np.uint8:
        return edited.copy()
    try:
        return from_planes(edited, RGB_SIGNED, out=np.empty((CANONICAL, CANONICAL, 3), np.uint8))
    except InternalError as error:
        raise StageError("reference", frame.index, error) from error


def _reference(frame: _Windowed, edited: Picture) -> Picture:
    """D-Net's face inside the quad, the source outside: one composite instead of two resamplings."""
    try:
        check_edited(edited, frame.moved)
        return composite(edited, frame.crop, frame.mask, out=edited)
    except InternalError as error:
        raise StageError("reference", frame.index, error) from error
