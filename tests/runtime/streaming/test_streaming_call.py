"""One item through a network from host memory and back, on the host and over the fake CUDA driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_parts import SCHEDULES
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import InternalError
from dubstream.runtime.streaming.call import NetworkCall
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.host import HostDevice

Copy = Callable[[Any, Any, Any], None]


def spec(name: str) -> NetworkSpec:
    tensors = [TensorSpec(tensor, "float32", (BATCH, 4, 6), None, None, "test") for tensor in ("x", "y")]
    tolerances = {"y": Tolerance(0.0, 1.0, "test")}
    return NetworkSpec(name, "", (tensors[0],), (tensors[1],), 8, tolerances, 0.0, "", "")


class Copying(Engine):
    """y = x, by a copy on the device in stream order."""

    backend = "copy"

    def __init__(self, name: str, copy: Copy) -> None:
        super().__init__(spec(name))
        self.copy = copy

    def _bind(self, tensors: Any, batch: int) -> Binding:
        return CopyingBinding(self, tensors, batch)

    def _close(self) -> None: ...


class CopyingBinding(Binding):
    def __init__(self, engine: Copying, tensors: Any, batch: int) -> None:
        super().__init__(engine.spec.name, tensors, batch)
        self._work = engine.copy, tensors["y"][:batch], tensors["x"][:batch]

    def enqueue(self, stream: Any) -> None:
        copy, target, source = self._work
        stream.launch(lambda: copy(target, source, stream), self.name)

    def _run(self, handle: int | None) -> None: ...
    def _release(self) -> None: ...


def on_host(target: np.ndarray, source: np.ndarray, stream: Any) -> None:
    np.copyto(target, source)


def wrong_calls(device: Device, copy: Copy, calls: int = 6) -> int:
    """How many calls of two networks by turns, on one stream, give something else than they were given."""
    draw = np.random.default_rng(1)
    stream = device.stream("calls")
    with Copying("first", copy) as first, Copying("second", copy) as second:
        networks = [NetworkCall(device, engine, stream) for engine in (first, second)]
        wrong = 0
        for number in range(calls):
            item = draw.normal(size=(4, 6)).astype(np.float32)
            call = networks[number % 2]
            np.copyto(call.input("x"), item)
            wrong += not np.array_equal(call.run()["y"], item)
        stream.close()
    return wrong


def test_what_goes_in_comes_out_on_the_host(no_threads_left: None) -> None:
    with HostDevice() as device:
        assert wrong_calls(device, on_host) == 0


@over_fake_cuda()
def test_what_goes_in_comes_out_of_a_gpu_whenever_work_runs(fake: FakeCuda) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        for schedule in SCHEDULES:
            fake.policy(schedule["name"], seed=schedule.get("seed", 0), slow=tuple(schedule.get("slow", ())))
            assert wrong_calls(device, device.copy) == 0, schedule
    assert fake.live()["pageable"] == 0


def test_numbers_that_are_not_finite_and_failures_are_named(no_threads_left: None) -> None:
    def fail(target: Any, source: Any, stream: Any) -> None:
        raise RuntimeError("no memory")

    def spoil(target: Any, source: Any, stream: Any) -> None:
        target[:] = np.inf

    for copy, words in ((fail, "'first' failed .*no memory"), (spoil, "'first': 24 of 24 values of 'y'")):
        with HostDevice() as device, pytest.raises(InternalError, match=words):
            wrong_calls(device, copy)
