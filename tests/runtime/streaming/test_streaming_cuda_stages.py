"""The second pass on a CUDA device against the same on the host: our kernels as C++ under real pycuda."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_parts import CopyBinding
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda
from tolerances import assert_same_but_for_ties

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import InternalError
from dubstream.engines.specs import ENET, LNET
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.platforms import cuda_stages
from dubstream.runtime.platforms.cuda_stages import (
    BlendStage,
    FaceInputsStage,
    fill_tables,
    synthesis_buffers,
    synthesis_stages,
)
from dubstream.runtime.platforms.stages import blend_stage, face_inputs_stage
from dubstream.runtime.streaming import EngineStage, HostDevice, Slot, Streamer
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.stages import Stage

HEIGHT, WIDTH, COUNT = 121, 163, 5
Pictures = dict[str, np.ndarray]


def make_inputs(seed: int) -> Pictures:
    random = np.random.default_rng(seed)

    def boxes(least: int) -> np.ndarray:
        x, y = random.integers(-8, 60, COUNT), random.integers(-8, 40, COUNT)
        w, h = random.integers(least, 90, COUNT), random.integers(least, 70, COUNT)
        return np.stack((x, y, x + w, y + h), axis=1).astype(np.int32)

    return {
        "frames": random.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "references": random.integers(0, 256, (COUNT, 256, 256, 3), dtype=np.uint8),
        "crop_boxes": boxes(40),
        "face_boxes": boxes(30),
        "mel": random.random((COUNT, 1, 80, 16), dtype=np.float32),
    }


class CopyEngine(Engine):
    """A network whose first output is one of its inputs; on both devices, so that they can be compared."""

    backend = "copy"

    def __init__(self, spec: NetworkSpec, device: Device, source: str) -> None:
        super().__init__(spec)
        self.device, self.source = device, source

    def _bind(self, tensors: Any, batch: int) -> Binding:
        target = self.spec.outputs[0].name
        return CopyBinding(self, tensors, batch, [(tensors[target][:batch], tensors[self.source][:batch])])

    def _close(self) -> None: ...


def copying(spec: NetworkSpec, output: TensorSpec) -> NetworkSpec:
    tolerances = {output.name: Tolerance(0.0, 1.0, "test")}
    return NetworkSpec(spec.name, "", spec.inputs, (output,), spec.max_batch, tolerances, 0.0, "", "")


# L-Net passes on its faces, E-Net its reference.
LIPS = TensorSpec("lips", "float32", (BATCH, 6, 96, 96), 0.0, 1.0, "test")
COPY_LNET = copying(LNET, LIPS)
COPY_ENET = NetworkSpec(
    "enet", "", (LIPS, ENET.input("reference")), ENET.outputs, 16, ENET.tolerances, 0.0, "", ""
)  # fmt: skip


def picture(name: str) -> TensorSpec:
    return TensorSpec(name, "uint8", (BATCH, 384, 384, 3), 0, 255, "test")


PICTURE_LNET = NetworkSpec(
    "lnet", "", (LNET.input("mel"), picture("face"), picture("reference")), (picture("lips"),), 16,
    {"lips": Tolerance(0.0, 1.0, "test")}, 0.0, "", "",
)  # fmt: skip
PICTURE_ENET = NetworkSpec(
    "enet", "", (picture("lips"), picture("reference")), (picture("enhanced"),), 16,
    {"enhanced": Tolerance(0.0, 1.0, "test")}, 0.0, "", "",
)  # fmt: skip


def dubbed(
    device: Device,
    stages: list[Stage],
    specs: tuple[NetworkSpec, NetworkSpec],
    inputs: Pictures,
    runs: int = 1,
):
    """All frames through a streamer: two slots of two, so the last batch is short."""
    found: list[np.ndarray] = []

    def source() -> Iterator[int]:
        yield from range(0, COUNT, 2)

    def fill(slot: Slot, first: int) -> None:
        slot.first, slot.count = first, min(2, COUNT - first)
        for name, values in inputs.items():
            slot.inputs[name][: slot.count] = values[first : first + slot.count]
        fill_tables(slot)

    with Streamer(device, synthesis_buffers(*specs, HEIGHT, WIDTH), stages, batch=2, slots=2) as streamer:
        for _ in range(runs):
            found.clear()
            streamer.run(
                source(), fill, lambda slot: found.append(slot.outputs["dubbed"][: slot.count].copy())
            )
    return np.concatenate(found)


def on_host(inputs: Pictures) -> np.ndarray:
    with HostDevice() as host:
        stages = [
            face_inputs_stage(),
            EngineStage(CopyEngine(COPY_LNET, host, "faces")),
            EngineStage(CopyEngine(COPY_ENET, host, "reference")),
            blend_stage(),
        ]
        return dubbed(host, stages, (COPY_LNET, COPY_ENET), inputs)


def modules(kernels: str) -> KernelModules:
    return KernelModules(lambda subject: kernels.encode() + b"\0")


def on_cuda(device: CudaDevice, kernels: str, inputs: Pictures, runs: int = 1) -> np.ndarray:
    lnet, enet = CopyEngine(COPY_LNET, device, "faces"), CopyEngine(COPY_ENET, device, "reference")
    stages = synthesis_stages(device, lnet, enet, modules=modules(kernels))
    return dubbed(device, stages, (COPY_LNET, COPY_ENET), inputs, runs)


@over_fake_cuda()
def test_the_frames_equal_the_hosts_whenever_work_runs(fake: FakeCuda, kernels: str) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        for seed, schedule in enumerate(
            (
                {"name": "lazy"},
                {"name": "eager"},
                {"name": "eager", "slow": ("download",)},
                {"name": "random"},
            )
        ):
            inputs = make_inputs(seed)
            fake.policy(**schedule)
            assert_same_but_for_ties(on_cuda(device, kernels, inputs), on_host(inputs))
    assert fake.live()["pageable"] == 0


@over_fake_cuda()
def test_crop_and_networks_of_the_tensorrt_backend_are_captured_and_equal_the_hosts(
    fake: FakeCuda, kernels: str
) -> None:
    inputs = make_inputs(5)
    with CudaDevice() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(CopyEngine, "backend", "tensorrt")
        assert_same_but_for_ties(on_cuda(device, kernels, inputs, runs=3), on_host(inputs))
    graphs = [entry for entry in fake.log() if (entry.phase, entry.name) == ("issue", "graph")]
    # Per run two full batches and a short one: the first run of a slot is plain, the short ones always are.
    assert len(graphs) == 3 * (2 * 3 - 2)


@over_fake_cuda()
def test_pictures_go_straight_to_networks_that_take_them(fake: FakeCuda, kernels: str) -> None:
    """uint8 in and out; the host's planes hold the same 8 bits as floats."""
    inputs = make_inputs(6)
    specs = (PICTURE_LNET, PICTURE_ENET)
    with fake.nothing_left(), CudaDevice() as device:
        lnet, enet = CopyEngine(specs[0], device, "face"), CopyEngine(specs[1], device, "reference")
        stages = synthesis_stages(device, lnet, enet, modules=modules(kernels))
        found = dubbed(device, stages, specs, inputs)
        del stages
    assert_same_but_for_ties(found, on_host(inputs))
    assert not [entry for entry in fake.log() if entry.name == "lip_planes"]


