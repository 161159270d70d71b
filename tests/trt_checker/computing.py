"""A stand-in `tensorrt` that computes: its plans are ONNX files, run by ONNX Runtime where their tensors lie.

With the fake driver a device's memory is the process's own, so the executor's addresses can be read and
written here; a plan runs the moment it is enqueued.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trt_checker import fake

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine_key import Environment
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.engines.tensorrt import provision, watch

ENVIRONMENT = Environment("11.4.0.106", "110400", "13.0", "580", "stand-in", "9.0", 132, "linux-x86_64")
SCRATCH = 1000  # bytes; every engine shall have to share


class _Context(fake._Context):
    def __init__(self, behaviour: fake.Behaviour, engine: OnnxRuntimeEngine) -> None:
        super().__init__(behaviour)
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._batch = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._batch = shape[0]
        return super().set_input_shape(name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return super().set_tensor_address(name, address)

    def execute_async_v3(self, stream: int) -> bool:
        spec = self._engine.spec
        tensors = {tensor.name: tensor for tensor in spec.inputs + spec.outputs}
        assert self._addresses.keys() == tensors.keys()  # TensorRT leaves no output out
        views = {
            name: _view(address, tensors[name].concrete(self._batch), tensors[name].dtype)
            for name, address in self._addresses.items()
        }
        self._engine.bind(views, self._batch)._run(None)
        return super().execute_async_v3(stream)


class _Engine(fake._Engine):
    def __init__(self, behaviour: fake.Behaviour, content: bytes) -> None:
        super().__init__(behaviour, content)
        self._computes = OnnxRuntimeEngine(content, behaviour.spec, threads=1)

    def create_execution_context(self, strategy: str) -> _Context:
        self._behaviour.record("create_execution_context", strategy)
        return _Context(self._behaviour, self._computes)


def _view(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype).reshape(shape)


@contextmanager
def tensorrt_computes() -> Iterator[dict[str, fake.Behaviour]]:
    """TensorRT is installed and builds plans in no time; gives what it was asked, by network."""
    seen: dict[str, fake.Behaviour] = {}
    made: dict[str, NetworkSpec] = {}

    def build(model: bytes | Path, spec: NetworkSpec, options: Any, *, progress: Any = None) -> bytes:
        content = model if isinstance(model, bytes) else model.read_bytes()
        made[hashlib.sha256(content).hexdigest()] = spec
        return content

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, content: bytes) -> _Engine:
            spec = made[hashlib.sha256(content).hexdigest()]
            behaviour = fake.Behaviour(spec, largest=spec.max_batch, scratch=SCRATCH)
            return _Engine(seen.setdefault(spec.name, behaviour), content)

    module = fake.module(fake.Behaviour(NetworkSpec("none", "", (), (), 1, {}, 0.0, "", "")))
    module.Runtime = Runtime
    watch.logger.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "tensorrt", module)
        patch.setattr(provision, "build_plan", build)
        patch.setattr(provision, "current_environment", lambda trt, ordinal: ENVIRONMENT)
        yield seen
    watch.logger.cache_clear()
