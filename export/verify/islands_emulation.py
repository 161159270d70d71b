"""A half-precision network with emulated rounding that can be switched off module by module.

Only once is a session made, whatever is tried: what is rounded is an input of it. It is best made from the
network's float32 twin. The half-precision file itself has lost things that no island brings back: an epsilon
that rounds to zero, and with it the addition that clean-up then removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dubstream.export.fidelity import Array
from dubstream.export.half_graph import half_tensors, peaks_model
from dubstream.export.session import onnx_session
from dubstream.export.verify.bisect_graph import Graph
from dubstream.export.verify.bisect_search import relative_error
from dubstream.export.verify.islands_switch import FLAGS, Lost, peaks_of, switched

_WHOLE = frozenset({"", "core"})
"""The picture network and the network inside it: with either as an island nothing would be half precision."""

_ONE_ROUNDING: dict[int, float] = {TensorProto.FLOAT16: 2.0**-11, TensorProto.BFLOAT16: 2.0**-8}
"""Relative L2 that rounding costs at most where no number is lost."""


class Emulation:
    """Runs a network in float32 and rounds every half-precision result that is in no island.

    A result is in an island if the island makes it and nobody outside reads it: what leaves an island is
    rounded, as a cast at its exit does.

    Args:
        model: the half-precision model.
        threads: CPU threads.
        exact: its float32 twin: the same network with the same pictures around it.
    """

    def __init__(self, model: onnx.ModelProto, threads: int, exact: onnx.ModelProto | None = None) -> None:
        self._base = _widened(model) if exact is None else exact
        self._threads = threads
        graph, half = Graph(self._base), half_tensors(model)
        kind = _kind_of(model)
        made = [tensor.name for tensor in half if tensor.node != "input"]
        self._tensors = made if exact is None else list(_rounded_in(graph, model, set(made)))
        self._around = {name: _modules(graph, graph.maker[name]) for name in self._tensors}
        self._lost = [] if exact is None else list(_lost(graph, set(self._tensors), kind))
        holding = [_holding(graph, name) for name in self._tensors]
        self._inside = [*holding, *(frozenset(_modules(graph, one.reader)) for one in self._lost)]
        self._outputs = graph.outputs
        weights = exact is not None
        model = switched(self._base, self._tensors, self._lost, kind, round_weights=weights)
        self._session = onnx_session(model, threads, optimised=False)

    @property
    def tensors(self) -> Sequence[str]:
        """Results of nodes that are half precision, in the order of computation."""
        return self._tensors

    def module_of(self, tensor: str, level: int) -> str:
        """The module that makes a tensor, `level` modules further out than the innermost; "" for none."""
        around = self._around.get(tensor)
        return around[max(len(around) - 1 - level, 0)] if around else ""

    def modules_in(self, module: str) -> list[str]:
        """Modules directly inside a module, of those that make half-precision results."""
        found: dict[str, None] = {}
        for around in self._around.values():
            if module in around[:-1]:
                found[around[around.index(module) + 1]] = None
        return list(found)

    @property
    def depth(self) -> int:
        """How many modules stand in one another, at most."""
        return max(map(len, self._around.values()), default=0)

    def rounded(self, islands: Set[str]) -> list[str]:
        """The results that are rounded when these modules are islands."""
        return [
            name for name, modules in zip(self._tensors, self._inside, strict=False) if not modules & islands
        ]

    def run(self, islands: Set[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs in float32, with these modules as islands."""
        flags = np.array([not modules & islands for modules in self._inside])
        got = self._session.run(self._outputs, {**_fed(self._session, inputs), FLAGS: flags})
        return {name: array.astype(np.float32) for name, array in zip(self._outputs, got, strict=True)}

    def peaks(self, inputs: Mapping[str, Array]) -> dict[str, float]:
        """The largest magnitude of each of `tensors`, computed in float32; NaN where it is no number."""
        session = onnx_session(peaks_of(self._base, self._tensors), self._threads)
        got = session.run(None, _fed(session, inputs))
        return {name: float(peak) for name, peak in zip(self._tensors, got, strict=True)}


def _fed(session: object, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Half-precision inputs in float32 where the session takes them so."""
    wide = {value.name for value in session.get_inputs() if value.type == "tensor(float)"}  # type: ignore[attr-defined]
    return {name: array.astype(np.float32) if name in wide else array for name, array in inputs.items()}


def _kind_of(model: onnx.ModelProto) -> int:
    kinds = Counter(weight.data_type for weight in model.graph.initializer)
    return max(_ONE_ROUNDING, key=lambda kind: kinds[kind])


def _widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The half-precision model in float32, with the weights it has."""
    copy = peaks_model(model)
    kept, _ = Graph(copy).way(
        [value.name for value in model.graph.output], [value.name for value in copy.graph.input]
    )
    nodes = [copy.graph.node[at] for at in kept]
    del copy.graph.node[:], copy.graph.output[:]
    copy.graph.node.extend(nodes)
    copy.graph.output.extend(helper.make_empty_tensor_value_info(value.name) for value in model.graph.output)
    return copy


def _rounded_in(graph: Graph, model: onnx.ModelProto, half: Set[str]) -> Iterator[str]:
    """Float32 results of the twin that are half precision in the model.

    A result that the model has under the same name in the same module is as it is there. Any other is taken
    to be as most of its module is: an island is float32 but for what leaves it.
    """
    other = Graph(model)
    types = _types(model)
    own = _types(graph.model)
    halves = Counter(other.module_of(name) for name in half)
    wide = Counter(other.module_of(name) for name in other.maker if types.get(name) == TensorProto.FLOAT)
    for name in graph.maker:
        if own.get(name) != TensorProto.FLOAT:
            continue
        module = graph.module_of(name)
        if name in other.maker and other.module_of(name) == module and name in types:
            if name in half:
                yield name
        elif halves[module] >= wide[module]:
            yield name


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}


def _lost(graph: Graph, tensors: Set[str], kind: int) -> Iterator[Lost]:
    """Weights of rounded results that rounding changes by more than their last digits."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for at, node in enumerate(graph.nodes):
        if node.output[0] not in tensors:
            continue
        for place, name in enumerate(node.input):
            if name in graph.weights and graph.weights[name].data_type == TensorProto.FLOAT:
                value = numpy_helper.to_array(graph.weights[name])
                with np.errstate(over="ignore"):
                    rounded = value.astype(dtype).astype(np.float32)
                if relative_error(value, rounded) > _ONE_ROUNDING[kind]:
                    yield Lost(at, place)


def _modules(graph: Graph, node: int) -> list[str]:
    return [path for path in graph.scopes[node] if path not in _WHOLE]


def _holding(graph: Graph, tensor: str) -> frozenset[str]:
    """Modules that make the tensor and keep it."""
    if tensor in graph.outputs:
        return frozenset()
    inside = set(_modules(graph, graph.maker[tensor]))
    for reader in graph.readers(tensor):
        inside &= set(_modules(graph, reader))
    return frozenset(inside)
