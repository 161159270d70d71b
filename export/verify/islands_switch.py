"""Float32 graphs in which roundings to half precision are built in, each with a switch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLAGS = "rounding"


@dataclass(frozen=True)
class Lost:
    """A weight whose rounding has a switch of its own.

    Attributes:
        reader: position of the node that reads it.
        place: which of the node's inputs it is.
    """

    reader: int
    place: int


def switched(
    model: onnx.ModelProto, tensors: Sequence[str], lost: Sequence[Lost], kind: int, *, round_weights: bool
) -> onnx.ModelProto:
    """A copy with an input more, `FLAGS`: what of `tensors`, and then of `lost`, is rounded.

    Args:
        model: a float32 model.
        tensors: results of nodes.
        lost: weights that are rounded or not, where they are read.
        kind: element type that is rounded to.
        round_weights: round all other weights of nodes that make `tensors`, too.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    nodes, chosen = list(graph.node), set(tensors)
    weights = {weight.name: weight for weight in graph.initializer}
    before: dict[int, list[onnx.NodeProto]] = {}
    for index, one in enumerate(lost, len(tensors)):
        node = nodes[one.reader]
        name = node.input[one.place]
        node.input[one.place] = f"{FLAGS}/weight/{index}"
        rounding = _rounding(graph, index, name, f"{FLAGS}/lost/{index}", node.input[one.place], kind)
        before.setdefault(one.reader, []).extend(rounding)
    if round_weights:
        for node in nodes:
            if chosen.intersection(node.output):
                _round_weights(graph, node, weights, kind)
    places = {name: index for index, name in enumerate(tensors)}
    del graph.node[:]
    for at, node in enumerate(nodes):
        after = []
        for place, name in enumerate(node.output):
            if name in chosen:
                node.output[place] = f"{name}/wide"
                after += _rounding(graph, places[name], f"{name}/wide", name, name, kind)
        graph.node.extend([*before.get(at, []), node, *after])
    graph.input.append(helper.make_tensor_value_info(FLAGS, TensorProto.BOOL, [len(tensors) + len(lost)]))
    _drop_unused(graph)
    return copy


def peaks_of(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """A copy whose outputs are the largest magnitudes of `tensors`, NaN for one that is not finite."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.output[:]
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "peak/zero"))
    for name in tensors:
        sizes, most, total, trap, output = (
            f"peak/{step}{name}" for step in ("sizes/", "most/", "total/", "trap/", "")
        )
        # ReduceMax passes over NaN, a sum does not; and zero times an infinite sum is NaN.
        graph.node.extend(
            [
                helper.make_node("Abs", [name], [sizes]),
                helper.make_node("ReduceMax", [sizes], [most], keepdims=0),
                helper.make_node("ReduceSum", [sizes], [total], keepdims=0),
                helper.make_node("Mul", [total, "peak/zero"], [trap]),
                helper.make_node("Add", [most, trap], [output]),
            ]
        )
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return copy


def _rounding(
    graph: onnx.GraphProto, index: int, wide: str, stem: str, name: str, kind: int
) -> list[onnx.NodeProto]:
    """Nodes that make `name` of `wide`: rounded if the flag says so."""
    place, flag = f"{FLAGS}/{index}", f"{FLAGS}/flag/{index}"
    graph.initializer.append(numpy_helper.from_array(np.array(index), place))
    return [
        helper.make_node("Cast", [wide], [f"{stem}/half"], to=kind),
        helper.make_node("Cast", [f"{stem}/half"], [f"{stem}/rounded"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [FLAGS, place], [flag], axis=0),
        helper.make_node("Where", [flag, f"{stem}/rounded", wide], [name]),
    ]


def _round_weights(
    graph: onnx.GraphProto, node: onnx.NodeProto, weights: dict[str, TensorProto], kind: int
) -> None:
    """Let the node read rounded copies of its float32 weights."""
    for place, name in enumerate(node.input):
        if name in weights and weights[name].data_type == TensorProto.FLOAT:
            rounded = f"{name}/rounded"
            if rounded not in weights:
                dtype = helper.tensor_dtype_to_np_dtype(kind)
                values = numpy_helper.to_array(weights[name]).astype(dtype).astype(np.float32)
                weights[rounded] = numpy_helper.from_array(values, rounded)
                graph.initializer.append(weights[rounded])
            node.input[place] = rounded


def _drop_unused(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
