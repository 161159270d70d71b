"""The finish on a CUDA device against the same on the host: our kernels as C++ under real pycuda."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from cuda_parts import CopyBinding
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import InternalError
from dubstream.engines.face_specs import GFPGAN, PARSENET
from dubstream.engines.specs import spec_of
from dubstream.kernels.blend import DEFAULT_SETTINGS
from dubstream.kernels.face_align import GFPGAN_POINTS, similarity
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.blackout import check_dubbed
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.platforms import cuda_finish_stages, cuda_stages, finish_stages
from dubstream.runtime.platforms.cuda_stages import fill_tables
from dubstream.runtime.platforms.finish_stages import Finish
from dubstream.runtime.streaming import HostDevice, Slot, Streamer
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.slots import BufferSpec
from dubstream.runtime.streaming.stages import Stage

HEIGHT, WIDTH, COUNT = 97, 121, 5
FULL = FinishOptions("parse", "gfpgan")
Pictures = dict[str, np.ndarray]


def make_inputs(seed: int, precision: str = "fp32") -> Pictures:
    random = np.random.default_rng(seed)
    x, y = random.integers(-8, 40, COUNT), random.integers(-8, 30, COUNT)
    w, h = random.integers(30, 80, COUNT), random.integers(30, 60, COUNT)
    boxes = np.stack((x, y, x + w, y + h), axis=1).astype(np.int32)
    template = (GFPGAN_POINTS - (256, 300)) / (300, 330)
    points = [template * (box[2:] - box[:2]) + (box[2:] + box[:2]) / 2 for box in boxes]
    enhanced = random.integers(0, 256, (COUNT, 384, 384, 3), dtype=np.uint8)
    if precision == "fp32":
        enhanced = enhanced.transpose(0, 3, 1, 2) / np.float32(255)
    return {
        "frames": random.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "crop_boxes": boxes,
        "face_boxes": boxes,
        "to_aligned": np.stack([similarity(each, GFPGAN_POINTS) for each in points]),
        "enhanced": enhanced,
    }


class StandIn(Engine):
    """A network that copies in stream order, on either device.

    A parser sees the same face every time. A restorer moves its picture by a plane, or by seven pixels.
    """

    backend = "tensorrt"

    def __init__(self, spec: NetworkSpec, device: Device) -> None:
        super().__init__(spec)
        self.device = device
        self.outputs_optional = isinstance(device, HostDevice)  # type: ignore[misc]
        self.constant = _placed(device, _masks(spec.output("masks"))) if spec.name == "parsenet" else None

    def _bind(self, tensors: Any, batch: int) -> Binding:
        return StandInBinding(self, tensors, batch)

    def _close(self) -> None: ...


class StandInBinding(CopyBinding):
    def __init__(self, engine: StandIn, tensors: Any, batch: int) -> None:
        if engine.constant is not None:
            pairs = [(tensors["masks"][i : i + 1], engine.constant) for i in range(batch)]
        else:
            pairs = [
                pair
                for i in range(batch)
                for pair in _rolled(tensors["restored"][i : i + 1], tensors["image"][i : i + 1])
            ]
        super().__init__(engine, tensors, batch, pairs)


def _rolled(target: Any, source: Any) -> list[tuple[Any, Any]]:
    """Copies that move an item by a third of its bytes, or by 21 where those are the pixels of a picture."""
    nbytes = int(np.prod(source.shape)) * source.dtype.itemsize
    step = 21 if source.dtype == np.uint8 else nbytes // 3
    return [
        (_bytes_of(target, step, nbytes), _bytes_of(source, 0, nbytes - step)),
        (_bytes_of(target, 0, step), _bytes_of(source, nbytes - step, nbytes)),
    ]


def _bytes_of(array: Any, start: int, stop: int) -> Any:
    if isinstance(array, np.ndarray):
        return array.reshape(-1).view(np.uint8)[start:stop]
    return type(array)(array.owner, array.ptr + start, (stop - start,), "uint8")


def _masks(tensor: TensorSpec) -> np.ndarray:
    found = np.zeros((2, 512, 512), np.float32)
    cv2.ellipse(found[0], (256, 300), (130, 180), 0, 0, 360, 1.0, -1)
    cv2.ellipse(found[1], (256, 370), (75, 40), 0, 0, 360, 1.0, -1)
    if tensor.dtype == "uint8":
        found = np.ascontiguousarray(found.transpose(1, 2, 0) * 255).astype(np.uint8)
    return found[None]


def _placed(device: Device, array: np.ndarray) -> Any:
    if not isinstance(device, CudaDevice):
        return array
    staged, placed = device.pinned(array.shape, array.dtype), device.empty(array.shape, array.dtype)
    np.copyto(staged, array)
    with closing(device.stream("test")) as stream:
        device.upload(placed, staged, stream)
        stream.synchronize()
    return placed


def dubbed(
    device: Device, inputs: Pictures, options: FinishOptions = FULL, *, kernels: str = "", runs: int = 1,
    watch: Stage | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """`dubbed` and `parsed` of all frames, by a streamer of two slots of two: the last batch is short."""
    precision = "fp32" if inputs["enhanced"].dtype == np.float32 else "fp16"
    engines: list[Engine] = [StandIn(spec_of("parsenet", precision), device)]
    if options.mouth:
        engines.append(StandIn(spec_of("gfpgan", precision), device))
    finish = Finish.of(options, engines)
    assert finish is not None
    if isinstance(device, CudaDevice):
        modules = KernelModules(lambda subject: kernels.encode() + b"\0")
        buffers = cuda_finish_stages.finish_buffers(finish)
        stages = cuda_finish_stages.finish_stages(device, finish, modules=modules)
    else:
        buffers, stages = finish_stages.finish_buffers(finish), finish_stages.finish_stages(finish)
    given = [name for name in inputs if name != "to_aligned"]
    buffers += [BufferSpec(name, inputs[name].shape[1:], str(inputs[name].dtype), "input") for name in given]
    buffers += [
        BufferSpec("dubbed", (HEIGHT, WIDTH, 3), "uint8", "output"),
        BufferSpec("face_items", (9,), "int32", "input"),
        BufferSpec("blend_items", (10,), "int32", "input"),
    ]
    found: list[tuple[np.ndarray, np.ndarray]] = []

    def source() -> Iterator[int]:
        yield from range(0, COUNT, 2)

    def fill(slot: Slot, first: int) -> None:
        slot.first, slot.count = first, min(2, COUNT - first)
        for name, values in inputs.items():
            slot.inputs[name][: slot.count] = values[first : first + slot.count]
        fill_tables(slot)

    def drain(slot: Slot) -> None:
        found.append(tuple(slot.outputs[name][: slot.count].copy() for name in ("dubbed", "parsed")))

    if watch is not None:
        stages = [*stages, watch]
    with Streamer(device, buffers, stages, batch=2, slots=2) as streamer:
        for _ in range(runs):
            found.clear()
            streamer.run(source(), fill, drain)
    pictures, parsed = zip(*found, strict=True)
    return np.concatenate(pictures), np.concatenate(parsed)


def assert_equals_the_hosts(
    device: CudaDevice, kernels: str, inputs: Pictures, options: FinishOptions = FULL, runs: int = 1
) -> None:
    found, parsed = dubbed(device, inputs, options, kernels=kernels, runs=runs)
    with HostDevice() as host:
        expected, seen = dubbed(host, inputs, options)
    change = np.abs(found.astype(int) - expected)
    assert change.max() <= 1
    # As the kernels against their references: ties of rounding, here of the restorer's noise too.
    assert np.count_nonzero(change) <= 2 + found.size // 10_000
    assert (expected != inputs["frames"]).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(parsed, seen)
    assert (parsed == 1).all()


@over_fake_cuda()
def test_finished_frames_equal_the_hosts_whenever_work_runs(fake: FakeCuda, kernels: str) -> None:
    schedules: list[dict[str, Any]] = [
        {"name": "lazy"},
        {"name": "eager", "slow": ("download",)},
        {"name": "random", "seed": 1},
    ]
    with fake.nothing_left(), CudaDevice() as device:
        for seed, schedule in enumerate(schedules):
            fake.policy(**schedule)
            assert_equals_the_hosts(device, kernels, make_inputs(seed))
    assert fake.live()["pageable"] == 0


@over_fake_cuda()
def test_networks_of_bytes_get_and_give_bytes(fake: FakeCuda, kernels: str) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        assert_equals_the_hosts(device, kernels, make_inputs(3, "fp16"))
    names = {entry.name for entry in fake.log()}
    assert {"align_pictures", "parse_pictures", "mouth_pictures"} <= names
    assert not {"align_planes", "parse_planes", "mouth_planes", "check_faces"} & names


@over_fake_cuda()
def test_masks_and_mouths_are_chosen_apart(fake: FakeCuda, kernels: str) -> None:
    with CudaDevice() as device:
        assert_equals_the_hosts(device, kernels, make_inputs(4), FinishOptions("parse", "none"))
        assert "mouth_planes" not in {entry.name for entry in fake.log()}
        fake.reset()
        assert_equals_the_hosts(device, kernels, make_inputs(4), FinishOptions("box", "gfpgan"))
        assert "seam_apply" not in {entry.name for entry in fake.log()}


@over_fake_cuda()
def test_a_small_arena_finishes_in_parts_and_networks_are_captured(fake: FakeCuda, kernels: str) -> None:
    inputs = make_inputs(5)
    inputs["face_boxes"][:] = inputs["crop_boxes"][:] = (0, 0, WIDTH, HEIGHT)
    with CudaDevice() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_stages, "ARENA_BYTES", 1)
        assert_equals_the_hosts(device, kernels, inputs, runs=3)
    issued = [entry.name for entry in fake.log() if entry.phase == "issue"]
    assert issued.count("blend_start") == 3 * 2 * COUNT
    # Per run two full batches and a short one: the first run of a slot is plain, the short ones always are.
    assert issued.count("graph") == 2 * (2 * 3 - 2)


@over_fake_cuda()
def test_a_run_allocates_nothing(fake: FakeCuda, kernels: str) -> None:
    seen: list[dict[str, int]] = []

    class Watch:
        name = "watch"

        def bind(self, slot: Slot) -> None: ...
        def enqueue(self, slot: Slot, stream: Any) -> None:
            seen.append(fake.live() | {"events": 0})

    with CudaDevice() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_finish_stages, "graphed", list)  # recordings are made during the first runs
        dubbed(device, make_inputs(6), kernels=kernels, watch=Watch(), runs=2)
    assert seen == [seen[0]] * len(seen)


@over_fake_cuda()
def test_a_value_that_is_no_number_is_black_for_the_jobs_check(fake: FakeCuda, kernels: str) -> None:
    inputs = make_inputs(7)
    inputs["face_boxes"][:] = inputs["crop_boxes"][:] = (20, 10, 100, 80)
    inputs["enhanced"][3, 1, 20, 30] = np.nan
    with CudaDevice() as device:
        found, _ = dubbed(device, inputs, kernels=kernels)
    for index, (picture, source) in enumerate(zip(found, inputs["frames"], strict=True)):
        if index == 3:
            with pytest.raises(InternalError, match="'enhanced' is black"):
                check_dubbed(picture, source, (20, 10, 100, 80))
        else:
            check_dubbed(picture, source, (20, 10, 100, 80))


def test_blend_and_finish_read_one_table() -> None:
    finish = Finish(FULL, _unloaded(PARSENET), _unloaded(GFPGAN))
    assert finish.settings.final.coarsest == DEFAULT_SETTINGS.coarsest
    assert replace(finish, options=FinishOptions("box", "gfpgan")).settings.final == DEFAULT_SETTINGS


def _unloaded(spec: NetworkSpec) -> Engine:
    with HostDevice() as host:
        return StandIn(spec, host)
