"""What the streamer needs of a device: memory, streams, events, copies.

`HostDevice` is one implementation; a CUDA device is another, with the same meaning throughout (events
capture like CUDA events, streams order like CUDA streams), so the streamer's code is the same on both.

A *device array* is whatever `Device.empty` returns: it has `shape`, `dtype`, `flags.c_contiguous` and
slicing along axis 0 without a copy. numpy arrays and pycuda's `GPUArray` both do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]


class Stream(Protocol):
    """An ordered queue of work; different streams run side by side.

    A failure poisons the stream: work behind it is skipped, and `synchronize`, events recorded behind it
    and streams that wait for those events all report the same exception.
    """

    @property
    def name(self) -> str:
        """The name given to `Device.stream`."""

    @property
    def handle(self) -> int | None:
        """The native stream (a `cudaStream_t` as an integer), None on the host."""

    def launch(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in stream order: on the host later, on a worker; on CUDA at once, to enqueue."""

    def wait(self, event: Event) -> None:
        """Hold work launched from now on until `event`'s latest record, as of this call, is reached."""

    def synchronize(self) -> None:
        """Wait on the host for all work launched so far; raises what the work raised."""

    def drop(self) -> None:
        """Skip work that has not begun, wait for what has, and forget a failure.

        The stream, its handle included, can be used again. CUDA cannot skip: it waits for everything.
        """

    def close(self) -> None:
        """Like `drop`, and free the stream. Idempotent."""


class Event(Protocol):
    """A mark in a stream; it can be recorded again and again, and only the latest record counts.

    An event that was never recorded counts as reached, as in CUDA.
    """

    def record(self, stream: Stream) -> None:
        """Mark the point behind all work launched on `stream` so far."""

    def query(self) -> bool:
        """Whether the latest record has been reached; raises what the work before it raised."""

    def synchronize(self, timeout: float | None = None) -> None:
        """Wait on the host for the latest record.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TimeoutError: not reached in time.
            BaseException: what the work before it raised.
        """

    def time(self) -> float:
        """When the latest record was reached, in seconds on the clock of `time.perf_counter`.

        A device with a clock of its own measures from an anchor that it set on both clocks when the
        stream was made: differences are exact to microseconds, offsets to one synchronisation.
        """


class Device(Protocol):
    """Memory, streams, events and copies of one device."""

    @property
    def name(self) -> str:
        """The device, for people and reports."""

    def pinned(self, shape: Shape, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A host array, contents undefined, that copies to and from the device without staging."""

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Any:
        """A C-contiguous device array, contents undefined."""

    def stream(self, name: str) -> Stream:
        """A new stream; the caller closes it."""

    def event(self) -> Event:
        """A new event, not recorded."""

    def upload(self, dst: Any, src: npt.NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy from a pinned array to a device array of the same shape and dtype."""

    def download(self, dst: npt.NDArray[Any], src: Any, stream: Stream) -> None:
        """Enqueue a copy from a device array to a pinned array of the same shape and dtype."""

    def attach(self) -> AbstractContextManager[None]:
        """Make the device usable in this thread (CUDA: push its context); every thread enters it."""

    def close(self) -> None:
        """Close the streams still open and free the device. Idempotent."""


def check_copy(dst: Any, src: Any) -> None:
    """Raise `ValueError` unless both arrays have one shape and dtype and lie in one piece."""
    if tuple(dst.shape) != tuple(src.shape) or np.dtype(dst.dtype) != np.dtype(src.dtype):
        raise ValueError(f"copy from {src.dtype} {src.shape} to {dst.dtype} {dst.shape}: must be equal")
    if not (dst.flags.c_contiguous and src.flags.c_contiguous):
        raise ValueError("copy between strided arrays: both must be C-contiguous")
