"""A CUDA device: pycuda on the primary context, so that every library shares addresses and streams.

Proved without a GPU: the tests run real pycuda over a driver that logs every call and runs queued work at
the worst moment (`tests/fake_cuda`). What a GPU does with it is measured by `benchmarks/gpu_check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import DeviceError, InternalError
from dubstream.runtime.streaming.cuda_array import CudaArray
from dubstream.runtime.streaming.cuda_open import open_device
from dubstream.runtime.streaming.cuda_streams import Clock, CudaEvent, CudaStream, cuda_stream
from dubstream.runtime.streaming.device import Shape, Stream, check_copy
from dubstream.runtime.streaming.nvtx import nvtx_ranges


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
        self._clock = Clock(self._driver)

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
            return CudaEvent(self._driver, self._clock)

    def upload(self, dst: Any, src: npt.NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy; `ValueError` when the arrays differ, `InternalError` for pageable memory."""
        check_copy(dst, src)
        self._check_pinned(src)
        native = cuda_stream(stream).native
        stream.launch(lambda: self._driver.memcpy_htod_async(dst.ptr, src, native), "upload")

    def download(self, dst: npt.NDArray[Any], src: Any, stream: Stream) -> None:
        """Enqueue a copy; `ValueError` when the arrays differ, `InternalError` for pageable memory."""
        check_copy(dst, src)
        self._check_pinned(dst)
        native = cuda_stream(stream).native
        stream.launch(lambda: self._driver.memcpy_dtoh_async(dst, src.ptr, native), "download")

    def copy(self, dst: CudaArray, src: CudaArray, stream: Stream) -> None:
        """Enqueue a copy between device arrays; `ValueError` when they differ."""
        check_copy(dst, src)
        native = cuda_stream(stream).native
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
            self._clock.close()

    def __enter__(self) -> Self:
        self._entered.enter_context(self.attach())
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.close()
        finally:
            self._entered.close()

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
