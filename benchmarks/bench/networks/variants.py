"""One way to run one network on one batch, as something that can be checked and then timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.artifact import Artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine import Engine
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.runtime.options.backend import HOST, ONNXRUNTIME_CUDA, Backend
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.streaming.device import Device

Arrays = dict[str, npt.NDArray[Any]]
ENGINE, DRIVER, EAGER, COMPILE, NAIVE = "engine", "driver", "eager", "compile", "naive"
BASELINES = (EAGER, COMPILE, NAIVE, DRIVER)
OURS = (ENGINE, DRIVER)
DISTINCT = 2
"""Items of a batch that differ; the reference of a large batch is that of its first two."""


@dataclass(frozen=True)
class Variant:
    """A callable network.

    Attributes:
        name: one of `OURS` and `BASELINES`.
        run: compute and wait; returns the device's own seconds, None where nothing tells them.
        outputs: what the last run computed, by tensor name; read before anything is timed.
        facts: what rows say about it, e.g. backend and precision.
    """

    name: str
    run: Callable[[], float | None]
    outputs: Callable[[], Arrays]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in a stage: ``engine/onnxruntime/fp32``, ``eager``."""
        parts = [self.name, *(str(self.facts[key]) for key in ("backend", "precision") if key in self.facts)]
        return "/".join(parts if self.name in OURS else parts[:1])


def seeded_batch(spec: NetworkSpec, batch: int) -> Arrays:
    """`DISTINCT` items over the ranges of the spec, -1 to 1 where there is none, repeated to a batch."""
    draw = np.random.default_rng(list(f"bench:{spec.name}".encode()))
    return {
        tensor.name: repeated(
            draw.uniform(
                -1.0 if tensor.low is None else tensor.low,
                1.0 if tensor.high is None else tensor.high,
                tensor.concrete(DISTINCT),
            ).astype(tensor.dtype),
            batch,
        )
        for tensor in spec.inputs
    }


def repeated(items: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
    """The first `batch` of items 0, 1, ..., 0, 1, ..., in memory of their own."""
    return np.ascontiguousarray(items[np.arange(batch) % len(items)])


@contextmanager
def opened_engine(platform: Platform, artifact: Artifact, threads: int) -> Iterator[Engine]:
    """An engine that takes every batch of its spec; errors as in `Platform.opened`.

    A dub's batch is limited by the network that takes the smallest, so its platform is asked for
    TensorRT only.
    """
    backend = platform.backend
    if backend.name == HOST:
        with OnnxRuntimeEngine(artifact.path, artifact.spec, threads=threads) as host:
            yield host
    elif backend.name == ONNXRUNTIME_CUDA:
        from dubstream.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

        with OnnxRuntimeCudaEngine(artifact.path, artifact.spec, index=backend.device) as cuda:
            yield cuda
    else:
        with platform.opened(artifact) as (engine,):
            yield engine


class Resident:
    """An engine whose inputs and outputs stay on the device: what a network costs inside a stream.

    Args:
        device: attached to this thread.
        engine: closed by the caller, after `close`.
        inputs: one batch by tensor name.
    """

    def __init__(self, device: Device, engine: Engine, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        self._device, self._stream = device, device.stream(f"bench-{engine.spec.name}")
        self._began, self._ended = device.event(), device.event()
        spec, batch = engine.spec, len(next(iter(inputs.values())))
        self._host = {
            tensor.name: device.pinned(tensor.concrete(batch), tensor.dtype)
            for tensor in spec.inputs + spec.outputs
        }
        self._memory = {name: device.empty(array.shape, array.dtype) for name, array in self._host.items()}
        self._outputs = [tensor.name for tensor in spec.outputs]
        for name, array in inputs.items():
            self._host[name][...] = array
            device.upload(self._memory[name], self._host[name], self._stream)
        self._binding = engine.bind(self._memory, batch)
        self._stream.synchronize()

    def run(self) -> float:
        """Run and wait; the seconds between two events around the network."""
        self._began.record(self._stream)
        self._binding.enqueue(self._stream)
        self._ended.record(self._stream)
        self._stream.synchronize()
        return self._ended.time() - self._began.time()

    def outputs(self) -> Arrays:
        """What the last run left on the device, copied."""
        for name in self._outputs:
            self._device.download(self._host[name], self._memory[name], self._stream)
        self._stream.synchronize()
        return {name: self._host[name].copy() for name in self._outputs}

    def close(self) -> None:
        """Free the stream and the binding."""
        self._stream.close()
        self._binding.release()


class Driver:
    """The same engine as a program without a streamer drives it: item by item through host memory.

    Every item is copied up, bound anew, run, copied down and waited for.
    """

    def __init__(self, device: Device, engine: Engine, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        self._device, self._engine = device, engine
        self._stream = device.stream(f"driver-{engine.spec.name}")
        self._inputs = dict(inputs)
        self._batch = len(next(iter(inputs.values())))
        tensors = engine.spec.inputs + engine.spec.outputs
        self._host = {t.name: device.pinned(t.concrete(1), t.dtype) for t in tensors}
        self._memory = {t.name: device.empty(t.concrete(1), t.dtype) for t in tensors}
        self._results = {t.name: np.empty(t.concrete(self._batch), t.dtype) for t in engine.spec.outputs}

    def run(self) -> None:
        """All items of the batch, one after another."""
        for item in range(self._batch):
            for name, array in self._inputs.items():
                self._host[name][...] = array[item : item + 1]
                self._device.upload(self._memory[name], self._host[name], self._stream)
            binding = self._engine.bind(self._memory, 1)
            binding.enqueue(self._stream)
            for name in self._results:
                self._device.download(self._host[name], self._memory[name], self._stream)
            self._stream.synchronize()
            for name, results in self._results.items():
                results[item] = self._host[name][0]
            binding.release()

    def outputs(self) -> Arrays:
        """What the last run brought, copied."""
        return {name: array.copy() for name, array in self._results.items()}

    def close(self) -> None:
        """Free the stream."""
        self._stream.close()


def engine_facts(backend: Backend) -> dict[str, Any]:
    """What rows say about an engine's variants."""
    return {"backend": backend.name, "precision": backend.precision}
