"""Emotions on a CUDA device against the same on the host: our kernels as C++ under real pycuda."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from cuda_parts import CopyBinding
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda
from tolerances import assert_same_but_for_ties

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import InternalError
from dubstream.engines.specs import spec_of
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.emotion import parse_emotion
from dubstream.runtime.platforms import cuda_emotion_stages as on_cuda
from dubstream.runtime.platforms import emotion_stages as on_host
from dubstream.runtime.platforms.emotion_stages import EMOTION_FINITE, Emotion
from dubstream.runtime.platforms.stages import HostStage
from dubstream.runtime.streaming import HostDevice, Slot, Streamer
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.slots import BufferSpec
from dubstream.runtime.streaming.stages import Stage

HEIGHT, WIDTH, COUNT, BATCH = 121, 163, 5, 2
PLANES, PICTURES = spec_of("ganimation", "fp32"), spec_of("ganimation", "fp16")
FRAMES = [
    BufferSpec("frames", (HEIGHT, WIDTH, 3), "uint8", "input"),
    BufferSpec("face_boxes", (4,), "int32", "input"),
    BufferSpec("dubbed", (HEIGHT, WIDTH, 3), "uint8", "output"),
]


class PatternEngine(Engine):
    """Answers with the same faces whatever it sees, and keeps what it saw of action units."""

    backend = "pattern"

    def __init__(self, spec: NetworkSpec, device: Device, pattern: np.ndarray) -> None:
        super().__init__(spec)
        self.device = device
        staged = device.pinned(pattern.shape, pattern.dtype)
        staged[:] = pattern
        self.pattern: Any = device.empty(pattern.shape, pattern.dtype)
        with closing(device.stream("pattern")) as stream:
            device.upload(self.pattern, staged, stream)
            stream.synchronize()

    def _bind(self, tensors: Any, batch: int) -> Binding:
        return PatternBinding(self, tensors, batch)

    def _close(self) -> None: ...


class PatternBinding(CopyBinding):
    def __init__(self, engine: PatternEngine, tensors: Any, batch: int) -> None:
        super().__init__(engine, tensors, batch, [(tensors["fused"][:batch], engine.pattern[:batch])])


class ShowStage:
    """What a blend would see: `frames` to `dubbed`."""

    name = "show"

    def __init__(self, device: CudaDevice) -> None:
        self._device = device

    def bind(self, slot: Slot) -> None: ...
    def enqueue(self, slot: Slot, stream: Any) -> None:
        arrays = slot.device
        self._device.copy(arrays["dubbed"][: slot.count], arrays["frames"][: slot.count], stream)


def shown(slot: Slot, count: int) -> None:
    slot.device["dubbed"][:count] = slot.device["frames"][:count]


def make_inputs(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 60, COUNT), random.integers(0, 40, COUNT)
    w, h = random.integers(20, 100, COUNT), random.integers(20, 80, COUNT)
    return {
        "frames": random.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "face_boxes": np.stack((x, y, x + w, y + h), axis=1).astype(np.int32),
    }


def pattern_of(spec: NetworkSpec) -> np.ndarray:
    random, shape = np.random.default_rng(9), (BATCH, *spec.output("fused").shape[1:])
    if spec.output("fused").dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.uniform(-1, 1, shape).astype(np.float32)


Run = dict[str, list[np.ndarray]]


def run(
    device: Device, buffers: list[BufferSpec], stages: list[Stage], inputs: dict[str, np.ndarray], runs: int
) -> Run:
    """All frames through a streamer: two slots of two, so the last batch is short."""
    found: Run = {}

    def fill(slot: Slot, first: int) -> None:
        slot.first, slot.count = first, min(BATCH, COUNT - first)
        for name, values in inputs.items():
            slot.inputs[name][: slot.count] = values[first : first + slot.count]
        on_cuda.fill_emotion_table(slot)

    def drain(slot: Slot) -> None:
        for name, array in slot.outputs.items():
            found.setdefault(name, []).extend(array[: slot.count].copy())

    with Streamer(device, [*FRAMES, *buffers], stages, batch=BATCH, slots=2) as streamer:
        for _ in range(runs):
            found.clear()
            streamer.run(range(0, COUNT, BATCH), fill, drain)
    return found


def host_frames(spec: NetworkSpec, inputs: dict[str, np.ndarray], text: str) -> np.ndarray:
    with HostDevice() as host:
        engine = PatternEngine(spec, host, pattern_of(spec))
        engine.outputs_optional = True  # as ONNX Runtime's are
        emotion = Emotion(parse_emotion(text), engine)
        stages = [*on_host.emotion_stages(emotion), HostStage("show", shown)]
        return np.stack(run(host, on_host.emotion_buffers(emotion), stages, inputs, 1)["dubbed"])


def cuda_run(
    device: CudaDevice,
    kernels: str,
    spec: NetworkSpec,
    inputs: dict[str, np.ndarray],
    text: str,
    *,
    pattern: np.ndarray | None = None,
    runs: int = 1,
) -> Run:
    engine = PatternEngine(spec, device, pattern_of(spec) if pattern is None else pattern)
    emotion = Emotion(parse_emotion(text), engine)
    modules = KernelModules(lambda subject: kernels.encode() + b"\0")
    stages = [*on_cuda.emotion_stages(device, emotion, modules=modules), ShowStage(device)]
    return run(device, on_cuda.emotion_buffers(emotion), stages, inputs, runs)


@over_fake_cuda()
def test_the_changed_frames_equal_the_hosts_whenever_work_runs(fake: FakeCuda, kernels: str) -> None:
    schedules = ({"name": "lazy"}, {"name": "eager", "slow": ("download",)}, {"name": "random"})
    with fake.nothing_left(), CudaDevice() as device:
        for seed, schedule in enumerate(schedules):
            for spec in (PLANES, PICTURES):
                inputs = make_inputs(seed)
                expected = host_frames(spec, inputs, "angry:0.6")
                fake.policy(**schedule)
                found = cuda_run(device, kernels, spec, inputs, "angry:0.6")
                assert_same_but_for_ties(np.stack(found["dubbed"]), expected)
                assert np.abs(expected.astype(int) - inputs["frames"]).max() > 50
                fake.policy("lazy")
    assert fake.live()["pageable"] == 0


@over_fake_cuda()
def test_looking_and_the_network_are_captured_and_nothing_is_allocated(fake: FakeCuda, kernels: str) -> None:
    inputs = make_inputs(5)
    with CudaDevice() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatternEngine, "backend", "tensorrt")
        seen: list[dict[str, int]] = []
        enqueue = ShowStage.enqueue

        def watched(self: ShowStage, slot: Slot, stream: Any) -> None:
            seen.append(fake.live())
            enqueue(self, slot, stream)

        patch.setattr(ShowStage, "enqueue", watched)
        found = cuda_run(device, kernels, PICTURES, inputs, "sad", runs=3)
        assert_same_but_for_ties(np.stack(found["dubbed"]), host_frames(PICTURES, inputs, "sad"))
    graphs = [entry for entry in fake.log() if (entry.phase, entry.name) == ("issue", "graph")]
    # Per run two full batches and a short one: the first run of a slot is plain, the short ones always are.
    assert len(graphs) == 2 * (2 * 3 - 2)
    assert {(each["device_blocks"], each["host_blocks"]) for each in seen} == {
        (seen[0]["device_blocks"], seen[0]["host_blocks"])
    }


@over_fake_cuda()
def test_the_network_is_told_the_emotion(fake: FakeCuda, kernels: str) -> None:
    with CudaDevice() as device:
        seen: list[np.ndarray] = []

        class Reading(PatternBinding):
            def __init__(self, engine: PatternEngine, tensors: Any, batch: int) -> None:
                super().__init__(engine, tensors, batch)
                self._aus = tensors["aus"]

            def enqueue(self, stream: Any) -> None:
                staged = device.pinned(self._aus.shape, np.float32)
                device.download(staged, self._aus, stream)
                seen.append(staged)
                super().enqueue(stream)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PatternEngine, "_bind", lambda self, tensors, batch: Reading(self, tensors, batch))
            cuda_run(device, kernels, PICTURES, make_inputs(1), "surprise")
        assert len(seen) == 3
        for units in seen:
            np.testing.assert_array_equal(units, [parse_emotion("surprise").intensities] * BATCH)


@over_fake_cuda()
def test_what_is_no_number_is_told_for_its_frame(fake: FakeCuda, kernels: str) -> None:
    pattern = pattern_of(PLANES)
    pattern[1, 2, 30:50] = np.nan
    with CudaDevice() as device:
        found = cuda_run(device, kernels, PLANES, make_inputs(2), "sad", pattern=pattern)
        assert np.concatenate(found[EMOTION_FINITE]).tolist() == [1, 0, 1, 0, 1]
        found = cuda_run(device, kernels, PLANES, make_inputs(2), "sad")
        assert np.concatenate(found[EMOTION_FINITE]).tolist() == [1] * COUNT


@over_fake_cuda()
def test_a_box_that_leaves_its_frame_is_refused_before_it_goes_up(fake: FakeCuda, kernels: str) -> None:
    inputs = make_inputs(3)
    inputs["face_boxes"][2] = (100, 50, 164, 100)
    with (
        CudaDevice() as device,
        pytest.raises(InternalError, match=r"\(100, 50, 164, 100\) leaves a frame of 163x121"),
    ):
        cuda_run(device, kernels, PLANES, inputs, "sad")
