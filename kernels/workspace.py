"""Memory kept between calls, so that a frame costs no large allocation."""

from __future__ import annotations

import math
import threading
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)


class Workspace:
    """Named scratch arrays that grow to the largest size asked for and stay.

    One thread at a time: two calls that share a workspace share their scratch arrays too.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
        """C-contiguous array with undefined content, valid until `name` is asked for again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < size:
            # A tracked box breathes by a few pixels; the spare eighth keeps that from reallocating.
            buffer = self._buffers[name] = np.empty(size + size // 8, np.uint8)
        found: npt.NDArray[Any] = buffer[:size].view(dtype).reshape(shape)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(buffer.nbytes for buffer in self._buffers.values())


_local = threading.local()


def thread_workspace() -> Workspace:
    """The calling thread's own workspace: the default where a caller brings none."""
    found = getattr(_local, "workspace", None)
    if found is None:
        found = _local.workspace = Workspace()
    return found
