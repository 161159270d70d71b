"""The stages of the second pass on a CUDA device: the kernels' launchers on slot buffers, networks between.

The twin of `dubstream.runtime.platforms.stages`, with the same names and buffers. A frame goes up once and
comes down once; what the networks see is cut, scaled and put back on the device, in stream order. Kernels
read small tables (which frame, which box). They are slot inputs, filled by `fill_tables`, and go up with the
frames: on the compute stream a table would wait behind the next batch's frames for the same copy engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine import Engine
from dubstream.kernels.blend import DEFAULT_SETTINGS, BlendSettings
from dubstream.kernels.blend_table import BlendTable, blend_table
from dubstream.kernels.compile import architecture_of, cubin
from dubstream.kernels.face_inputs import FACE
from dubstream.kernels.launchers import DeviceFrames, Launchers
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.platforms.stages import synthesis_buffers as pixel_buffers
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.cuda_array import CudaArray
from dubstream.runtime.streaming.cuda_graph import graphed
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import EngineStage, Stage

ARENA_BYTES = 256 << 20
"""Most device memory the blend works in, unless one frame needs more; larger batches blend in parts."""

_FACE_ITEMS = BufferSpec("face_items", (9,), "int32", "input")  # frame, crop box, face box
_BLEND_ITEMS = BufferSpec("blend_items", (10,), "int32", "input")  # frame, face box, window, levels


def synthesis_buffers(lnet: NetworkSpec, enet: NetworkSpec, height: int, width: int) -> list[BufferSpec]:
    """The slot buffers of the second pass on the host, and the kernels' tables."""
    return [*pixel_buffers(lnet, enet, height, width), _FACE_ITEMS, _BLEND_ITEMS]


def fill_tables(slot: Slot, settings: BlendSettings = DEFAULT_SETTINGS) -> None:
    """The tables of a slot whose boxes and count are filled; the last step of `fill`.

    Raises:
        InternalError: a face outside its frame.
    """
    used = slice(0, slot.count)
    faces = slot.inputs["face_boxes"][used]
    if slot.count:
        slot.inputs["face_items"][used] = np.column_stack(
            (np.arange(slot.count), slot.inputs["crop_boxes"][used], faces)
        )
        slot.inputs["blend_items"][used] = _blend_table(slot, 0, slot.count, settings).items


def synthesis_stages(
    device: CudaDevice,
    lnet: Engine,
    enet: Engine,
    *,
    settings: BlendSettings = DEFAULT_SETTINGS,
    modules: KernelModules | None = None,
) -> list[Stage]:
    """Crop, L-Net, E-Net and blend, the networks in CUDA graphs where that is possible.

    Args:
        device: attached in this thread.
        lnet, enet: on that device; closed by the caller, after the streamer.
        settings: of the blend.
        modules: the device's kernels; None to load them now.

    Raises:
        DeviceError: a kernel cannot be compiled for the device or loaded.
    """
    pixels = modules or load_kernels(device)
    stages: list[Stage] = [
        FaceInputsStage(device, pixels),
        NetworkStage(lnet),
        NetworkStage(enet),
        BlendStage(device, pixels, settings),
    ]
    return graphed(stages)


def load_kernels(device: CudaDevice) -> KernelModules:
    """The device's kernels, from the cache of cubins or compiled now."""
    architecture = architecture_of(device.compute_capability)
    with device.attach():
        return KernelModules(lambda subject: cubin(subject, architecture))


class NetworkStage(EngineStage):
    """An `EngineStage` that knows whether its engine can be captured in a CUDA graph."""

    def __init__(self, engine: Engine, buffers: Mapping[str, str] | None = None) -> None:
        super().__init__(engine, buffers)
        # ONNX Runtime has a stream of its own and allocates when it likes.
        self.capturable = engine.backend == "tensorrt"


class FaceInputsStage:
    """What L-Net and E-Net see, from `frames`, `references` and `face_items`.

    For networks that take pictures it writes `face` and `reference`, uint8 BGR (N, 384, 384, 3); for networks
    that take planes `faces`, float32 (N, 6, 96, 96), and `reference`, float32 (N, 3, 384, 384).
    """

    name = "crop"
    capturable = True

    def __init__(self, device: CudaDevice, modules: KernelModules) -> None:
        self._device = device
        self._launchers = Launchers(modules)
        self._pictures: tuple[CudaArray, CudaArray] | None = None

    def bind(self, slot: Slot) -> None:
        """Allocate the pictures between the kernels, once for all slots."""
        # One set serves all slots: the stages of all batches follow one another on one stream.
        if _takes_planes(slot) and (self._pictures is None or len(self._pictures[0]) < slot.batch):
            shape = (slot.batch, FACE, FACE, 3)
            self._pictures = self._device.empty(shape, "uint8"), self._device.empty(shape, "uint8")

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """Enqueue the work for the slot's first `count` items."""
        stream.launch(partial(self._enqueue, slot, stream), self.name)

    def _enqueue(self, slot: Slot, stream: Any) -> None:
        arrays, count, native = slot.device, slot.count, stream.native
        if self._pictures is None or not _takes_planes(slot):
            faces, references = arrays["face"], arrays["reference"]
        else:
            faces, references = self._pictures
        launch = self._launchers
        launch.face_pictures(
            frames_of(arrays["frames"]), arrays["references"].ptr, arrays["face_items"].ptr, count,
            faces.ptr, references.ptr, stream=native,
        )  # fmt: skip
        if _takes_planes(slot):
            launch.face_planes(
                faces.ptr, references.ptr, count, arrays["faces"].ptr, arrays["reference"].ptr, stream=native
            )


