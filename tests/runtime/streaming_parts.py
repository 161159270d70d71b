"""Small parts to build streams from in tests: seeded frames, a stage, latches, a device that can be held."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.runtime.streaming import BufferSpec, HostDevice, Slot, Stream

PATIENCE_S = 20.0
"""How long a latch waits for what must happen; only a failing test waits that long."""

BUFFERS = (
    BufferSpec("x", (6, 7), "int64", "input"),
    BufferSpec("middle", (6, 7), "int64", "scratch"),
    BufferSpec("y", (6, 7), "int64", "output"),
)

Frames = npt.NDArray[np.int64]


def make_frames(count: int, seed: int = 11) -> Frames:
    """Frames no two of which are alike."""
    return np.random.default_rng(seed).integers(-(2**40), 2**40, (count, 6, 7))


def expected(frames: Frames) -> Frames:
    """What the stages of `make_stages` make of `frames`."""
    return 3 * frames + 1


def batches_of(frames: Frames, batch: int) -> Iterator[tuple[int, Frames]]:
    """First frame and frames of every batch, as a source."""
    for first in range(0, len(frames), batch):
        yield first, frames[first : first + batch]


def fill(slot: Slot, item: tuple[int, Frames]) -> None:
    slot.first, slot.count = item[0], len(item[1])
    slot.inputs["x"][: slot.count] = item[1]
    slot.context = item[0] // slot.batch


class Collector:
    """A drain that keeps copies, and checks the order and the facts that ride along."""

    def __init__(self) -> None:
        self.parts: list[Frames] = []
        self.firsts: list[int] = []

    def __call__(self, slot: Slot) -> None:
        assert slot.context == slot.first // slot.batch
        self.firsts.append(slot.first)
        self.parts.append(slot.outputs["y"][: slot.count].copy())

    @property
    def frames(self) -> Frames:
        return np.concatenate(self.parts) if self.parts else np.empty((0, 6, 7), np.int64)


class ArrayStage:
    """Applies `function` from one buffer to another; `before` sees the batch's number first."""

    def __init__(
        self,
        name: str,
        source: str,
        target: str,
        function: Callable[[Frames], Frames],
        before: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.name = name
        self.bound: list[int] = []
        self._source, self._target, self._function, self._before = source, target, function, before

    def bind(self, slot: Slot) -> None:
        self.bound.append(slot.index)

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        source, target = slot.device[self._source][: slot.count], slot.device[self._target][: slot.count]
        stream.launch(partial(self._work, source, target, slot.first // slot.batch), self.name)

    def _work(self, source: Frames, target: Frames, number: int) -> None:
        self._before(number)
        target[:] = self._function(source)


def make_stages(before: Callable[[int], None] = lambda number: None) -> list[ArrayStage]:
    """Two stages with a scratch buffer between them; `before` is called in the first."""
    return [
        ArrayStage("triple", "x", "middle", lambda x: 3 * x, before),
        ArrayStage("increment", "middle", "y", lambda x: x + 1),
    ]


class HookedDevice(HostDevice):
    """A host device whose copies call hooks with their number, on the stream, before they move bytes."""

    def __init__(
        self,
        on_upload: Callable[[int], None] = lambda number: None,
        on_download: Callable[[int], None] = lambda number: None,
    ) -> None:
        super().__init__()
        self._hooks = {"upload": on_upload, "download": on_download}
        self._counts = {"upload": 0, "download": 0}

    def upload(self, dst: Any, src: npt.NDArray[Any], stream: Stream) -> None:
        self._hook("upload", stream)
        super().upload(dst, src, stream)

    def download(self, dst: npt.NDArray[Any], src: Any, stream: Stream) -> None:
        self._hook("download", stream)
        super().download(dst, src, stream)

    def _hook(self, kind: str, stream: Stream) -> None:
        stream.launch(partial(self._hooks[kind], self._counts[kind]), kind)
        self._counts[kind] += 1


class Latches:
    """One latch per batch number; waiting for one that never opens fails the test."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latches: dict[int, threading.Event] = {}

    def open(self, number: int) -> None:
        self._latch(number).set()

    def wait(self, number: int) -> None:
        assert self._latch(number).wait(PATIENCE_S), f"batch {number} never got there"

    def is_open(self, number: int) -> bool:
        return self._latch(number).is_set()

    def _latch(self, number: int) -> threading.Event:
        with self._lock:
            return self._latches.setdefault(number, threading.Event())


def our_threads() -> list[str]:
    """Names of the threads of streams and streamers that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dubstream-")]


def run_threads() -> list[str]:
    """Those of them that must not outlive a run; streams live as long as their streamer."""
    return [name for name in our_threads() if name in ("dubstream-read", "dubstream-drain")]
