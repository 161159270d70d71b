"""Source frames to 3DMM coefficients: crop, alignment, ReconNet.

One call works on one chunk of source frames and depends on nothing but the track, so chunks can be made in
any order, again, or on another machine, with the same numbers. A chunk's table also covers the neighbours
that the driving windows of its frames reach, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dubstream.engines.engine import Engine
from dubstream.engines.errors import InternalError
from dubstream.engines.specs import DRIVING_WINDOW
from dubstream.kernels.planes import RGB_UNIT, PlaneLayout, to_planes
from dubstream.kernels.resample import crop_resize
from dubstream.runtime.coefficients import FRAME_SIZE, frame_coefficients
from dubstream.runtime.faces.alignment import align_for_recon
from dubstream.runtime.faces.geometry import CANONICAL, Box, points_in_crop
from dubstream.runtime.faces.track import Track
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import unread_outputs
from dubstream.runtime.streaming.streamer import Streamer

BEFORE = DRIVING_WINDOW // 2
AFTER = DRIVING_WINDOW - BEFORE - 1

Picture = npt.NDArray[np.uint8]
Frames = Callable[[int, int], Iterable[tuple[int, Picture]]]
T = TypeVar("T")


@dataclass(frozen=True)
class CoefficientTable:
    """Coefficients of the present frames of a chunk and of their neighbours in driving windows.

    Attributes:
        frames: int64 (n,), absolute indices, ascending.
        coefficients: float32 (n, 262), see `dubstream.runtime.coefficients`.
    """

    frames: npt.NDArray[np.int64]
    coefficients: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.frames.ndim != 1 or self.coefficients.shape != (len(self.frames), FRAME_SIZE):
            raise InternalError(
                f"coefficients of {self.frames.shape} frames have shape {self.coefficients.shape}; "
                f"expected (n,) and (n, {FRAME_SIZE})"
            )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """By name, for `np.savez`."""
        return {"frames": self.frames, "coefficients": self.coefficients}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> CoefficientTable:
        """Inverse of `arrays`."""
        return cls(np.asarray(arrays["frames"], np.int64), np.asarray(arrays["coefficients"], np.float32))


@dataclass(frozen=True)
class Regressed:
    """A chunk's table, the pictures it came from, and how long it took.

    Attributes:
        table: of the chunk and its neighbours.
        crops: uint8 BGR (256, 256, 3) of the chunk's own present frames, by index.
        report: of the stream.
    """

    table: CoefficientTable
    crops: dict[int, Picture]
    report: StreamReport


@dataclass(frozen=True)
class _Aligned:
    """One present frame on its way to ReconNet."""

    index: int
    crop: Picture
    aligned: Picture
    trans: npt.NDArray[np.float32]


class Regressor:
    """Measures the coefficients of chunks of source frames.

    Args:
        platform: where it is computed.
        recon: the network, opened by itself on that platform; closed by the caller, afterwards.
        track: the face in every source frame.
        crop_box: the part of the frame that is looked at, in frame pixels.
        batch, slots: of the stream.
    """

    def __init__(
        self, platform: Platform, recon: Engine, track: Track, crop_box: Box, *, batch: int, slots: int
    ) -> None:
        self._track = track
        self._crop_box = crop_box
        self._batch = batch
        self._streamer = Streamer(
            platform.device,
            [BufferSpec.of(recon.spec.input("image"), "input"), *wanted_outputs(recon, "coeffs")],
            platform.network_stages(recon),
            batch=batch,
            slots=slots,
        )

    def close(self) -> None:
        """Let go of streams and buffers. Idempotent."""
        self._streamer.close()

    def run(self, frames: Frames, start: int, stop: int, *, trace: bool = False) -> Regressed:
        """Measure the present frames in start..stop-1 and their neighbours.

        Args:
            frames: gives (index, uint8 BGR frame) for a range of source frames.
            start, stop: the chunk.
            trace: keep spans.
        """
        crops: dict[int, Picture] = {}
        indices: list[int] = []
        rows: list[npt.NDArray[np.float32]] = [np.empty((0, FRAME_SIZE), np.float32)]

        def collect(slot: Slot) -> None:
            trans = np.stack([frame.trans for frame in slot.context])
            rows.append(frame_coefficients(slot.outputs["coeffs"][: slot.count], trans))
            for frame in slot.context:
                indices.append(frame.index)
                if start <= frame.index < stop:
                    crops[frame.index] = frame.crop

        aligned = self._aligned(frames, runs_around(self._track.present, start, stop))
        report = self._streamer.run(in_batches(aligned, self._batch), _fill, collect, trace=trace)
        table = CoefficientTable(np.array(indices, np.int64), np.concatenate(rows))
        return Regressed(table, crops, report)

    def _aligned(self, frames: Frames, runs: Sequence[tuple[int, int]]) -> Iterator[_Aligned]:
        for first, last in runs:
            for index, frame in frames(first, last):
                crop = cropped(frame, self._crop_box)
                points = points_in_crop(self._track.points[index], self._crop_box)
                aligned, trans = align_for_recon(crop[..., ::-1], points)
                # Pictures are BGR everywhere but inside the alignment, which is Pillow's.
                yield _Aligned(index, crop, np.ascontiguousarray(aligned[..., ::-1]), trans)


def cropped(frame: Picture, box: Box) -> Picture:
    """The part of a frame that is looked at: uint8 BGR (256, 256, 3), own memory."""
    return crop_resize(frame, box, np.empty((CANONICAL, CANONICAL, 3), np.uint8))


def wanted_outputs(engine: Engine, wanted: str) -> list[BufferSpec]:
    """The buffer of the wanted output, and of the others where the backend cannot leave them out."""
    others = unread_outputs(engine, {wanted})
    return [
        BufferSpec.of(engine.spec.output(wanted), "output"),
        *(BufferSpec.of(tensor, "scratch") for tensor in others),
    ]


def show_picture(picture: Picture, layout: PlaneLayout, out: npt.NDArray[Any]) -> None:
    """A picture as the network takes it: the pixels themselves, or planes in `layout`."""
    if out.dtype == np.uint8:
        np.copyto(out, picture)
    else:
        to_planes(picture, layout, out=out)


def runs_around(present: npt.NDArray[np.bool_], start: int, stop: int) -> list[tuple[int, int]]:
    """Stretches of present frames a chunk needs: its own, and their neighbours in driving windows."""
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


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _fill(slot: Slot, batch: list[_Aligned]) -> None:
    slot.first, slot.count, slot.context = batch[0].index, len(batch), batch
    for item, frame in enumerate(batch):
        show_picture(frame.aligned, RGB_UNIT, slot.inputs["image"][item])
