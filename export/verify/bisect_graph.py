"""An ONNX graph that can be cut anywhere: which node makes a tensor, in which module, and models of parts."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from dubstream.export.fidelity import Array

_SCOPES = "pkg.torch.onnx.name_scopes"
_LARGE = 4096  # bytes; smaller weights may be shapes and axes, which have to be in the model

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Part:
    """A part of a graph, with its weights still where they were.

    Attributes:
        model: the part; large weights have a name and a type, but no values.
        weights: the values of these.
        feeds: the inputs it was made for.
        outputs: names of what it computes.
    """

    model: onnx.ModelProto
    weights: Mapping[str, TensorProto]
    feeds: dict[str, Array]
    outputs: tuple[str, ...]

    def whole(self) -> onnx.ModelProto:
        """The part with everything in it, for a backend that takes a model only."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        for weight in copy.graph.initializer:
            weight.CopyFrom(self.weights.get(weight.name, weight))
        return copy


Load = Callable[[Part], Callable[[Feeds], dict[str, Array]]]
"""Makes a part ready to run; what comes back takes inputs by name and returns all outputs by name."""


def onnx_runtime(threads: int = 1, *, optimised: bool = False) -> Load:
    """ONNX Runtime on the CPU; `optimised` False: every node is run as it stands."""

    def load(part: Part) -> Callable[[Feeds], dict[str, Array]]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")  # it runs once
        # Handed over where they are: half a gigabyte need not be copied a dozen times.
        held = {name: numpy_helper.to_array(weight) for name, weight in part.weights.items()}
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in held.values()]
        options.add_external_initializers(list(held), values)
        session = ort.InferenceSession(
            part.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

        def run(feeds: Feeds) -> dict[str, Array]:
            assert held.keys() == part.weights.keys()  # they have to live as long as the session
            return dict(zip(part.outputs, session.run(part.outputs, dict(feeds)), strict=True))

        return run

    return load


class Graph:
    """Index of a model whose nodes stand in an order of computation and hold no graphs of their own.

    Attributes:
        model: the model.
        nodes: its nodes, in order.
        maker: tensor to the position of the node that makes it.
        weights: initializers by name.
        inputs, outputs: names of the tensors that come from outside and go outside.
        scopes: per node the dotted paths of the PyTorch modules it is in, from the whole network, "",
            inwards. A node that the clean-up made has none of its own and gets those of the node before it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.nodes = list(graph.node)
        self.maker = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self._readers: dict[str, list[int]] = {}
        for at, node in enumerate(self.nodes):
            for name in node.input:
                self._readers.setdefault(name, []).append(at)
        self.weights = {weight.name: weight for weight in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.weights]
        self.outputs = [value.name for value in graph.output]
        self._declared = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        self.scopes: list[tuple[str, ...]] = []
        for node in self.nodes:
            self.scopes.append(_scopes_of(node) or self._scopes_before(node))

    def _scopes_before(self, node: onnx.NodeProto) -> tuple[str, ...]:
        before = [self.maker[name] for name in node.input if name in self.maker]
        return self.scopes[before[0]] if before else ()

    def module_of(self, tensor: str) -> str:
        """Path of the innermost module that makes the tensor; "" for an input and outside all modules."""
        scopes = self.scopes[self.maker[tensor]] if tensor in self.maker else ()
        return scopes[-1] if scopes else ""

    def lives_after(self, tensor: str, position: int) -> bool:
        """Whether the tensor is read from node `position` on, or is an output."""
        read = self.readers(tensor)
        return tensor in self.outputs or bool(read and read[-1] >= position)

    def readers(self, tensor: str) -> list[int]:
        """Positions of the nodes that read the tensor, in order."""
        return self._readers.get(tensor, [])

    def shape_of(self, tensor: str) -> tuple[int | None, ...] | None:
        """Declared axis lengths, None for a symbolic one; None where nothing is declared."""
        if tensor not in self._declared:
            return None
        declared = self._declared[tensor].type.tensor_type
        if not declared.HasField("shape"):
            return None
        return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in declared.shape.dim)

    def way(self, targets: Iterable[str], given: Iterable[str]) -> tuple[list[int], set[str]]:
        """Nodes that compute `targets` from `given` tensors, in order, and which of these they need."""
        stop, open_, seen = set(given), list(targets), set[str]()
        nodes, needed = set[int](), set[str]()
        while open_:
            name = open_.pop()
            if name in seen or not name or name in self.weights:
                continue
            seen.add(name)
            if name in stop:
                needed.add(name)
                continue
            at = self.maker[name]
            nodes.add(at)
            open_ += self.nodes[at].input
        return sorted(nodes), needed

    def part(self, targets: Iterable[str], given: Feeds) -> Part:
        """What computes `targets` from tensors in `given`.

        A tensor that is given is taken as it is, and goes in with the type this graph declares for it.
        """
        wanted = tuple(dict.fromkeys(targets))
        at, needed = self.way(wanted, given)
        feeds = {name: self._typed(name, given[name]) for name in sorted(needed)}
        used = {name for position in at for name in self.nodes[position].input}
        weights = {name: weight for name, weight in self.weights.items() if name in used}
        large = {name: weight for name, weight in weights.items() if _is_large(weight)}
        graph = helper.make_graph(
            [self.nodes[position] for position in at],
            "part",
            [_value(name, array) for name, array in feeds.items()],
            [helper.make_empty_tensor_value_info(name) for name in wanted],
            [_without_values(weight) if name in large else weight for name, weight in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        model.ir_version = self.model.ir_version
        return Part(model, large, feeds, wanted)

    def _typed(self, name: str, array: Array) -> Array:
        kind = self._declared[name].type.tensor_type.elem_type if name in self._declared else 0
        return np.asarray(array, helper.tensor_dtype_to_np_dtype(kind)) if kind else array


def _value(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _is_large(weight: TensorProto) -> bool:
    return weight.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16) and weight.ByteSize() > _LARGE


def _without_values(weight: TensorProto) -> TensorProto:
    stub = TensorProto(name=weight.name, dims=weight.dims, data_type=weight.data_type)
    stub.data_location = TensorProto.EXTERNAL
    stub.external_data.add(key="location", value="held")
    return stub


def _scopes_of(node: onnx.NodeProto) -> tuple[str, ...]:
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return tuple(ast.literal_eval(entry.value)[:-1])  # the last one is the operation itself
    return ()
