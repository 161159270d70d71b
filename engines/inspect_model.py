"""What an ONNX file computes, and in which precision: for `dubstream inspect` and tests of FP16 recipes."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubstream.engines.errors import ArtifactError, DeviceError

_ISLAND = "float32"
_HALVES = ("float16", "bfloat16")
_FLOATS = (_ISLAND, *_HALVES)


@dataclass(frozen=True)
class Cast:
    """One Cast node: its output's name, and the element types it converts between."""

    name: str
    source: str
    target: str


@dataclass(frozen=True)
class ModelCensus:
    """Counts over the nodes and weights of an ONNX graph.

    Attributes:
        opset: version of the ai.onnx operators.
        nbytes: size of the serialised model, without external data.
        tensors: "name: dtype shape" of every input and output.
        operators: nodes by operator and element type, e.g. ``("Conv", "float16")``.
        weights: bytes of constants by element type.
        casts: all Cast nodes between floating-point types.
        islands: in a half-precision graph, the connected groups of nodes that compute in float32, as
            operator counts; empty in a float32 graph.
    """

    opset: int
    nbytes: int
    tensors: tuple[str, ...]
    operators: dict[tuple[str, str], int]
    weights: dict[str, int]
    casts: tuple[Cast, ...]
    islands: tuple[dict[str, int], ...]

    def dtypes(self) -> dict[str, int]:
        """Nodes by the element type of their first output."""
        counts: Counter[str] = Counter()
        for (_, dtype), count in self.operators.items():
            counts[dtype] += count
        return dict(counts)


def inspect_model(model: Path | bytes) -> ModelCensus:
    """Take the census of an ONNX model.

    Raises:
        ArtifactError: not an ONNX model.
        DeviceError: the onnx package is not installed.
    """
    onnx = _onnx()
    content = model if isinstance(model, bytes) else model.read_bytes()
    try:
        proto = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    except Exception as error:  # protobuf's and onnx's errors share no base
        raise ArtifactError(f"not an ONNX model: {error}") from error
    graph = proto.graph
    if not graph.output:
        raise ArtifactError("not an ONNX model: its graph has no output")
    types = _types(onnx, graph)
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    return ModelCensus(
        opset=max((entry.version for entry in proto.opset_import if entry.domain == ""), default=0),
        nbytes=len(content),
        tensors=tuple(_tensor(onnx, value) for value in [*graph.input, *graph.output]),
        operators=dict(Counter((node.op_type, _type(types, node.output)) for node in nodes)),
        weights=_weights(onnx, graph),
        casts=tuple(_casts(nodes, types)),
        islands=tuple(_islands(nodes, types)),
    )


def _onnx() -> Any:
    try:
        importlib.import_module("onnx.shape_inference")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise DeviceError("onnx is not installed", hint="pip install 'dubstream[export]'") from error


def _types(onnx: Any, graph: Any) -> dict[str, str]:
    """Element type, by numpy's name, of every tensor whose type is known."""
    types = {value.name: _name(onnx, value) for value in [*graph.input, *graph.value_info, *graph.output]}
    types |= {weight.name: _numpy_name(onnx, weight.data_type) for weight in graph.initializer}
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        for attribute in node.attribute:
            if attribute.name == "value":
                types[node.output[0]] = _numpy_name(onnx, attribute.t.data_type)
    return types


def _name(onnx: Any, value: Any) -> str:
    return _numpy_name(onnx, value.type.tensor_type.elem_type)


def _numpy_name(onnx: Any, element: int) -> str:
    name = str(onnx.TensorProto.DataType.Name(element)).lower()
    return {"float": "float32", "double": "float64", "undefined": "unknown"}.get(name, name)


def _type(types: dict[str, str], names: Iterable[str]) -> str:
    return next((types[name] for name in names if name in types), "unknown")


def _tensor(onnx: Any, value: Any) -> str:
    axes = ", ".join(axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim)
    return f"{value.name}: {_name(onnx, value)} ({axes})"


def _weights(onnx: Any, graph: Any) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for weight in graph.initializer:
        count = 1
        for length in weight.dims:
            count *= length
        sizes[_numpy_name(onnx, weight.data_type)] += (
            count * onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
        )
    return dict(sizes)


def _casts(nodes: list[Any], types: dict[str, str]) -> Iterable[Cast]:
    for node in nodes:
        if node.op_type == "Cast":
            cast = Cast(node.output[0], _type(types, node.input), _type(types, node.output))
            if {cast.source, cast.target} <= set(_FLOATS):
                yield cast


def _islands(nodes: list[Any], types: dict[str, str]) -> list[dict[str, int]]:
    """Groups of float32 nodes that feed one another, largest first."""
    if not any(_type(types, node.output) in _HALVES for node in nodes):
        return []
    inside = [node for node in nodes if node.op_type != "Cast" and _type(types, node.output) == _ISLAND]
    group_of: dict[str, int] = {}  # tensor name -> group
    groups: dict[int, list[Any]] = {}
    for index, node in enumerate(inside):
        groups[index] = [node]
        for joined in {group_of[name] for name in node.input if name in group_of}:
            groups[index] += groups.pop(joined)
        for member in groups[index]:
            group_of |= dict.fromkeys(member.output, index)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [dict(Counter(node.op_type for node in members)) for members in ordered]
