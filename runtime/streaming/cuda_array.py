"""Arrays in device memory, as far as the streamer, the engines and the kernels need them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class _Flags(NamedTuple):
    c_contiguous: bool


_CONTIGUOUS = _Flags(c_contiguous=True)


class CudaArray:
    """A C-contiguous block of device memory with a shape; made by `CudaDevice.empty`.

    Attributes:
        owner: what frees the memory when the last array that refers to it is gone.
        ptr: address of the first element; `int(array)` is the same.
        shape: axis lengths.
        dtype: of the elements.
        flags: `c_contiguous`, always true.
    """

    __slots__ = ("dtype", "flags", "owner", "ptr", "shape")

    def __init__(self, owner: Any, ptr: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.owner = owner
        self.ptr = ptr
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.flags = _CONTIGUOUS

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For libraries that share device memory. Ordering with our streams is the reader's business."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.ptr, False),
            "strides": None,
            "version": 3,
        }

    def __len__(self) -> int:
        return self.shape[0]

    def __int__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"CudaArray({self.dtype} {self.shape} at {self.ptr:#x})"

    def __getitem__(self, items: slice) -> CudaArray:
        """Items along axis 0, without a copy. Only slices with step 1: everything stays in one piece."""
        start, stop, step = items.indices(self.shape[0])
        if step != 1:
            raise IndexError(f"slice of step {step}, expected 1")
        item_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (max(stop - start, 0), *self.shape[1:])
        return CudaArray(self.owner, self.ptr + start * item_bytes, shape, self.dtype)
