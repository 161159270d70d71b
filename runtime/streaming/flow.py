"""One run of the streamer: three host threads, three streams, one first failure.

    reader thread     source ─▶ prefetch queue
    calling thread    prefetch queue ─▶ free slot ─▶ fill ─▶ enqueue upload, stages, download
    writer thread     oldest slot ─▶ wait for its bytes ─▶ drain ─▶ slot is free again

The calling thread is the one that gets KeyboardInterrupt, and the one that ends the run: whatever
happens, it aborts the queues, empties the streams, joins the threads and takes the slots back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from time import perf_counter
from typing import Generic, TypeVar

from dubstream.engines.errors import DubError, InternalError, StageError
from dubstream.runtime.streaming.channel import POLL_S, AbortedError, Channel, FinishedError
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.passage import Passage, Streams
from dubstream.runtime.streaming.report import Tally
from dubstream.runtime.streaming.slots import Slot, SlotRing

T = TypeVar("T")


class Flow(Generic[T]):
    """State and threads of one run; see `Streamer.run` for the arguments."""

    def __init__(
        self,
        device: Device,
        ring: SlotRing,
        passages: Sequence[Passage],
        streams: Streams,
        tally: Tally,
        *,
        fill: Callable[[Slot, T], None],
        drain: Callable[[Slot], None],
        cancel: Callable[[], None] | None,
        prefetch: int,
    ) -> None:
        self._device, self._ring, self._passages = device, ring, passages
        self._streams, self._tally = streams, tally
        self._fill, self._drain, self._cancel = fill, drain, cancel
        self._batch = ring.slots[0].batch
        self._decoded: Channel[T] = Channel(prefetch)
        self._enqueued: Channel[Slot] = Channel(len(ring.slots))
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._complete = False
        self._delivered = 0
        # Batches filled and the frame behind them, replaced together: the reader looks at both.
        self._position = (0, 0)

    def execute(self, source: Iterable[T]) -> None:
        """Run to the end of `source`, or raise the first failure; all threads are gone afterwards."""
        reader = threading.Thread(target=self._read, args=(source,), name="dubstream-read", daemon=True)
        writer = threading.Thread(target=self._write, name="dubstream-drain", daemon=True)
        with self._device.attach():
            try:
                reader.start()
                writer.start()
                self._feed()
                self._join(writer)
            except AbortedError:
                pass  # `_failure` says why.
            finally:
                self._stop([reader, writer])
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _stop(self, threads: list[threading.Thread]) -> None:
        self._abort()
        if not self._complete:
            for passage in self._passages:
                passage.interrupt()
            for stream in self._streams:
                stream.drop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        self._ring.reset()

    def _abort(self) -> None:
        self._decoded.abort()
        self._enqueued.abort()
        self._ring.abort()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
        self._abort()

    # The reader thread

    def _read(self, source: Iterable[T]) -> None:
        try:
            with self._device.attach(), _iterating(source) as items:
                while self._deliver(items):
                    pass
            self._decoded.finish()
        except AbortedError:
            pass
        except BaseException as error:
            filled, frame = self._position
            self._fail(_named(error, "read", frame + (self._delivered - filled) * self._batch))

    def _deliver(self, items: Iterator[T]) -> bool:
        begin = perf_counter()
        try:
            item = next(items)
        except StopIteration:
            return False
        end = perf_counter()
        self._tally.busy("read", self._delivered, begin, end)
        self._decoded.put(item)
        self._delivered += 1
        self._tally.waited("read", perf_counter() - end)
        return True

    # The calling thread

    def _feed(self) -> None:
        while True:
            if self._cancel:
                self._cancel()
            begin = perf_counter()
            try:
                item = self._decoded.get(self._cancel)
            except FinishedError:
                break
            decoded = perf_counter()
            slot = self._ring.acquire(self._cancel)
            self._tally.waited("fill", decoded - begin)
            self._tally.waited("slot", perf_counter() - decoded)
            self._fill_slot(slot, item)
            # The wait for the next batch must not keep this one alive.
            del item
            self._passages[slot.index].enqueue(self._streams)
            self._enqueued.put(slot)
        self._enqueued.finish()

    def _fill_slot(self, slot: Slot, item: T) -> None:
        filled, frame = self._position
        slot.sequence = filled
        begin = perf_counter()
        try:
            self._fill(slot, item)
        except Exception as error:
            raise _named(error, "fill", frame) from error
        self._tally.busy("fill", filled, begin, perf_counter())
        if slot.first < 0 or not 0 <= slot.count <= slot.batch:
            raise InternalError(f"fill left {slot}, expected a first frame and 0 to {slot.batch} items")
        self._position = (filled + 1, slot.first + slot.count)

    def _join(self, writer: threading.Thread) -> None:
        while writer.is_alive():
            writer.join(POLL_S)
            if self._cancel:
                self._cancel()

    # The writer thread

    def _write(self) -> None:
        try:
            with self._device.attach():
                while True:
                    self._drain_next()
        except FinishedError:
            self._complete = True
        except AbortedError:
            pass
        except BaseException as error:
            self._fail(error)

    def _drain_next(self) -> None:
        begin = perf_counter()
        slot = self._enqueued.get()
        passage = self._passages[slot.index]
        passage.wait()
        ready = perf_counter()
        self._tally.waited("drain", ready - begin)
        for name, began, ended in passage.times():
            self._tally.busy(name, slot.sequence, began, ended)
        try:
            self._drain(slot)
        except Exception as error:
            raise _named(error, "drain", slot.first) from error
        self._tally.busy("drain", slot.sequence, ready, perf_counter())
        self._tally.drained(slot.count)
        # The only place a slot goes back: see "Slot reuse" in slots.py.
        self._ring.release(slot)


@contextmanager
def _iterating(source: Iterable[T]) -> Iterator[Iterator[T]]:
    """Iterate; a generator is closed in the thread it ran in, not left to the collector."""
    items = iter(source)
    with closing(items) if isinstance(items, Generator) else nullcontext():
        yield items


def _named(error: BaseException, step: str, frame: int) -> BaseException:
    """Errors with a name of their own pass, any other is given the step and the frame."""
    if isinstance(error, DubError) or not isinstance(error, Exception):
        return error
    named = StageError(step, frame, error)
    named.__cause__ = error
    return named
