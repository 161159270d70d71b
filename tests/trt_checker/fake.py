"""A stand-in `tensorrt` for what cannot run without a GPU: contexts and their calls, recorded.

It has the documented names of TensorRT 10.13+ and 11.x that the executor uses, and nothing else, so a call to
anything removed in 11 is an AttributeError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from dubstream.engines.contract import BATCH, NetworkSpec

NAMES = {"float32": "FLOAT", "float16": "HALF", "uint8": "UINT8"}


@dataclass
class Behaviour:
    """What the stand-in does.

    Attributes:
        spec: tensors of the engine.
        largest: largest batch of its profile.
        scratch: bytes it asks for.
        refuse: names of calls that return False.
        reject: plan bytes that deserialise to None.
        active_profile: profile of a fresh context.
        unspecified: what `infer_shapes` answers.
    """

    spec: NetworkSpec
    largest: int = 8
    scratch: int = 4096
    refuse: set[str] = field(default_factory=set)
    reject: set[bytes] = field(default_factory=set)
    active_profile: int = 0
    unspecified: list[str] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def record(self, name: str, *arguments: Any) -> bool:
        self.calls.append((name, *arguments))
        return name not in self.refuse

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


class _Context:
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.active_optimization_profile = behaviour.active_profile

    def set_device_memory(self, address: int, nbytes: int) -> None:
        self._behaviour.record("set_device_memory", address, nbytes)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return self._behaviour.record("set_optimization_profile_async", index, stream)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._behaviour.record("set_input_shape", name, shape)

    def infer_shapes(self) -> list[str]:
        self._behaviour.record("infer_shapes")
        return self._behaviour.unspecified

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._behaviour.record("set_tensor_address", name, address)

    def execute_async_v3(self, stream: int) -> bool:
        return self._behaviour.record("execute_async_v3", stream)


class _Engine:
    def __init__(self, behaviour: Behaviour, content: bytes) -> None:
        spec = behaviour.spec
        self._behaviour = behaviour
        self._tensors = {tensor.name: tensor for tensor in spec.inputs + spec.outputs}
        self._inputs = {tensor.name for tensor in spec.inputs}
        self.content = content
        self.num_io_tensors = len(self._tensors)
        self.device_memory_size_v2 = behaviour.scratch

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name in self._inputs else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=NAMES[self._tensors[name].dtype])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if axis == BATCH else int(axis) for axis in self._tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [self._tensors[name].concrete(batch) for batch in (1, 2, self._behaviour.largest)]

    def create_execution_context(self, strategy: str) -> _Context | None:
        return (
            _Context(self._behaviour)
            if self._behaviour.record("create_execution_context", strategy)
            else None
        )


def module(behaviour: Behaviour, version: str = "11.4.0.106") -> Any:
    """The stand-in module."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
            behaviour.record("deserialize_cuda_engine", content)
            return None if content in behaviour.reject else _Engine(behaviour, content)

    made = ModuleType("tensorrt")
    made.__dict__.update(
        __version__=version,
        ILogger=type("ILogger", (), {"__init__": lambda self: None}),
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        get_nv_onnx_parser_version=lambda: 110400,
    )
    return made


class Memory:
    """A device array without a device: shape, dtype, address."""

    def __init__(self, shape: tuple[int, ...], dtype: str, address: int) -> None:
        self.shape = shape
        self.dtype = dtype
        self.ptr = address
        self.nbytes = shape[0] if len(shape) == 1 else 0
        self.flags = SimpleNamespace(c_contiguous=True)
