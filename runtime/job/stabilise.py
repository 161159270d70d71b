"""Source frames to stabilised references: alignment, ReconNet, driving window, D-Net, composite.

One call works on one chunk of source frames and depends on nothing but the track, so chunks can be made in
any order, again, or on another machine, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.engine import Engine
from dubstream.engines.specs import DRIVING_ROWS, DRIVING_WINDOW, RECON
from dubstream.kernels.boxes import Box
from dubstream.kernels.planes import RGB_SIGNED, RGB_UNIT
from dubstream.kernels.resample import crop_resize
from dubstream.runtime.coefficients import driving_rows, driving_window, frame_coefficients
from dubstream.runtime.faces.alignment import align_for_recon
from dubstream.runtime.faces.geometry import quad_mask
from dubstream.runtime.faces.track import Track
from dubstream.runtime.job.stages import planes_stage, reference_stage
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import EngineStage
from dubstream.runtime.streaming.streamer import Streamer

CROP = 256
"""Side of the stabilised picture in pixels."""

ALIGNED = 224
FEATHER = 6.0
"""Pixels over which a reference goes from the stabilised face to the source around it."""

BEFORE = DRIVING_WINDOW // 2
AFTER = DRIVING_WINDOW - BEFORE - 1

Picture = npt.NDArray[np.uint8]
Frames = Callable[[int, int], Iterable[tuple[int, Picture]]]


@dataclass(frozen=True)
class _Aligned:
    """One present frame on its way to ReconNet."""

    index: int
    crop: Picture
    aligned: Picture
    trans: npt.NDArray[np.float32]


class Stabiliser:
    """Makes the references of chunks of source frames.

    Args:
        device: where buffers live.
        recon, dnet: the networks; closed by the caller.
        track: the face in every source frame.
        crop_box: the part of the frame that is stabilised, in frame pixels.
        template: float32 (64,), the expression every reference gets.
        batch, slots: of the streams.
    """

    def __init__(
        self,
        device: Device,
        recon: Engine,
        dnet: Engine,
        track: Track,
        crop_box: Box,
        template: npt.NDArray[np.float32],
        *,
        batch: int,
        slots: int,
    ) -> None:
        self._track = track
        self._crop_box = crop_box
        self._template = template
        self._batch = batch
        self._recon = Streamer(
            device,
            [
                BufferSpec("aligned", (ALIGNED, ALIGNED, 3), "uint8", "input"),
                BufferSpec.of(RECON.input("image"), "scratch"),
                BufferSpec.of(RECON.output("coeffs"), "output"),
            ],
            [planes_stage("align", "aligned", "image", RGB_UNIT), EngineStage(recon)],
            batch=batch,
            slots=slots,
        )
        self._dnet = Streamer(
            device,
            [
                BufferSpec("crops", (CROP, CROP, 3), "uint8", "input"),
                BufferSpec("masks", (CROP, CROP), "float32", "input"),
                BufferSpec("coefficients", (DRIVING_ROWS, DRIVING_WINDOW), "float32", "input"),
                BufferSpec("image", (3, CROP, CROP), "float32", "scratch"),
                BufferSpec("edited", (3, CROP, CROP), "float32", "scratch"),
                BufferSpec("references", (CROP, CROP, 3), "uint8", "output"),
            ],
            [planes_stage("planes", "crops", "image", RGB_SIGNED), EngineStage(dnet), reference_stage()],
            batch=batch,
            slots=slots,
        )

    def run(
        self,
        frames: Frames,
        start: int,
        stop: int,
        deliver: Callable[[int, Picture], None],
        advance: Callable[[int], None],
    ) -> tuple[StreamReport, StreamReport]:
        """Make the references of the present frames in start..stop-1, in order.

        Args:
            frames: gives (index, uint8 BGR frame) for a range of source frames.
            start, stop: the chunk.
            deliver: called with every index and its reference, uint8 BGR (256, 256, 3), own memory.
            advance: called with the number of references finished since the last call.

        Returns:
            Reports of the ReconNet stream and of the D-Net stream.
        """
        present = [k for k in range(start, stop) if self._track.present[k]]
        runs = _runs(self._track.present, start, stop)
        crops: dict[int, Picture] = {}
        rows: dict[int, npt.NDArray[np.float32]] = {}

        def collect(slot: Slot) -> None:
            trans = np.stack([frame.trans for frame in slot.context])
            coefficients = frame_coefficients(slot.outputs["coeffs"][: slot.count], trans)
            driving = driving_rows(coefficients, self._template)
            for frame, row in zip(slot.context, driving, strict=True):
                rows[frame.index] = row
                if start <= frame.index < stop:
                    crops[frame.index] = frame.crop

        def finish(slot: Slot) -> None:
            for item, index in enumerate(slot.context):
                deliver(index, slot.outputs["references"][item].copy())
            advance(slot.count)

        recon = self._recon.run(_batches(self._aligned(frames, runs), self._batch), _fill_recon, collect)
        windows = self._windows(present, runs, crops, rows)
        dnet = self._dnet.run(_batches(windows, self._batch), _fill_dnet, finish)
        return recon, dnet

    def _aligned(self, frames: Frames, runs: Sequence[tuple[int, int]]) -> Iterator[_Aligned]:
        for first, last in runs:
            for index, frame in frames(first, last):
                crop = crop_resize(frame, self._crop_box, np.empty((CROP, CROP, 3), np.uint8))
                points = self._points(index)
                aligned, trans = align_for_recon(crop[..., ::-1], points)
                # Pictures are BGR everywhere but inside the alignment, which is Pillow's.
                yield _Aligned(index, crop, np.ascontiguousarray(aligned[..., ::-1]), trans)

    def _points(self, index: int) -> npt.NDArray[np.float64]:
        """The five points of source frame `index` in pixels of its stabilised picture."""
        x1, y1, x2, y2 = self._crop_box
        scale = np.array([CROP / (x2 - x1), CROP / (y2 - y1)])
        # Pixel centres are at whole numbers, and resizing keeps the picture's edges in place.
        return np.asarray((self._track.points[index] - (x1, y1) + 0.5) * scale - 0.5)

    def _windows(
        self,
        present: Sequence[int],
        runs: Sequence[tuple[int, int]],
        crops: dict[int, Picture],
        rows: dict[int, npt.NDArray[np.float32]],
    ) -> Iterator[tuple[int, Picture, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        for first, last in runs:
            table = np.stack([rows[index] for index in range(first, last)])
            for index in present:
                if first <= index < last:
                    points = self._points(index)
                    window = driving_window(table, index - first)
                    yield index, crops[index], quad_mask(points, FEATHER), window


def _fill_recon(slot: Slot, batch: list[_Aligned]) -> None:
    slot.first, slot.count, slot.context = batch[0].index, len(batch), batch
    for item, frame in enumerate(batch):
        slot.inputs["aligned"][item] = frame.aligned


def _fill_dnet(slot: Slot, batch: list[tuple[int, Picture, Any, Any]]) -> None:
    slot.first, slot.count = batch[0][0], len(batch)
    slot.context = [index for index, *_ in batch]
    for item, (_, crop, mask, window) in enumerate(batch):
        slot.inputs["crops"][item] = crop
        slot.inputs["masks"][item] = mask
        slot.inputs["coefficients"][item] = window


def _runs(present: npt.NDArray[np.bool_], start: int, stop: int) -> list[tuple[int, int]]:
    """Stretches of present frames the chunk needs: its own, and their neighbours in driving windows."""
    runs: list[tuple[int, int]] = []
    index = start
    while index < stop:
        if not present[index]:
            index += 1
            continue
        first, last = index, index + 1
        while first > max(start - BEFORE, 0) and present[first - 1]:
            first -= 1
        while last < min(stop + AFTER, len(present)) and present[last]:
            last += 1
        runs.append((first, last))
        index = last
    return runs


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
