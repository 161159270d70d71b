"""A CUDA device: pycuda on the primary context, so that every library shares addresses and streams.

Proved without a GPU: the tests run real pycuda over a driver that logs every call and runs queued work at
the worst moment (`tests/fake_cuda`). What a GPU does with it is measured by `benchmarks/gpu_check.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from time import perf_counter
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import DeviceError, InternalError
from dubstream.runtime.streaming.cuda_array import CudaArray
from dubstream.runtime.streaming.cuda_open import open_device
from dubstream.runtime.streaming.device import Event, Shape, Stream, check_copy
from dubstream.runtime.streaming.nvtx import RangeOf, nvtx_ranges

ANCHOR_S = 5.0
"""How long a clock anchor serves: CUDA gives elapsed times as float32 milliseconds, 0.5 us apart at 8 s."""

_POLL_S = 0.001
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name


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
            self._open().wait_for_event(_cuda_event(event).native)

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


class CudaEvent:
    """An event of a CUDA device; see `Event`.

    Waiting blocks the thread instead of spinning: decoder and encoder want the core. Every event keeps
    times, as the streamer reports when each step began and ended.

    Attributes:
        native: pycuda's event.
    """

    def __init__(self, driver: Any, anchor_now: Callable[[], _Anchor]) -> None:
        self.native = driver.Event(driver.event_flags.BLOCKING_SYNC)
        self._driver = driver
        self._anchor_now = anchor_now
        self._anchor: _Anchor | None = None

    def record(self, stream: Stream) -> None:
        """Mark the point behind all work enqueued on `stream` so far."""
        with _named_failure(self._driver):
            self._anchor = self._anchor_now()
            self.native.record(_cuda_stream(stream).native)

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


class CudaDevice:
    """One CUDA device; see `Device`.

    Every thread that uses it enters `attach`; `with CudaDevice(0) as device:` attaches the thread it runs
    in. Arrays, events and streams are let go of in an attached thread or in the one that made the device.

    Args:
        index: number of the device, as CUDA counts (see CUDA_VISIBLE_DEVICES).

    Attributes:
        index: the same.
        name: e.g. ``cuda:0 NVIDIA H200``.
        compute_capability: e.g. (9, 0).

    Raises:
        DeviceError: pycuda or the driver is missing or too old, or there is no such device.
    """

    def __init__(self, index: int = 0) -> None:
        self._driver, device, self._context = open_device(index)
        self.index = index
        self.name = f"cuda:{index} {device.name()}"
        self.compute_capability: tuple[int, int] = tuple(device.compute_capability())
        self._range_of = nvtx_ranges()
        self._streams: list[CudaStream] = []
        self._entered = ExitStack()
        self._clock: Any = None
        self._anchor: _Anchor | None = None

    def pinned(self, shape: Shape, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Page-locked host memory, contents undefined; `DeviceError` when there is no room."""
        with self.attach(), self._room_for("page-locked host memory", shape, dtype):
            array: npt.NDArray[Any] = self._driver.pagelocked_empty(shape, np.dtype(dtype))
            return array

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> CudaArray:
        """Device memory, 256-byte aligned, contents undefined; `DeviceError` when there is no room."""
        array = CudaArray(None, 0, tuple(shape), dtype)
        with self.attach(), self._room_for("device memory", shape, dtype):
            array.owner = self._driver.mem_alloc(max(array.nbytes, 1))
        array.ptr = int(array.owner)
        return array

    def stream(self, name: str) -> CudaStream:
        """A new stream that does not wait for the legacy default stream."""
        with self.attach():
            stream = CudaStream(self._driver, name, self._range_of, self._streams.remove)
        self._streams.append(stream)
        return stream

    def event(self) -> CudaEvent:
        """A new event that keeps times."""
        with self.attach():
            return CudaEvent(self._driver, self._anchor_now)

    def upload(self, dst: Any, src: npt.NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy; `ValueError` when the arrays differ, `InternalError` for pageable memory."""
        check_copy(dst, src)
        self._check_pinned(src)
        native = _cuda_stream(stream).native
        stream.launch(lambda: self._driver.memcpy_htod_async(dst.ptr, src, native), "upload")

    def download(self, dst: npt.NDArray[Any], src: Any, stream: Stream) -> None:
        """Enqueue a copy; `ValueError` when the arrays differ, `InternalError` for pageable memory."""
        check_copy(dst, src)
        self._check_pinned(dst)
        native = _cuda_stream(stream).native
        stream.launch(lambda: self._driver.memcpy_dtoh_async(dst, src.ptr, native), "download")

    def copy(self, dst: CudaArray, src: CudaArray, stream: Stream) -> None:
        """Enqueue a copy between device arrays; `ValueError` when they differ."""
        check_copy(dst, src)
        native = _cuda_stream(stream).native
        stream.launch(lambda: self._driver.memcpy_dtod_async(dst.ptr, src.ptr, src.nbytes, native), "copy")

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Make this device's primary context the thread's current one; may be nested."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def close(self) -> None:
        """Close the streams still open. Memory goes with its arrays, the context with the process."""
        with self.attach():
            for stream in list(self._streams):
                stream.close()
            self._clock = self._anchor = None

    def __enter__(self) -> Self:
        self._entered.enter_context(self.attach())
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        finally:
            self._entered.close()

    def _anchor_now(self) -> _Anchor:
        """The latest anchor; set anew every few seconds, which waits for an empty stream only."""
        anchor = self._anchor
        if anchor is None or perf_counter() - anchor.host_s > ANCHOR_S:
            if self._clock is None:
                self._clock = self._driver.Stream(_NON_BLOCKING)
            native = self._driver.Event()
            native.record(self._clock)
            native.synchronize()
            anchor = self._anchor = _Anchor(native, perf_counter())
        return anchor

    def _check_pinned(self, array: npt.NDArray[Any]) -> None:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if not isinstance(owner, self._driver.PagelockedHostAllocation):
            raise InternalError("received pageable host memory for a copy, expected an array of `pinned`")

    @contextmanager
    def _room_for(self, what: str, shape: Shape, dtype: npt.DTypeLike) -> Iterator[None]:
        try:
            yield
        except self._driver.MemoryError as error:
            free, total = (count >> 20 for count in self._driver.mem_get_info())
            needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize >> 20
            raise DeviceError(
                f"no room for {needed} MiB of {what} on {self.name}: {free} of {total} MiB there are free",
                hint="smaller --batch or fewer --slots",
            ) from error


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


def _cuda_stream(stream: Stream) -> CudaStream:
    if not isinstance(stream, CudaStream):
        raise InternalError(f"received a {type(stream).__name__}, expected a stream of CudaDevice")
    return stream


def _cuda_event(event: Event) -> CudaEvent:
    if not isinstance(event, CudaEvent):
        raise InternalError(f"received a {type(event).__name__}, expected an event of CudaDevice")
    return event
