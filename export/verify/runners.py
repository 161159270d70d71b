"""Polygraphy runners for every executor of a chain: PyTorch, ONNX node by node, and production's engines."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from dubstream.engines.contract import BATCH, NetworkSpec
from dubstream.engines.engine import Engine
from dubstream.export.fidelity import Array, Run
from dubstream.export.session import onnx_session

Load = Callable[[], Run]
"""Opens an executor; what it holds lives as long as the run."""


class SpecRunner(BaseRunner):  # type: ignore[misc]  # polygraphy has no types
    """Runs one network in one executor, by the names, types and order of a spec.

    Whatever an executor computes in, outputs are float32 with the values of the spec's type, so that all
    links of one domain can be compared.

    Args:
        name: the link's name, e.g. ``"fp32/torch"``; Polygraphy's results are kept under it.
        spec: inputs it takes and outputs it gives.
        load: called when the runner is activated; its result is dropped when it is deactivated.
    """

    def __init__(self, name: str, spec: NetworkSpec, load: Load) -> None:
        super().__init__(name=name)
        self._spec, self._load = spec, load
        self._run: Run | None = None

    def activate_impl(self) -> None:
        self._run = self._load()

    def get_input_metadata_impl(self) -> TensorMetadata:
        metadata = TensorMetadata()
        for tensor in self._spec.inputs:
            shape = [None if axis == BATCH else axis for axis in tensor.shape]
            metadata.add(tensor.name, np.dtype(tensor.dtype), shape)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        assert self._run is not None
        begun = time.perf_counter()
        got = self._run(feed_dict)
        self.inference_time = time.perf_counter() - begun
        return OrderedDict(
            (tensor.name, np.asarray(got[tensor.name], np.float32)) for tensor in self._spec.outputs
        )

    def deactivate_impl(self) -> None:
        self._run = None


def graph_run(model: Path | onnx.ModelProto, spec: NetworkSpec, threads: int) -> Run:
    """An ONNX graph in ONNX Runtime on the CPU, every node as it stands: what the file itself says.

    Float16 inputs are widened where the graph takes float32, as rounding copies of half-precision graphs do.
    """
    session = onnx_session(model, threads, optimised=False)
    wide = {value.name for value in session.get_inputs() if value.type == "tensor(float)"}
    names = [tensor.name for tensor in spec.outputs]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {name: value.astype(np.float32) if name in wide else value for name, value in inputs.items()}
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run


class HostMemory:
    """Numpy arrays as device memory, and a stream that runs at once: for engines on the CPU."""

    handle: int | None = None

    def upload(self, array: Array) -> Any:
        """A device array with the content of a host array."""
        return np.ascontiguousarray(array)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A device array."""
        return np.empty(shape, dtype)

    def download(self, array: Any) -> Array:
        """The content of a device array, once everything enqueued before has ended."""
        content: Array = array
        return content

    def launch(self, work: Callable[[], None], name: str) -> None:
        """See `dubstream.engines.engine.LaunchStream`."""
        work()


def engine_run(engine: Engine, memory: Any) -> Run:
    """The executor production uses: bound buffers, one enqueue.

    Args:
        engine: kept alive by the run.
        memory: a `HostMemory`, or what does the same on the engine's device.
    """
    spec = engine.spec

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        batch = len(next(iter(inputs.values())))
        given = {tensor.name: memory.upload(inputs[tensor.name]) for tensor in spec.inputs}
        made = {tensor.name: memory.empty(tensor.concrete(batch), tensor.dtype) for tensor in spec.outputs}
        binding = engine.bind(given | made, batch)
        binding.enqueue(memory)
        outputs = {name: memory.download(array) for name, array in made.items()}
        binding.release()
        return outputs

    return run
