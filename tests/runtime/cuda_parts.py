"""Small parts to build CUDA streams from in tests; only for the subprocess that has the fake driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from fake_cuda.control import FakeCuda
from streaming_parts import BUFFERS, Collector, Frames, batches_of, expected, fill, make_frames

from dubstream.engines.engine import Binding
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.device import Stream
from dubstream.runtime.streaming.slots import Slot
from dubstream.runtime.streaming.stages import Stage
from dubstream.runtime.streaming.streamer import Streamer

SCHEDULES: list[dict[str, Any]] = [
    {"name": "lazy"},
    {"name": "eager"},
    {"name": "eager", "slow": ["download"]},
    {"name": "eager", "slow": ["upload"]},
    {"name": "eager", "slow": ["kernel"]},
    *({"name": "random", "seed": seed} for seed in range(8)),
    *({"name": "random", "seed": seed, "slow": ["download"]} for seed in range(8, 12)),
]
"""When queued work may run: everything late, early, one kind late, and seeded mixtures."""


class KernelStage:
    """Launches one of `fake_cuda/kernels.c` from one slot buffer to another."""

    def __init__(self, fake: FakeCuda, name: str, source: str, target: str, *, kernel: str = "") -> None:
        import pycuda.driver as cuda

        self.name = name
        self.bound: list[int] = []
        self._source, self._target = source, target
        self._module = cuda.module_from_buffer(str(fake.kernels).encode() + b"\0")
        self._kernel = self._module.get_function(kernel or name)
        self._kernel.prepare("PPq")

    def bind(self, slot: Slot) -> None:
        self.bound.append(slot.index)

    def enqueue(self, slot: Slot, stream: Any) -> None:
        source, target = slot.device[self._source][: slot.count], slot.device[self._target][: slot.count]
        values = (source.ptr, target.ptr, source.nbytes // 8)
        stream.launch(
            lambda: self._kernel.prepared_async_call((1, 1), (1, 1, 1), stream.native, *values), self.name
        )


class CopyBinding(Binding):
    """Copies in stream order, on either device; for networks whose answer is known.

    Args:
        engine: has a `device`.
        tensors, batch: as in `Engine.bind`.
        pairs: arrays of that device, each target with its source.
    """

    def __init__(self, engine: Any, tensors: Any, batch: int, pairs: list[tuple[Any, Any]]) -> None:
        super().__init__(engine.spec.name, tensors, batch)
        self._device, self._pairs = engine.device, pairs

    def enqueue(self, stream: Any) -> None:
        for target, source in self._pairs:
            if isinstance(self._device, CudaDevice):
                work = partial(self._device.copy, target, source, stream)
            else:
                work = partial(np.copyto, target, source)
            stream.launch(work, self.name)

    def _run(self, handle: int | None) -> None: ...
    def _release(self) -> None: ...


class HostWork:
    """A stage around another that calls `before` with the batch's number when it is enqueued."""

    def __init__(self, inner: Stage, before: Callable[[int], None]) -> None:
        self.name = inner.name
        self.bind = inner.bind
        self._inner, self._before = inner, before

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        self._before(slot.first // slot.batch)
        self._inner.enqueue(slot, stream)


def kernel_stages(fake: FakeCuda) -> list[Stage]:
    """Two kernels with a scratch buffer between them; `expected` says what they make."""
    return [KernelStage(fake, "triple", "x", "middle"), KernelStage(fake, "increment", "middle", "y")]


@contextmanager
def cuda_streamer(
    device: CudaDevice, stages: list[Stage], *, slots: int, batch: int = 3
) -> Iterator[Streamer]:
    """A streamer over the buffers of `streaming_parts`, closed at the end."""
    with Streamer(device, BUFFERS, stages, batch=batch, slots=slots) as streamer:
        yield streamer


def run_frames(streamer: Streamer, frames: Frames, *, batch: int = 3) -> Frames:
    """What comes out for `frames`."""
    drain = Collector()
    streamer.run(batches_of(frames, batch), fill, drain)
    return drain.frames


def wrong_batches(
    fake: FakeCuda, device: CudaDevice, stages: list[Stage], slots: int, schedule: dict[str, Any]
) -> int:
    """How many of 14 batches (the last one short) come out wrong under one schedule."""
    frames = make_frames(41, seed=schedule.get("seed", 0))
    fake.policy(schedule["name"], seed=schedule.get("seed", 0), slow=tuple(schedule.get("slow", ())))
    with cuda_streamer(device, stages, slots=slots) as streamer:
        found = run_frames(streamer, frames)
    fake.policy("lazy")
    wrong = (found != expected(frames)).any(axis=(1, 2))
    return len(np.unique(np.flatnonzero(wrong) // 3))
