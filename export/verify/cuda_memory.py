"""Device memory for verifying GPU engines, on the primary context that all libraries share.

A verification runs a handful of batches, so memory is taken and given back as it comes; the streamer's device
with its pools and pinned buffers is another one (`dubstream.runtime.streaming.cuda`, which this room may not
know). No machine of the test suite has a GPU: the order of the calls is tested on a stand-in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dubstream.engines.errors import DeviceError
from dubstream.export.fidelity import Array

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_HINT = "pip install 'dubstream[gpu]', and look at nvidia-smi"


class DeviceArray:
    """A C-contiguous array in device memory, freed with its last reference.

    Attributes:
        ptr, nbytes: address and size.
        shape, dtype, flags: as of the numpy array it stands for.
    """

    class _Flags:
        c_contiguous = True

    flags = _Flags()

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: str) -> None:
        self._driver = driver
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self.ptr = int(_checked(driver.cuMemAlloc(self.nbytes), f"taking {self.nbytes} bytes"))

    def __del__(self) -> None:
        if hasattr(self, "ptr"):
            self._driver.cuMemFree(self.ptr)


class CudaMemory:
    """Memory and one stream of a CUDA device; the calling thread is attached to it from now on.

    Args:
        index: number of the device.

    Attributes:
        handle: the native stream as an integer.

    Raises:
        DeviceError: no cuda-bindings, no driver, no such device.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise DeviceError(f"cuda-bindings cannot be imported: {error}", hint=_HINT) from error
        self._driver: Any = driver
        try:
            _checked(driver.cuInit(0), "starting CUDA")
        except RuntimeError as error:  # cuda-bindings found no libcuda
            raise DeviceError(f"no CUDA driver: {error}", hint=_HINT) from error
        device = _checked(driver.cuDeviceGet(index), f"finding device {index}")
        context = _checked(driver.cuDevicePrimaryCtxRetain(device), f"opening device {index}")
        _checked(driver.cuCtxSetCurrent(context), "attaching this thread")
        self.handle = int(_checked(driver.cuStreamCreate(_NON_BLOCKING), "making a stream"))

    def upload(self, array: Array) -> DeviceArray:
        """A device array with the content of a host array."""
        content = np.ascontiguousarray(array)
        made = self.empty(content.shape, content.dtype.name)
        _checked(self._driver.cuMemcpyHtoD(made.ptr, content.ctypes.data, content.nbytes), "copying to it")
        return made

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """A device array of undefined content."""
        return DeviceArray(self._driver, shape, dtype)

    def block(self, nbytes: int) -> DeviceArray:
        """That many bytes, as a `Workspace` wants them."""
        return self.empty((nbytes,), "uint8")

    def download(self, array: DeviceArray) -> Array:
        """The content of a device array, once everything enqueued before has ended."""
        _checked(self._driver.cuStreamSynchronize(self.handle), "waiting for the stream")
        content = np.empty(array.shape, array.dtype)
        _checked(self._driver.cuMemcpyDtoH(content.ctypes.data, array.ptr, array.nbytes), "copying from it")
        return content

    def launch(self, work: Callable[[], None], name: str) -> None:
        """See `dubstream.engines.engine.LaunchStream`: enqueue now."""
        work()


def _checked(answer: tuple[Any, ...], what: str) -> Any:
    status, *values = answer
    if int(status):
        raise DeviceError(f"{what} failed: {getattr(status, 'name', status)}", hint=_HINT)
    return values[0] if values else None
