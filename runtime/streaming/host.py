"""The host as a device: numpy memory, and a stream that is a worker thread with a first-in-first-out queue.

Streams and events mean what they mean in CUDA (see `dubstream.runtime.streaming.device`), so the
streamer's ordering can be proved without a GPU. Overlap is real: numpy's copies and ONNX Runtime let go
of the interpreter lock while they work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError
from dubstream.runtime.streaming.device import Event, Shape, Stream, check_copy


class _Record:
    """One recorded point in one stream."""

    __slots__ = ("_reached", "error", "time")

    def __init__(self) -> None:
        self._reached = threading.Event()
        self.error: BaseException | None = None
        self.time = 0.0

    def reach(self, error: BaseException | None) -> None:
        self.error = error
        self.time = time.perf_counter()
        self._reached.set()

    @property
    def reached(self) -> bool:
        return self._reached.is_set()

    def wait_reached(self, timeout: float | None = None) -> bool:
        return self._reached.wait(timeout)

    def wait(self, timeout: float | None = None) -> None:
        if not self.wait_reached(timeout):
            raise TimeoutError(f"event not reached within {timeout} s")
        if self.error is not None:
            raise self.error


class HostEvent:
    """An event of the host; see `Event`."""

    def __init__(self) -> None:
        self._latest: _Record | None = None

    def record(self, stream: Stream) -> None:
        """Mark the point behind all work launched on `stream` so far."""
        self._latest = _host_stream(stream).mark()

    def query(self) -> bool:
        """Whether the latest record has been reached; raises what the work before it raised."""
        record = self._latest
        if record is None or not record.reached:
            return record is None
        record.wait()
        return True

    def synchronize(self, timeout: float | None = None) -> None:
        """Wait for the latest record; see `Event.synchronize`."""
        if self._latest is not None:
            self._latest.wait(timeout)

    def latest(self) -> _Record | None:
        """The latest record, for `HostStream.wait`."""
        return self._latest

    def time(self) -> float:
        """When the latest record was reached; raises `InternalError` before that."""
        if self._latest is None or not self._latest.reached:
            raise InternalError("the time of an event that was not reached was asked for")
        return self._latest.time


class HostStream:
    """A worker thread that runs what is launched, in order; made by `HostDevice.stream`."""

    def __init__(self, name: str, on_close: Callable[[HostStream], None]) -> None:
        self.name = name
        self.handle: int | None = None
        self._on_close = on_close
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._closed = False
        self._dropping = False
        self._lock = threading.Lock()  # nothing gets behind the end mark, where it would never run
        self._worker = threading.Thread(target=self._work, name=f"dubstream-{name}", daemon=True)
        self._worker.start()

    def launch(self, work: Callable[[], None], name: str) -> None:
        """Run `work` on the worker behind everything launched before."""
        self._submit(partial(self._run, work))

    def wait(self, event: Event) -> None:
        """Hold later work until `event`'s latest record, as of this call, is reached."""
        record = _host_event(event).latest()
        if record is not None:
            self._submit(partial(self._run, record.wait))

    def synchronize(self) -> None:
        """Wait for all work launched so far; raises what the work raised."""
        self.mark().wait()

    def mark(self) -> _Record:
        """A record behind all work launched so far."""
        record = _Record()
        self._submit(partial(self._reach, record))
        return record

    def drop(self) -> None:
        """Skip work that has not begun, wait for what has, and forget a failure; see `Stream.drop`."""
        self._dropping = True
        self.mark().wait_reached()
        self._error = None
        self._dropping = False

    def close(self) -> None:
        """Skip work that has not begun, wait for what has, join the worker. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._tasks.put(None)
        self._worker.join()
        self._on_close(self)

    def _submit(self, task: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise InternalError(f"stream '{self.name}' is closed")
            self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            # The wait for the next task must not keep this one's arrays alive.
            del task

    def _run(self, work: Callable[[], None]) -> None:
        if (self._closed or self._dropping) and self._error is None:
            self._error = InternalError(f"stream '{self.name}' was emptied before its work began")
        if self._error is not None:
            return
        try:
            work()
        except BaseException as error:
            self._error = error

    def _reach(self, record: _Record) -> None:
        record.reach(self._error)


class HostDevice:
    """The CPU and its memory; see `Device`."""

    name = "host"

    def __init__(self) -> None:
        self._streams: list[HostStream] = []

    def pinned(self, shape: Shape, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A C-contiguous array, contents undefined; the host has no need to pin it."""
        return np.empty(shape, dtype)

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A C-contiguous array, contents undefined."""
        return np.empty(shape, dtype)

    def stream(self, name: str) -> HostStream:
        """A new stream with its own worker thread, called ``dubstream-<name>``."""
        stream = HostStream(name, self._forget)
        self._streams.append(stream)
        return stream

    def event(self) -> HostEvent:
        """A new event."""
        return HostEvent()

    def upload(self, dst: Any, src: npt.NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy; `ValueError` when shapes or dtypes differ or an array is strided."""
        check_copy(dst, src)
        stream.launch(partial(np.copyto, dst, src), "upload")

    def download(self, dst: npt.NDArray[Any], src: Any, stream: Stream) -> None:
        """Enqueue a copy; `ValueError` when shapes or dtypes differ or an array is strided."""
        check_copy(dst, src)
        stream.launch(partial(np.copyto, dst, src), "download")

    def attach(self) -> AbstractContextManager[None]:
        """Nothing to do: host memory is usable in every thread."""
        return nullcontext()

    def close(self) -> None:
        """Close the streams still open. Idempotent."""
        for stream in list(self._streams):
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _forget(self, stream: HostStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)


def _host_stream(stream: Stream) -> HostStream:
    if not isinstance(stream, HostStream):
        raise InternalError(f"received a {type(stream).__name__}, expected a stream of HostDevice")
    return stream


def _host_event(event: Event) -> HostEvent:
    if not isinstance(event, HostEvent):
        raise InternalError(f"received a {type(event).__name__}, expected an event of HostDevice")
    return event
