"""What a network costs on paper: multiply-accumulates and bytes, counted from its ONNX graph.

Shapes alone are needed, so weights are dropped before shape inference: half a gigabyte is read once and
never copied.

| figure | what |
|---|---|
| macs | of Conv, ConvTranspose, MatMul and Gemm; everything else is bandwidth |
| least bytes | weights, and the network's own inputs and outputs, once each: no engine moves fewer |
| traffic | inputs and outputs of every node, once each: an engine that fuses nothing moves these |
"""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubstream.engines.errors import ArtifactError, DeviceError

Shape = tuple[int, ...]

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter keeps the modules a node came from."""

_UNSEEN = ("DFT", "STFT", "Einsum", "LSTM", "GRU", "RNN", "Attention", "ConvInteger", "MatMulInteger")
# A shape operator's constants (axes, scales) must stay: inference reads their values.
_SMALL = 1024


@dataclass(frozen=True)
class NodeCost:
    """One node of a graph.

    Attributes:
        name: the node's name.
        operator: ONNX operator.
        module: path of the PyTorch module it came from; empty where the graph does not say.
        outputs: names of its output tensors.
        inputs: names of its input tensors.
        macs: multiply-accumulates of the batch.
        nbytes: inputs, weights among them, and outputs.
    """

    name: str
    operator: str
    module: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    macs: int
    nbytes: int


@dataclass(frozen=True)
class NetworkCost:
    """One network at one batch.

    Attributes:
        batch: items.
        macs: multiply-accumulates of the whole batch.
        weight_bytes: of all constants.
        edge_bytes: of the network's inputs and outputs.
        traffic_bytes: sum over the nodes; see the module.
        uncounted: operators that multiply in a way nobody counts here, e.g. ``DFT``.
        nodes: in graph order.
    """

    batch: int
    macs: int
    weight_bytes: int
    edge_bytes: int
    traffic_bytes: int
    uncounted: tuple[str, ...]
    nodes: tuple[NodeCost, ...]

    @property
    def gmacs(self) -> float:
        """1e9 multiply-accumulates of the batch."""
        return self.macs / 1e9

    @property
    def least_bytes(self) -> int:
        """Weights, inputs and outputs, once each."""
        return self.weight_bytes + self.edge_bytes

    def least_seconds(self, flops: float, bandwidth: float) -> float:
        """The roofline: the time no engine can beat at `flops` operations/s and `bandwidth` bytes/s."""
        return max(2 * self.macs / flops, self.least_bytes / bandwidth)


def network_cost(model: Path | bytes, batch: int) -> NetworkCost:
    """Count a network whose only symbolic axis is the batch, axis 0 of every input.

    Raises:
        ArtifactError: not an ONNX model, or one whose shapes cannot be inferred.
        DeviceError: the onnx package is not installed.
    """
    onnx = import_onnx()
    try:
        proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
        weights = sum(_tensor_bytes(onnx, weight) for weight in proto.graph.initializer)
        edges = {value.name for value in [*proto.graph.input, *proto.graph.output]}
        tensors = _tensors(onnx, proto, batch)
    except Exception as error:  # protobuf's and onnx's errors share no base
        raise ArtifactError(f"the costs of the model cannot be counted: {error}") from error
    nodes = tuple(_node_cost(node, tensors) for node in proto.graph.node if node.op_type != "Constant")
    return NetworkCost(
        batch=batch,
        macs=sum(node.macs for node in nodes),
        weight_bytes=weights,
        edge_bytes=sum(tensors[name].nbytes for name in edges),
        traffic_bytes=sum(node.nbytes for node in nodes),
        uncounted=tuple(sorted({node.operator for node in nodes} & set(_UNSEEN))),
        nodes=nodes,
    )


def macs_of(operator: str, inputs: Sequence[Shape], output: Shape) -> int:
    """Multiply-accumulates of one node; 0 for operators that multiply no matrices.

    Args:
        operator: ONNX's name, or that of one of ONNX Runtime's fused forms.
        inputs: shapes of the inputs, at least two.
        output: shape of the first output.
    """
    counted = _COUNTED.get(operator)
    return 0 if counted is None or len(inputs) < 2 else counted(inputs[0], inputs[1], output)


def _convolution(x: Shape, weight: Shape, output: Shape) -> int:
    return math.prod(output) * math.prod(weight[1:])


def _transposed(x: Shape, weight: Shape, output: Shape) -> int:
    return math.prod(x) * math.prod(weight[1:])


def _product(left: Shape, right: Shape, output: Shape) -> int:
    # Fused forms may take the left side transposed; then its last axis is one of the output's.
    inner = left[-1] if len(left) < 2 or left[-2] == output[-2] else left[-2]
    return math.prod(output) * inner


def _affine(left: Shape, right: Shape, output: Shape) -> int:
    return math.prod(left) * output[-1]


_COUNTED: Mapping[str, Callable[[Shape, Shape, Shape], int]] = {
    "Conv": _convolution,
    "FusedConv": _convolution,
    "ConvTranspose": _transposed,
    "MatMul": _product,
    "FusedMatMul": _product,
    "Gemm": _affine,
    "FusedGemm": _affine,
}


@dataclass(frozen=True)
class _Tensor:
    shape: Shape
    item_bytes: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.item_bytes


def import_onnx() -> Any:
    """The onnx package with its submodules; `DeviceError` where it is not installed."""
    try:
        for part in ("shape_inference", "numpy_helper"):
            importlib.import_module(f"onnx.{part}")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise DeviceError("onnx is not installed", hint="pip install 'dubstream[report]'") from error


def _tensor_bytes(onnx: Any, tensor: Any) -> int:
    return _item(onnx, tensor.data_type) * int(math.prod(tensor.dims))


def _tensors(onnx: Any, proto: Any, batch: int) -> dict[str, _Tensor]:
    """Every tensor with a known shape; large weights of `proto` become inputs, its batch a number."""
    graph = proto.graph
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    large = [weight for weight in graph.initializer if math.prod(weight.dims) > _SMALL]
    graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        for weight in large
    )
    kept = [weight for weight in graph.initializer if math.prod(weight.dims) <= _SMALL]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    found = {weight.name: _Tensor(tuple(weight.dims), _item(onnx, weight.data_type)) for weight in kept}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(axis.HasField("dim_value") for axis in kind.shape.dim):
            shape = tuple(axis.dim_value for axis in kind.shape.dim)
            found[value.name] = _Tensor(shape, _item(onnx, kind.elem_type))
    return found


def _item(onnx: Any, element: int) -> int:
    size: int = onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
    return size


def _node_cost(node: Any, tensors: Mapping[str, _Tensor]) -> NodeCost:
    names = [name for name in node.input if name]
    if node.op_type in _COUNTED and any(name not in tensors for name in [*names, *node.output]):
        raise ArtifactError(f"the costs of '{node.name}' cannot be counted: its shapes are not known")
    known = [tensors[name] for name in [*names, *node.output] if name in tensors]
    shapes = [tensors[name].shape for name in names if name in tensors]
    output = tensors[node.output[0]].shape if node.output[0] in tensors else ()
    return NodeCost(
        node.name,
        node.op_type,
        module_of(node),
        tuple(node.output),
        tuple(names),
        macs_of(node.op_type, shapes, output),
        sum(tensor.nbytes for tensor in known),
    )


def module_of(node: Any) -> str:
    """Path of the PyTorch module an ONNX node came from; empty where its notes do not say."""
    for note in node.metadata_props:
        if note.key == SCOPES:
            try:
                # Modules from the outermost to the innermost, then the operation's own name.
                return str(ast.literal_eval(note.value)[-2])
            except (ValueError, SyntaxError, IndexError, TypeError):
                return ""
    return ""
