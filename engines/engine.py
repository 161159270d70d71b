"""An engine runs one network on device buffers, on a stream it is given.

The base classes own the life cycle and every check; a backend writes two inner steps: `Engine._bind`
(fix the addresses once) and `Binding._run` (start the network, allocating nothing). The same tests and
the same streamer then serve every backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Protocol, Self
from weakref import WeakSet

import numpy as np

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.errors import InternalError, UsageError


class LaunchStream(Protocol):
    """What an engine needs of a stream; the streams of `dubstream.runtime.streaming` have it."""

    @property
    def handle(self) -> int | None:
        """The native stream (a `cudaStream_t` as an integer), None on the host."""

    def launch(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in stream order: on the host later, on a worker; on CUDA at once, to enqueue."""


class Engine(ABC):
    """One network, ready to run on one backend.

    Args:
        spec: the network's contract.
        max_batch: largest batch `bind` accepts; None for the spec's own limit.

    Raises:
        UsageError: `max_batch` outside 1 to ``spec.max_batch``.
    """

    backend: ClassVar[str]
    """Short name of the backend, the same word in reports and in `dubstream doctor`."""

    outputs_optional: ClassVar[bool] = False
    """Whether outputs the caller has no use for may be left out of `bind` (and are then not computed)."""

    def __init__(self, spec: NetworkSpec, *, max_batch: int | None = None) -> None:
        limit = spec.max_batch if max_batch is None else max_batch
        if not 1 <= limit <= spec.max_batch:
            raise UsageError(f"{spec.name}: received max_batch {limit}, expected 1 to {spec.max_batch}")
        self.spec = spec
        self.max_batch = limit
        self._closed = False
        self._bindings: WeakSet[Binding] = WeakSet()

    def bind(self, tensors: Mapping[str, Any], batch: int) -> Binding:
        """Fix the network to one set of buffers; everything is checked here, nothing later.

        Args:
            tensors: device arrays by tensor name (numpy arrays on the host): every input, and the wanted
                outputs. Each is C-contiguous with the spec's dtype and item shape and holds at least
                `batch` items; the first `batch` are used. The addresses must not change while the
                binding lives; the binding keeps the arrays alive.
            batch: items per call, 1 to `max_batch`.

        Raises:
            UsageError: a missing or unknown name, or an array that does not fit; all faults in one message.
            InternalError: the engine is closed.
        """
        if self._closed:
            raise InternalError(f"engine '{self.spec.name}' is closed")
        faults = self._faults(tensors, batch)
        if faults:
            raise UsageError(f"{self.spec.name}: {'; '.join(faults)}")
        binding = self._bind(tensors, batch)
        self._bindings.add(binding)
        return binding

    def close(self) -> None:
        """Free the network and all its bindings; work still enqueued must have finished. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for binding in list(self._bindings):
            binding.release()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def _bind(self, tensors: Mapping[str, Any], batch: int) -> Binding:
        """Build the backend's binding; `tensors` and `batch` are checked."""

    @abstractmethod
    def _close(self) -> None:
        """Free what the backend holds; called once."""

    def _faults(self, tensors: Mapping[str, Any], batch: int) -> list[str]:
        if not 1 <= batch <= self.max_batch:
            return [f"received a batch of {batch}, expected 1 to {self.max_batch}"]
        known = {tensor.name: tensor for tensor in self.spec.inputs + self.spec.outputs}
        needed = self.spec.inputs if self.outputs_optional else self.spec.inputs + self.spec.outputs
        faults = [f"no array for '{tensor.name}'" for tensor in needed if tensor.name not in tensors]
        if not any(tensor.name in tensors for tensor in self.spec.outputs):
            faults.append("no array for any output")
        faults += [f"unknown tensor '{name}'" for name in tensors if name not in known]
        for name in tensors.keys() & known.keys():
            faults += _array_faults(known[name], tensors[name], batch)
        return sorted(faults)


class Binding(ABC):
    """One network fixed to one buffer set and one batch size; made by `Engine.bind`."""

    def __init__(self, name: str, tensors: Mapping[str, Any], batch: int) -> None:
        self.name = name
        self.batch = batch
        self._tensors: dict[str, Any] | None = dict(tensors)

    def enqueue(self, stream: LaunchStream) -> None:
        """Enqueue one run of the network on `stream`; returns without waiting.

        Raises:
            InternalError: the engine was closed.
        """
        if self._tensors is None:
            raise InternalError(f"binding of '{self.name}' was released with its engine")
        stream.launch(partial(self._run, stream.handle), self.name)

    def interrupt(self) -> None:  # noqa: B027
        """Make a run that has begun fail soon, where the backend can; the default lets it finish.

        Callable from any thread; later runs are not affected.
        """

    def release(self) -> None:
        """Let go of the buffers and of the backend's objects."""
        self._tensors = None
        self._release()

    @abstractmethod
    def _run(self, handle: int | None) -> None:
        """Run (host) or start on the native stream `handle` (device); no allocation, no logging."""

    @abstractmethod
    def _release(self) -> None:
        """Drop the backend's objects."""


def _array_faults(tensor: TensorSpec, array: Any, batch: int) -> list[str]:
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    fits = shape[1:] == tensor.concrete(batch)[1:] and len(shape) > 0 and shape[0] >= batch
    faults = []
    if not fits or dtype != np.dtype(tensor.dtype):
        faults.append(
            f"'{tensor.name}': received {dtype} {shape}, "
            f"expected {tensor.dtype} {tensor.shape} with at least {batch} items"
        )
    if not array.flags.c_contiguous:
        faults.append(f"'{tensor.name}': received a strided array, expected a C-contiguous one")
    return faults
