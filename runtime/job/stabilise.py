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
from dubstream.engines.errors import InternalError, StageError
from dubstream.engines.specs import DRIVING_WINDOW
from dubstream.kernels.boxes import Box
from dubstream.kernels.composite import composite
from dubstream.kernels.planes import RGB_SIGNED, RGB_UNIT, PlaneLayout, from_planes, to_planes
from dubstream.kernels.resample import crop_resize
from dubstream.runtime.coefficients import driving_rows, driving_window, frame_coefficients
from dubstream.runtime.faces.alignment import align_for_recon
from dubstream.runtime.faces.geometry import quad_mask
from dubstream.runtime.faces.track import Track
from dubstream.runtime.job.blackout import check_edited
from dubstream.runtime.job.platforms import Platform
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.streamer import Streamer

CROP = 256
"""Side of the stabilised picture in pixels."""

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


@dataclass(frozen=True)
class _Windowed:
    """One present frame on its way to D-Net."""

    index: int
    crop: Picture
    mask: npt.NDArray[np.float32]
    window: npt.NDArray[np.float32]


class Stabiliser:
    """Makes the references of chunks of source frames.

    Args:
        platform: where it is computed.
        recon, dnet: the networks, each opened by itself on that platform; closed by the caller, afterwards.
        track: the face in every source frame.
        crop_box: the part of the frame that is stabilised, in frame pixels.
        template: float32 (64,), the expression every reference gets.
        batch, slots: of the streams.
    """

    def __init__(
        self,
        platform: Platform,
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
            platform.device,
            [BufferSpec.of(recon.spec.input("image"), "input"), *_outputs(recon, "coeffs")],
            platform.network_stages(recon),
            batch=batch,
            slots=slots,
        )
        self._dnet = Streamer(
            platform.device,
            [*(BufferSpec.of(tensor, "input") for tensor in dnet.spec.inputs), *_outputs(dnet, "edited")],
            platform.network_stages(dnet),
            batch=batch,
            slots=slots,
        )

    def close(self) -> None:
        """Let go of streams and buffers. Idempotent."""
        self._recon.close()
        self._dnet.close()

    def run(
        self,
        frames: Frames,
        start: int,
        stop: int,
        deliver: Callable[[int, Picture], None],
        advance: Callable[[int], None],
        *,
        trace: bool = False,
    ) -> tuple[StreamReport, StreamReport]:
        """Make the references of the present frames in start..stop-1, in order.

        Args:
            frames: gives (index, uint8 BGR frame) for a range of source frames.
            start, stop: the chunk.
            deliver: called with every index and its reference, uint8 BGR (256, 256, 3), own memory.
            advance: called with the number of references finished since the last call.
            trace: keep spans.

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
            for item, frame in enumerate(slot.context):
                deliver(frame.index, _reference(frame, slot.outputs["edited"][item]))
            advance(slot.count)

        aligned = self._aligned(frames, runs)
        recon = self._recon.run(_batches(aligned, self._batch), _fill_recon, collect, trace=trace)
        windows = self._windows(present, runs, crops, rows)
        dnet = self._dnet.run(_batches(windows, self._batch), _fill_dnet, finish, trace=trace)
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
    ) -> Iterator[_Windowed]:
        for first, last in runs:
            table = np.stack([rows[index] for index in range(first, last)])
            for index in present:
                if first <= index < last:
                    points = self._points(index)
                    window = driving_window(table, index - first)
                    yield _Windowed(index, crops[index], quad_mask(points, FEATHER), window)


def _outputs(engine: Engine, wanted: str) -> list[BufferSpec]:
    """The buffer of the wanted output, and of the others where the backend cannot leave them out."""
    return [
        BufferSpec.of(tensor, "output" if tensor.name == wanted else "scratch")
        for tensor in engine.spec.outputs
        if tensor.name == wanted or not engine.outputs_optional
    ]


def _fill_recon(slot: Slot, batch: list[_Aligned]) -> None:
    slot.first, slot.count, slot.context = batch[0].index, len(batch), batch
    for item, frame in enumerate(batch):
        _show(frame.aligned, RGB_UNIT, slot.inputs["image"][item])


def _fill_dnet(slot: Slot, batch: list[_Windowed]) -> None:
    slot.first, slot.count, slot.context = batch[0].index, len(batch), batch
    for item, frame in enumerate(batch):
        _show(frame.crop, RGB_SIGNED, slot.inputs["image"][item])
        slot.inputs["coefficients"][item] = frame.window


def _show(picture: Picture, layout: PlaneLayout, out: npt.NDArray[Any]) -> None:
    """A picture as the network takes it: the pixels themselves, or planes in `layout`."""
    if out.dtype == np.uint8:
        np.copyto(out, picture)
    else:
        to_planes(picture, layout, out=out)


def _reference(frame: _Windowed, edited: npt.NDArray[Any]) -> Picture:
    """D-Net's face inside the quad, the source outside: one composite instead of two resamplings."""
    out = np.empty((CROP, CROP, 3), np.uint8)
    try:
        inside = edited if edited.dtype == np.uint8 else from_planes(edited, RGB_SIGNED, out=out)
        check_edited(inside, frame.crop)
        return composite(inside, frame.crop, frame.mask, out=out)
    except InternalError as error:
        raise StageError("reference", frame.index, error) from error


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
