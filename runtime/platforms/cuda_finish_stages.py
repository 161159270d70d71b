"""The stages that take the blend's place when frames are finished by networks, on a CUDA device.

The twin of `dubstream.runtime.platforms.finish_stages`, with the same names and buffers. The kernels read
`to_aligned` and the blend's table, which go up with the frames; all else they compute where it is needed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from dubstream.kernels.blend_table import BlendTable
from dubstream.kernels.face_inputs import FACE
from dubstream.kernels.finish import FinishSettings
from dubstream.kernels.finish_launchers import SCRATCH_BYTES, FinishLaunchers, FinishScratch, Pictures
from dubstream.kernels.launchers import Launchers
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.platforms.cuda_stages import BlendWork, NetworkStage, frames_of, load_kernels
from dubstream.runtime.platforms.finish_stages import Finish
from dubstream.runtime.platforms.finish_stages import finish_buffers as pixel_buffers
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.cuda_array import CudaArray
from dubstream.runtime.streaming.cuda_graph import graphed
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import Stage, unread_outputs


def finish_buffers(finish: Finish) -> list[BufferSpec]:
    """The slot buffers of a finish on the host, and those of outputs that a backend cannot leave out."""
    return [
        *pixel_buffers(finish),
        *(BufferSpec.of(tensor, "scratch") for tensor in unread_outputs(finish.parser, {"masks"})),
    ]


def finish_stages(device: CudaDevice, finish: Finish, *, modules: KernelModules | None = None) -> list[Stage]:
    """The stages of a finish, which read ``enhanced`` and write ``dubbed`` as the blend does.

    They read the blend's table too, as `dubstream.runtime.platforms.cuda_stages.fill_tables` fills it: boxes
    and windows are the same for both.

    Args:
        device: attached in this thread.
        finish: its networks on that device; closed by the caller, after the streamer.
        modules: the device's kernels; None to load them now.

    Raises:
        DeviceError: a kernel cannot be compiled for the device or loaded.
    """
    work = FinishWork(device, modules or load_kernels(device), finish.settings)
    others = {tensor.name: tensor.name for tensor in unread_outputs(finish.parser, {"masks"})}
    stages: list[Stage] = [
        AlignStage(work),
        NetworkStage(finish.parser, {"image": "aligned", "masks": "masks"} | others),
    ]
    if finish.restorer is not None:
        stages.append(NetworkStage(finish.restorer, {"image": "aligned", "restored": "restored"}))
    return graphed([*stages, FinishStage(work, restores=finish.restorer is not None)])


class FinishWork:
    """What the two stages share: kernels, settings, and memory that lies between them.

    One set of memory serves all slots: the stages of all batches follow one another on one stream.

    Args:
        device: whose memory.
        modules: its kernels.
        settings: masks and bands.
    """

    def __init__(self, device: CudaDevice, modules: KernelModules, settings: FinishSettings) -> None:
        self.device = device
        self.launchers = Launchers(modules)
        self.finish = FinishLaunchers(modules)
        self.settings = settings
        self.blend = BlendWork(device, modules, settings.final)
        self._batch = 0
        self._parts: dict[str, CudaArray] = {}

    def bind(self, slot: Slot) -> None:
        """Make room for the slot's batches."""
        self.blend.bind(slot)
        if slot.batch > self._batch:
            self._batch = slot.batch
            self._parts = {
                name: self.device.empty((slot.batch, nbytes), "uint8")
                for name, nbytes in SCRATCH_BYTES.items()
            }

    @property
    def scratch(self) -> FinishScratch:
        """What the launches of a batch leave for one another."""
        return FinishScratch(**{name: part.ptr for name, part in self._parts.items()})


class AlignStage:
    """Reads `frames`, `enhanced`, `blend_items` and `to_aligned`; writes `aligned`.

    A value of `enhanced` that is not a number is black there; at the end its whole face will be.
    """

    name = "align"
    capturable = False  # the size of its launches follows the faces

    def __init__(self, work: FinishWork) -> None:
        self._work = work

    def bind(self, slot: Slot) -> None:
        """Allocate what both stages work in, once for all slots."""
        self._work.bind(slot)

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """Enqueue the work for the slot's first `count` items."""
        stream.launch(partial(self._enqueue, slot, stream), self.name)

    def _enqueue(self, slot: Slot, stream: Any) -> None:
        work, arrays, native = self._work, slot.device, stream.native
        frames, items, scratch = frames_of(arrays["frames"]), arrays["blend_items"], work.scratch
        faces = work.blend.faces(slot, stream)
        work.finish.plan(frames, items.ptr, arrays["to_aligned"].ptr, slot.count, scratch, stream=native)
        if arrays["enhanced"].dtype != np.uint8:
            work.finish.check_faces(faces.ptr, (FACE, FACE), slot.count, scratch, stream=native)
        for first, table in work.blend.parts(slot):
            part = (frames, items[first:].ptr, table)
            work.launchers.start_blend(
                *part, faces[first:].ptr, (FACE, FACE), work.blend.arena,
                shape=work.settings.box.mask, stream=native,
            )  # fmt: skip
            aligned = _pictures(arrays["aligned"], first)
            work.finish.align(*part, work.blend.arena, scratch.item(first), aligned, stream=native)


class FinishStage:
    """Reads what `AlignStage` reads, `masks`, `aligned` and `restored`; writes `dubbed` and `parsed`.

    A face of which any network's picture held a value that is no finite number becomes black in its whole
    box, so that `dubstream.runtime.blackout` finds it.
    """

    name = "finish"
    capturable = False  # the size of its launches follows the faces

    def __init__(self, work: FinishWork, *, restores: bool) -> None:
        self._work = work
        self._restores = restores

    def bind(self, slot: Slot) -> None:
        """Allocate what both stages work in, once for all slots."""
        self._work.bind(slot)

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """Enqueue the work for the slot's first `count` items."""
        stream.launch(partial(self._enqueue, slot, stream), self.name)

    def _enqueue(self, slot: Slot, stream: Any) -> None:
        work, arrays, count = self._work, slot.device, slot.count
        work.device.copy(arrays["dubbed"][:count], arrays["frames"][:count], stream)
        work.finish.parse(
            _pictures(arrays["masks"]), count, work.scratch, arrays["parsed"].ptr, stream=stream.native
        )
        faces = work.blend.faces(slot, stream)
        for first, table in work.blend.parts(slot):
            self._finish_part(arrays, first, table, faces[first:].ptr, stream.native)

    def _finish_part(
        self, arrays: dict[str, Any], first: int, table: BlendTable, faces: int, native: Any
    ) -> None:
        work, arena, scratch = self._work, self._work.blend.arena, self._work.scratch.item(first)
        frames, items = frames_of(arrays["dubbed"]), arrays["blend_items"][first:].ptr
        part = (frames, items, table)
        work.launchers.start_blend(
            *part, faces, (FACE, FACE), arena, shape=work.settings.final.mask, stream=native
        )
        if self._restores:
            work.finish.add_mouth(
                items, arrays["to_aligned"][first:].ptr, table, arena, scratch,
                _pictures(arrays["restored"], first), _pictures(arrays["aligned"], first), stream=native,
            )  # fmt: skip
        if work.settings.parsed is not None:
            work.finish.match_face(*part, arena, scratch, stream=native)
        work.launchers.blend_bands(*part, arena, stream=native)
        work.finish.blacken_broken(*part, scratch, stream=native)


def _pictures(array: CudaArray, first: int = 0) -> Pictures:
    """A network's pictures from item `first` on."""
    return Pictures(array[first:].ptr, array.dtype != np.uint8)