class BlendWork:
    """The memory in which faces are put into frames: one set for all slots, as their stages share a stream.

    Args:
        device: whose memory.
        modules: its kernels.
        settings: of the blend.
    """

    def __init__(self, device: CudaDevice, modules: KernelModules, settings: BlendSettings) -> None:
        self._device = device
        self._modules = modules
        self._settings = settings
        self._planes: CudaArray | None = None
        self._arena: CudaArray | None = None

    @property
    def arena(self) -> int:
        """Address of the arena."""
        return int(self._arena or 0)

    def bind(self, slot: Slot) -> None:
        """Make room for the slot's batches, or for parts of them."""
        _, height, width, _ = slot.device["frames"].shape
        largest = blend_table([0], [(0, 0, width, height)], width, height, self._settings).arena_bytes
        needed = min(slot.batch * largest, max(largest, ARENA_BYTES))
        if self._arena is None or self._arena.nbytes < needed:
            self._arena = self._device.empty((needed,), "uint8")
        if slot.device["enhanced"].dtype == np.uint8 and (
            self._planes is None or len(self._planes) < slot.batch
        ):
            self._planes = self._device.empty((slot.batch, 3, FACE, FACE), "float32")

    def faces(self, slot: Slot, stream: Any) -> CudaArray:
        """`enhanced` as float32 (N, 3, 384, 384), after a launch where it is uint8."""
        enhanced: CudaArray = slot.device["enhanced"]
        if self._planes is None or enhanced.dtype != np.uint8:
            return enhanced
        self._modules.launch(
            "picture_planes", (FACE, FACE, slot.count), enhanced.ptr, FACE, FACE, self._planes.ptr,
            stream=stream.native,
        )  # fmt: skip
        return self._planes

    def parts(self, slot: Slot) -> Iterator[tuple[int, BlendTable]]:
        """The batch in as few parts as the arena has room for: each part's first item and its table.

        Only the sizes of these tables are of use: their rows went up with the frames.
        """
        first = 0
        for table in self._tables(slot, 0, slot.count):
            yield first, table
            first += table.count

    def _tables(self, slot: Slot, first: int, stop: int) -> Iterator[BlendTable]:
        table = _blend_table(slot, first, stop, self._settings)
        if self._arena is not None and table.arena_bytes <= self._arena.nbytes:
            yield table
        else:
            middle = (first + stop) // 2
            yield from self._tables(slot, first, middle)
            yield from self._tables(slot, middle, stop)


class BlendStage:
    """The synthesised face into its frame: reads `frames`, `enhanced` and `blend_items`; writes `dubbed`.

    `enhanced` is float32 (N, 3, 384, 384) in [0, 1] or uint8 (N, 384, 384, 3), BGR both. A value that is not
    a number becomes black.
    """

    name = "blend"
    capturable = False  # the size of its launches follows the faces

    def __init__(
        self, device: CudaDevice, modules: KernelModules, settings: BlendSettings = DEFAULT_SETTINGS
    ) -> None:
        self._device = device
        self._launchers = Launchers(modules)
        self._settings = settings
        self._work = BlendWork(device, modules, settings)

    def bind(self, slot: Slot) -> None:
        """Allocate the memory the blend works in, once for all slots."""
        self._work.bind(slot)

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """Enqueue the work for the slot's first `count` items."""
        stream.launch(partial(self._enqueue, slot, stream), self.name)

    def _enqueue(self, slot: Slot, stream: Any) -> None:
        arrays, count = slot.device, slot.count
        self._device.copy(arrays["dubbed"][:count], arrays["frames"][:count], stream)
        faces = self._work.faces(slot, stream)
        for first, table in self._work.parts(slot):
            self._launchers.blend_faces(
                frames_of(arrays["dubbed"]),
                arrays["blend_items"][first:].ptr,
                table,
                faces[first:].ptr,
                (FACE, FACE),
                self._work.arena,
                shape=self._settings.mask,
                stream=stream.native,
            )


def _blend_table(slot: Slot, first: int, stop: int, settings: BlendSettings) -> BlendTable:
    """The table of items first..stop-1, from the pinned boxes: they stay until the slot is filled again."""
    _, height, width, _ = slot.inputs["frames"].shape
    boxes = slot.inputs["face_boxes"][first:stop]
    return blend_table(range(first, stop), boxes, width, height, settings)


def frames_of(array: CudaArray) -> DeviceFrames:
    """A slot's frames on the device, as launchers take them."""
    _, height, width, _ = array.shape
    return DeviceFrames.packed(array.ptr, height, width)


def _takes_planes(slot: Slot) -> bool:
    return "faces" in slot.device
