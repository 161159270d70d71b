"""A CUDA stream for a library that wants to be given one when it is made, before ours exist.

Its work is tied into another stream by two events, on the device: the host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dubstream.engines.errors import DeviceError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING


class SideStream:
    """A stream of the thread's current CUDA context.

    Attributes:
        handle: the native stream as an integer.

    Raises:
        DeviceError: no cuda-bindings, no driver, or no current context.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise DeviceError(
                f"cuda-bindings cannot be imported: {error}", hint="pip install 'dubstream[gpu]'"
            ) from error
        self._driver = driver
        self._stream = self._checked(driver.cuStreamCreate(_NON_BLOCKING), "making a stream")
        self._before = self._checked(driver.cuEventCreate(_DISABLE_TIMING), "making an event")
        self._after = self._checked(driver.cuEventCreate(_DISABLE_TIMING), "making an event")
        self.handle = int(self._stream)

    def within(self, handle: int, enqueue: Callable[[], object]) -> None:
        """Let `enqueue` put work on this stream, in the place where stream `handle` now is.

        It begins when everything enqueued on `handle` before has ended, and what is enqueued there
        afterwards begins when it has ended.
        """
        driver = self._driver
        self._checked(driver.cuEventRecord(self._before, handle), "recording an event")
        self._checked(driver.cuStreamWaitEvent(self._stream, self._before, 0), "waiting for an event")
        try:
            enqueue()
        finally:
            # Also after a failure: what was enqueued may still write to the caller's buffers.
            self._checked(driver.cuEventRecord(self._after, self._stream), "recording an event")
            self._checked(driver.cuStreamWaitEvent(handle, self._after, 0), "waiting for an event")

    def close(self) -> None:
        """Wait for the stream's work and free it. Idempotent."""
        if self.handle:
            self.handle = 0
            self._driver.cuStreamSynchronize(self._stream)
            self._driver.cuStreamDestroy(self._stream)
            self._driver.cuEventDestroy(self._before)
            self._driver.cuEventDestroy(self._after)

    def _checked(self, answer: tuple[Any, ...], what: str) -> Any:
        status, *values = answer
        if int(status):
            raise DeviceError(
                f"{what} failed: {getattr(status, 'name', status)}",
                hint="the thread must be attached to a device (CudaDevice.attach); look at nvidia-smi",
            )
        return values[0] if values else None