@over_fake_cuda()
def test_a_small_arena_blends_in_parts(fake: FakeCuda, kernels: str) -> None:
    inputs = make_inputs(7)
    with CudaDevice() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_stages, "ARENA_BYTES", 1)
        inputs["face_boxes"][:] = (0, 0, WIDTH, HEIGHT)
        assert_same_but_for_ties(on_cuda(device, kernels, inputs), on_host(inputs))
    starts = [entry for entry in fake.log() if (entry.phase, entry.name) == ("issue", "blend_start")]
    assert len(starts) == COUNT


@over_fake_cuda()
def test_a_run_allocates_nothing(fake: FakeCuda, kernels: str) -> None:
    inputs = make_inputs(8)
    with CudaDevice() as device:
        stages: list[Stage] = [
            FaceInputsStage(device, modules(kernels)),
            BlendStage(device, modules(kernels)),
        ]
        copies = [
            EngineStage(CopyEngine(COPY_LNET, device, "faces")),
            EngineStage(CopyEngine(COPY_ENET, device, "reference")),
        ]
        seen: list[dict[str, int]] = []

        class Watch:
            name = "watch"

            def bind(self, slot: Slot) -> None: ...
            def enqueue(self, slot: Slot, stream: Any) -> None:
                seen.append(fake.live())

        dubbed(device, [stages[0], *copies, stages[1], Watch()], (COPY_LNET, COPY_ENET), inputs, runs=2)
    first = {**seen[0], "events": 0}
    assert [{**each, "events": 0} for each in seen] == [first] * len(seen)


@over_fake_cuda()
def test_a_face_outside_its_frame_is_refused_before_it_goes_up(fake: FakeCuda, kernels: str) -> None:
    inputs = make_inputs(9)
    inputs["face_boxes"][3] = (500, 500, 600, 600)
    with CudaDevice() as device, pytest.raises(InternalError, match="lies outside a frame of 163x121"):
        on_cuda(device, kernels, inputs)
