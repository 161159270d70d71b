"""Copies of a half-precision ONNX graph that tell what its numbers do.

ONNX Runtime's CPU provider computes half precision in float32, over whole stretches of a graph: it neither
overflows nor rounds where a GPU would. So the graph is copied with every half-precision type widened to
float32, and what is asked for is built into the copy: the largest magnitude of every tensor that is half
precision in the original, or a rounding of each of them to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_SCOPES = "pkg.torch.onnx.name_scopes"
_PEAK = "peak/"
_TWIN = "twin/"


@dataclass(frozen=True)
class HalfTensor:
    """A tensor that is half precision in the original graph.

    Attributes:
        name: its name in the graph.
        node: name and operator of the node that makes it; "input" for a graph input.
        module: dotted path of the PyTorch module the node came from, "" where it is not known.
    """

    name: str
    node: str
    module: str


def half_tensors(model: onnx.ModelProto) -> list[HalfTensor]:
    """Inputs and results of nodes that are half precision, in the order of computation."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    half = {value.name for value in values if value.type.tensor_type.elem_type in _HALVES}
    found = [HalfTensor(value.name, "input", "") for value in graph.input if value.name in half]
    for node in graph.node:
        found += [_described(node, name) for name in node.output if name in half]
    return found


def peaks_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The widened copy with one scalar output per half-precision tensor, named by `peak_name`.

    It is the largest magnitude, or NaN where the tensor holds a NaN or an infinity.
    """
    tensors, copy = half_tensors(model), _widened(model)
    graph = copy.graph
    del graph.output[:]
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), f"{_PEAK}zero"))
    for tensor in tensors:
        nodes, output = _peak_nodes(tensor.name)
        graph.node.extend(nodes)
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return copy


def peak_name(tensor: HalfTensor) -> str:
    """The output of `peaks_model` that tells about `tensor`."""
    return f"{_PEAK}{tensor.name}"


def rounding_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The widened copy that rounds every half-precision tensor to its type once.

    This is what a GPU does that fuses nothing and accumulates in float32. Inputs are expected in float32
    with values of the half-precision type, outputs are the same.
    """
    copy = _widened(model)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    copy.graph.node.extend(_rounded(nodes, _half_types(model)))
    return copy


def divergence_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The widened graph and its rounding copy side by side, on the same inputs.

    One scalar output per half-precision tensor, named by `peak_name`: the norm of the difference over
    the norm of the unrounded one.
    """
    copy, kinds = _widened(model), _half_types(model)
    graph = copy.graph
    made = {name for node in graph.node for name in node.output}
    twins = [_renamed(node, made) for node in graph.node]
    graph.node.extend(_rounded(twins, {f"{_TWIN}{name}": kind for name, kind in kinds.items()}))
    del graph.output[:]
    for name in kinds:
        wrong, off, size, output = (f"{_PEAK}{step}{name}" for step in ("wrong/", "off/", "size/", ""))
        graph.node.extend(
            [
                helper.make_node("Sub", [name, f"{_TWIN}{name}"], [wrong]),
                helper.make_node("ReduceL2", [wrong], [off], keepdims=0),
                helper.make_node("ReduceL2", [name], [size], keepdims=0),
                helper.make_node("Div", [off, size], [output]),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return copy


def _rounded(nodes: Sequence[onnx.NodeProto], kinds: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
    """The nodes, each result in `kinds` cast to that type and back."""
    for node in nodes:
        casts = []
        for index, name in enumerate(node.output):
            if name in kinds:
                node.output[index] = f"{name}/wide"
                casts.append(helper.make_node("Cast", [f"{name}/wide"], [f"{name}/half"], to=kinds[name]))
                casts.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
        yield node
        yield from casts


def _renamed(node: onnx.NodeProto, made: Set[str]) -> onnx.NodeProto:
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.name = f"{_TWIN}{node.name}"
    for names in (twin.input, twin.output):
        for index, name in enumerate(names):
            if name in made:
                names[index] = f"{_TWIN}{name}"
    return twin


def _half_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of the half-precision results of nodes."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    made = [name for node in graph.node for name in node.output]  # weights may have a type there, too
    return {name: kinds[name] for name in made if kinds.get(name) in _HALVES}


def _described(node: onnx.NodeProto, name: str) -> HalfTensor:
    properties = {entry.key: entry.value for entry in node.metadata_props}
    # The innermost module is the last scope; the node's own name follows it.
    scopes = [scope for scope in _names(properties.get(_SCOPES, "")) if scope]
    return HalfTensor(name, f"{node.name or name} ({node.op_type})", scopes[-2] if len(scopes) > 1 else "")


def _names(scopes: str) -> list[str]:
    return [part.strip(" '\"") for part in scopes.strip("[]").split(",")]


def _peak_nodes(name: str) -> tuple[list[onnx.NodeProto], str]:
    # ReduceMax passes over NaN, a sum does not; and zero times an infinite sum is NaN.
    sizes, most, total, trap, output = (
        f"{_PEAK}{step}{name}" for step in ("sizes/", "most/", "total/", "trap/", "")
    )
    nodes = [
        helper.make_node("Abs", [name], [sizes]),
        helper.make_node("ReduceMax", [sizes], [most], keepdims=0),
        helper.make_node("ReduceSum", [sizes], [total], keepdims=0),
        helper.make_node("Mul", [total, f"{_PEAK}zero"], [trap]),
        helper.make_node("Add", [most, trap], [output]),
    ]
    return nodes, output


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every half-precision type is float32; names stay."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for value in [*graph.input, *graph.value_info, *graph.output]:
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for weight in graph.initializer:
        _widen_tensor(weight)
    for attribute in _attributes(graph.node):
        if attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
        elif attribute.name == "to" and attribute.i in _HALVES:
            attribute.i = TensorProto.FLOAT
    return copy


def _attributes(nodes: Sequence[Any]) -> Iterator[onnx.AttributeProto]:
    for node in nodes:
        yield from node.attribute


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _HALVES:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
