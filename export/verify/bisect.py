"""What is wrong first along a graph: in a model against another, in an executor, in half precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx

from dubstream.export.fidelity import Array
from dubstream.export.half_graph import peaks_model, rounding_model
from dubstream.export.verify.bisect_graph import Feeds, Graph, Load, onnx_runtime
from dubstream.export.verify.bisect_search import Bisection, Fault, Noise, Reference

NOISE = {
    # Backends sum the thousands of products of a convolution in different orders: dozens of units. Over the
    # whole of D-Net that is 2e-5 between PyTorch and ONNX Runtime; what fails a link is far more.
    "fp32": Noise(2.0**-24, 5e-5, 64.0),
    "fp16": Noise(2.0**-11, 2e-3, 8.0),
    "bf16": Noise(2.0**-8, 1.6e-2, 8.0),
}
"""By the precision of what is judged."""


class ModelReference:
    """An ONNX model on given inputs; a tensor of the same name in the same module is the same tensor.

    Args:
        model: the reference.
        inputs: by input name.
        load: what it runs in.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Feeds, load: Load) -> None:
        self._graph = Graph(model)
        self._inputs = dict(inputs)
        self._held: dict[str, Array] = dict(inputs)
        self._load = load

    def knows(self, graph: Graph) -> set[str]:
        outputs = set(graph.outputs)
        return {
            name
            for name in graph.maker.keys() & self._graph.maker.keys()
            if name in outputs or graph.module_of(name) == self._graph.module_of(name)
        }

    def values(self, names: Iterable[str]) -> dict[str, Array]:
        names = list(names)
        missing = [name for name in names if name not in self._held]
        if missing:
            part = self._graph.part(missing, self._held)
            self._held |= self._load(part)(part.feeds)
        return {name: self._held[name] for name in names}

    def keep(self, names: Iterable[str]) -> None:
        kept = {*names, *self._inputs}
        self._held = {name: array for name, array in self._held.items() if name in kept}


def first_fault(
    model: onnx.ModelProto,
    reference: Reference,
    inputs: Feeds,
    *,
    load: Load,
    noise: Noise,
    thorough: bool = True,
) -> Fault | None:
    """The first wrong tensor of a model that does not do what its reference does.

    Args:
        model: the model to judge.
        reference: knows what is right on the same inputs.
        inputs: by the model's input names.
        load: what the model, in parts, runs in.
        noise: what is nobody's fault in its precision.
        thorough: judge nodes one by one where halving finds nothing: a fault may be smaller than what the
            stretch around it makes of noise.

    Returns:
        None where no output is wrong by more than `noise.least`.
    """
    return Bisection(model, reference, inputs, load, noise, thorough).fault()


def model_fault(
    reference: onnx.ModelProto, model: onnx.ModelProto, inputs: Feeds, *, threads: int = 1
) -> Fault | None:
    """`first_fault` of a float32 model against another of mostly equal names, both in ONNX Runtime."""
    load = onnx_runtime(threads)
    return first_fault(model, ModelReference(reference, inputs, load), inputs, load=load, noise=NOISE["fp32"])


def executor_fault(
    model: onnx.ModelProto, inputs: Feeds, load: Load, *, threads: int = 1, precision: str = "fp32"
) -> Fault | None:
    """`first_fault` of one model in an executor against ONNX Runtime that runs every node as it stands.

    What an executor fuses it still fuses inside each part. A fault of a fused operator is therefore gone
    once a cut goes through it; the verdict is then ``"growth"``, at the end of what was fused.

    Args:
        model: the model.
        inputs: by input name.
        load: builds and runs parts of the model, as whole models with concrete shapes (`Part.whole`).
        threads: for ONNX Runtime.
        precision: whose noise is allowed.
    """
    reference = ModelReference(model, inputs, onnx_runtime(threads))
    return first_fault(model, reference, inputs, load=load, noise=NOISE[precision], thorough=False)


def half_fault(
    model: onnx.ModelProto, inputs: Feeds, *, threads: int = 1, precision: str = "fp16"
) -> Fault | None:
    """`first_fault` of a half-precision model's rounding, emulated, against the same weights in float32.

    ``"growth"`` is the usual verdict here; ``"node"`` says that one node alone leaves the precision, by an
    overflow, or by numbers that it rounds to zero.

    Args:
        inputs: with the types of the model's inputs.
    """
    wide = {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in inputs.items()
    }
    load = onnx_runtime(threads)
    rounded = rounding_model(model)
    reference = ModelReference(peaks_model(model), wide, load)  # its outputs apart, the graph in float32
    fault = first_fault(rounded, reference, wide, load=load, noise=NOISE[precision])
    return None if fault is None else _as_in(Graph(model), fault)


def _as_in(graph: Graph, fault: Fault) -> Fault:
    """The fault with the node of the original graph in place of the one that rounds its result."""
    at = graph.maker.get(fault.tensor)
    if at is None:
        return fault
    node = graph.nodes[at]
    return replace(fault, node=node.name or fault.tensor, op=node.op_type, depth=at, nodes=len(graph.nodes))
