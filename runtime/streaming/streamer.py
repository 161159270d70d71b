"""The double-buffered streamer: decode, copies, networks and encode side by side, memory flat."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Self, TypeVar

from dubstream.engines.errors import InternalError, UsageError
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.flow import Flow
from dubstream.runtime.streaming.passage import Passage, Streams
from dubstream.runtime.streaming.report import StreamReport, Tally, step_names
from dubstream.runtime.streaming.slots import BufferSpec, Role, Slot, SlotRing
from dubstream.runtime.streaming.stages import Stage

T = TypeVar("T")


class Streamer:
    """Sends batches through a chain of stages on a device; everything is allocated here, once.

    With N slots, N batches are under way between `fill` and the end of `drain`, so a batch costs at least
    (fill + upload + stages + download + drain) / N: two slots hide everything behind the stages as long
    as they take more than the rest together, a third one helps when they do not.

    Args:
        device: memory, streams and copies; the caller closes it, after the streamer.
        buffers: the buffers of every slot.
        stages: run in this order, at least one; names unique and none of ``read``, ``fill``, ``upload``,
            ``download``, ``drain``. A stage belongs to one streamer at a time.
        batch: items per slot.
        slots: batches under way at once; 2 is double buffering.
        prefetch: batches the reader thread may be ahead of `fill`.

    Raises:
        UsageError: an argument that makes no sense, or a stage whose buffers do not fit.
    """

    def __init__(
        self,
        device: Device,
        buffers: Sequence[BufferSpec],
        stages: Sequence[Stage],
        *,
        batch: int,
        slots: int = 2,
        prefetch: int = 2,
    ) -> None:
        self._names = tuple(stage.name for stage in stages)
        _check_names(self._names)
        if prefetch < 1:
            raise UsageError(f"streamer: received a prefetch of {prefetch} batches, expected at least 1")
        self._device = device
        self._prefetch = prefetch
        self._running = threading.Lock()
        self._closed = False
        self._ring = SlotRing(device, buffers, batch, slots)
        self._item_bytes = {"upload": _bytes_of(buffers, "input"), "download": _bytes_of(buffers, "output")}
        self._passages = [Passage(device, slot, stages) for slot in self._ring.slots]
        # Last, so that arguments that are refused leave no stream behind. One set for all runs: what is
        # bound to a stream (a CUDA graph, shared scratch memory) stays valid from run to run.
        self._streams = Streams(*(device.stream(name) for name in Streams._fields))
        self.nbytes = self._ring.nbytes

    def run(
        self,
        source: Iterable[T],
        fill: Callable[[Slot, T], None],
        drain: Callable[[Slot], None],
        *,
        cancel: Callable[[], None] | None = None,
        trace: bool = False,
    ) -> StreamReport:
        """Send every batch of `source` through the stages; returns when the last one is drained.

        May be called again, also after a run that failed; slots, bindings and streams are used again.

        Args:
            source: one item per batch; iterated in a reader thread, at most `prefetch` + 1 items ahead.
                A step of it cannot be interrupted, so it must not block for long.
            fill: called in this thread: copies the item into ``slot.inputs`` and sets ``slot.first``,
                ``slot.count`` (0 to `batch`) and, if wanted, ``slot.context``.
            drain: called in a writer thread, in batch order, when ``slot.outputs[name][:slot.count]`` is
                there. It must not keep views of the slot's arrays: the slot goes back when it returns.
            cancel: called in this thread before every batch and, while waiting, every 0.1 s; whatever it
                raises ends the run and is raised here. KeyboardInterrupt ends a run in the same way.
            trace: keep a span for every step of every batch. Memory then grows with their number.

        Raises:
            StageError: a stage, a copy, or an error without a name of its own in `source`, `fill` or
                `drain` (as ``read``, ``fill``, ``drain``); carries the step and the first frame (for
                ``read`` counted on from the last batch filled, as if those between were full).
            DubError: what `source`, `fill` or `drain` raised, unchanged.
            InternalError: the streamer is closed or already running, or `fill` set no valid count.
        """
        if not self._running.acquire(blocking=False):
            raise InternalError("the streamer is already running")
        try:
            if self._closed:
                raise InternalError("the streamer is closed")
            tally = Tally(self._names, perf_counter(), trace=trace, item_bytes=self._item_bytes)
            flow: Flow[T] = Flow(
                self._device,
                self._ring,
                self._passages,
                self._streams,
                tally,
                fill=fill,
                drain=drain,
                cancel=cancel,
                prefetch=self._prefetch,
            )
            flow.execute(source)
            return tally.report(perf_counter())
        finally:
            self._running.release()

    def close(self) -> None:
        """Close the streams, let go of the slots and their memory. Idempotent."""
        if not self._closed:
            self._closed = True
            for stream in self._streams:
                stream.close()
            del self._ring, self._passages

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _bytes_of(buffers: Sequence[BufferSpec], role: Role) -> int:
    return sum(buffer.item_bytes for buffer in buffers if buffer.role == role)


def _check_names(names: tuple[str, ...]) -> None:
    reserved = set(step_names(()))
    if not names or len(set(names)) != len(names) or reserved & set(names):
        raise UsageError(
            f"streamer stages: received {list(names)}, expected at least one, each name once, "
            f"none of {sorted(reserved)}"
        )
