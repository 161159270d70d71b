"""Streams and events of a CUDA device, and the tie between the GPU's clock and the host's."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple

from dubstream.engines.errors import DeviceError, InternalError
from dubstream.runtime.streaming.device import Event, Stream
from dubstream.runtime.streaming.nvtx import RangeOf

_POLL_S = 0.001
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name
ANCHOR_S = 5.0
"""How long a clock anchor serves: CUDA gives elapsed times as float32 milliseconds, 0.5 us apart at 8 s."""


class CudaStream:
    """A non-blocking CUDA stream; made by `CudaDevice.stream`.

    Work is enqueued at once, in the calling thread, which must have entered `CudaDevice.attach`; what
    cannot be enqueued raises there. What fails later on the GPU is a failure of the whole context: every
    later call reports it, whichever stream it came from (run with CUDA_LAUNCH_BLOCKING=1 to see the first).

    Attributes:
        native: pycuda's stream, for kernel launches.
    """

    def __init__(
        self, driver: Any, name: str, range_of: RangeOf, on_close: Callable[[CudaStream], None]
    ) -> None:
        self.name = name
        self.native = driver.Stream(_NON_BLOCKING)
        self.handle: int | None = int(self.native.handle)
        self._driver = driver
        self._range_of = range_of
        self._on_close = on_close

    def launch(self, work: Callable[[], None], name: str) -> None:
        """Call `work`, which enqueues on this stream; the profiler shows it as `name`."""
        with self._range_of(name):
            work()

    def wait(self, event: Event) -> None:
        """Hold later work until `event`'s latest record, as of this call, is reached."""
        with _named_failure(self._driver):
            self._open().wait_for_event(cuda_event(event).native)

    def synchronize(self) -> None:
        """Wait for all work enqueued so far; `DeviceError` when any work of the context failed."""
        with _named_failure(self._driver):
            self._open().synchronize()

    def drop(self) -> None:
        """Wait for everything, as CUDA cannot skip. A failure is not raised: the next call reports it."""
        if self.native is not None:
            with suppress(self._driver.Error):
                self.native.synchronize()

    def close(self) -> None:
        """Like `drop`, and free the stream. Idempotent."""
        if self.native is not None:
            self.drop()
            self.native = None
            self._on_close(self)

    def _open(self) -> Any:
        if self.native is None:
            raise InternalError(f"stream '{self.name}' is closed")
        return self.native


class _Anchor(NamedTuple):
    """One moment on both clocks."""

    native: Any
    host_s: float


class Clock:
    """Ties the GPU's clock to the host's, anew every few seconds."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._stream: Any = None
        self._anchor: _Anchor | None = None

    def anchor(self) -> _Anchor:
        """The latest tie; making a new one waits for an empty stream only."""
        anchor = self._anchor
        if anchor is None or perf_counter() - anchor.host_s > ANCHOR_S:
            if self._stream is None:
                self._stream = self._driver.Stream(_NON_BLOCKING)
            native = self._driver.Event()
            native.record(self._stream)
            native.synchronize()
            anchor = self._anchor = _Anchor(native, perf_counter())
        return anchor

    def close(self) -> None:
        """Free the stream. Idempotent."""
        self._stream = self._anchor = None


class CudaEvent:
    """An event of a CUDA device; see `Event`.

    Waiting blocks the thread instead of spinning: decoder and encoder want the core. Every event keeps
    times, as the streamer reports when each step began and ended.

    Attributes:
        native: pycuda's event.
    """

    def __init__(self, driver: Any, clock: Clock) -> None:
        self.native = driver.Event(driver.event_flags.BLOCKING_SYNC)
        self._driver = driver
        self._clock = clock
        self._anchor: _Anchor | None = None

    def record(self, stream: Stream) -> None:
        """Mark the point behind all work enqueued on `stream` so far."""
        with _named_failure(self._driver):
            self._anchor = self._clock.anchor()
            self.native.record(cuda_stream(stream).native)

    def query(self) -> bool:
        """Whether the latest record has been reached; `DeviceError` when any work of the context failed."""
        with _named_failure(self._driver):
            return bool(self.native.query())

    def synchronize(self, timeout: float | None = None) -> None:
        """Wait for the latest record; see `Event.synchronize`. Failures as in `query`."""
        if timeout is None:
            with _named_failure(self._driver):
                self.native.synchronize()
            return
        end = perf_counter() + timeout
        while not self.query():
            if perf_counter() > end:
                raise TimeoutError(f"event not reached within {timeout} s")
            time.sleep(_POLL_S)

    def elapsed_since(self, earlier: CudaEvent) -> float:
        """Seconds on the GPU between two reached events; resolution about 0.5 us."""
        return float(self.native.time_since(earlier.native)) / 1e3

    def time(self) -> float:
        """When the latest record was reached; raises `InternalError` before that."""
        if self._anchor is None or not self.query():
            raise InternalError("the time of an event that was not reached was asked for")
        return self._anchor.host_s + float(self.native.time_since(self._anchor.native)) / 1e3


class _named_failure:  # noqa: N801 - used like a function
    """Turns pycuda's errors into `DeviceError`. A class, as it stands on the hot path."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._driver.Error):
            raise DeviceError(
                f"the GPU reports: {error}",
                hint="earlier work may be the cause; CUDA_LAUNCH_BLOCKING=1 makes every call report its own",
            ) from error


def cuda_stream(stream: Stream) -> CudaStream:
    """`stream`, if it is one of ours; `InternalError` otherwise."""
    if not isinstance(stream, CudaStream):
        raise InternalError(f"received a {type(stream).__name__}, expected a stream of CudaDevice")
    return stream


def cuda_event(event: Event) -> CudaEvent:
    """`event`, if it is one of ours; `InternalError` otherwise."""
    if not isinstance(event, CudaEvent):
        raise InternalError(f"received a {type(event).__name__}, expected an event of CudaDevice")
    return event
