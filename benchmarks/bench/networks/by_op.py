"""Where time goes inside a network: ONNX Runtime's profiler, by node, operator and PyTorch module.

The profiled session has the settings of our CPU engine, so the graph is the one it runs: fused, and with
blocked layouts where ONNX Runtime chose them. A fused node is attributed to the node of the exported graph
whose output it writes; a convolution that swallowed its activation keeps the convolution's module. Profiling
costs some time itself: shares and GFLOP/s are to be read, whole milliseconds are not comparable with
unprofiled ones.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.benchmarks.bench.networks.cost import NetworkCost, NodeCost, macs_of
from dubstream.benchmarks.bench.networks.sessions import cpu_session
from dubstream.engines.errors import InternalError

_SUFFIX = "_kernel_time"
_BLOCKED = "_nchwc"  # how ONNX Runtime calls a node it moved to its blocked layout
_FUSED_NAME, _FUSED = "fused ", "Fused"
NO_MODULE = "(no module)"


@dataclass(frozen=True)
class NodeTime:
    """One node of the optimised graph.

    Attributes:
        name: as ONNX Runtime calls it.
        operator: of the optimised graph, e.g. ``Conv`` or ``ReorderOutput``.
        module: path of the PyTorch module; empty where nothing tells.
        shapes: of inputs and first output, for people.
        samples_ms: one figure per run, in order.
        macs: multiply-accumulates of the batch.
        nbytes: activations in and out, and parameters.
    """

    name: str
    operator: str
    module: str
    shapes: str
    samples_ms: tuple[float, ...]
    macs: int
    nbytes: int

    @property
    def ms(self) -> float:
        """Median of the runs."""
        return float(np.median(self.samples_ms))


@dataclass(frozen=True)
class Group:
    """Nodes that are shown as one line.

    Attributes:
        name: what they have in common.
        nodes: how many.
        ms: sum of their medians.
        share: of all nodes' time.
        gmacs: 1e9 multiply-accumulates.
        gflops: achieved; None for nodes that multiply no matrices.
        gbytes_s: achieved, by the traffic of nodes that share nothing.
    """

    name: str
    nodes: int
    ms: float
    share: float
    gmacs: float
    gflops: float | None
    gbytes_s: float

    def as_json(self) -> dict[str, Any]:
        """Plain and JSON-serialisable."""
        return dict(vars(self))


def profile(
    model: Path,
    inputs: Mapping[str, npt.NDArray[Any]],
    cost: NetworkCost,
    *,
    threads: int,
    repeats: int,
) -> list[NodeTime]:
    """Run a verified ONNX file on the CPU under ONNX Runtime's profiler; slowest node first.

    Args:
        model: the file.
        inputs: one batch by tensor name.
        cost: of that model, which tells the modules of its nodes.
        threads: of one run.
        repeats: runs that count; one more goes before them.

    Raises:
        DeviceError: ONNX Runtime is missing or installed twice.
        InternalError: the profile holds no nodes.
    """
    with tempfile.TemporaryDirectory(prefix="dubstream-profile-") as folder:
        session = cpu_session(model, threads, profile=Path(folder) / "profile")
        for _ in range(repeats + 1):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = _nodes(events, _Graph(cost), repeats)
    if not nodes:
        raise InternalError(f"ONNX Runtime's profile of {model.name} holds no nodes")
    return sorted(nodes, key=lambda node: -node.ms)


def by_operator(nodes: Iterable[NodeTime]) -> list[Group]:
    """Slowest operator first."""
    return _grouped(list(nodes), lambda node: node.operator)


def by_module(nodes: Iterable[NodeTime], depth: int = 3) -> list[Group]:
    """Modules down to `depth` names below the network, slowest first."""
    return _grouped(list(nodes), lambda node: ".".join(node.module.split(".")[:depth]) or NO_MODULE)


def by_node(nodes: Iterable[NodeTime]) -> list[Group]:
    """Every node for itself, slowest first: operator, module, shapes."""
    labelled = list(nodes)
    return _grouped(labelled, lambda node: f"{node.operator} {node.module or node.name} {node.shapes}")


def _grouped(nodes: Sequence[NodeTime], key: Callable[[NodeTime], str]) -> list[Group]:
    members: dict[str, list[NodeTime]] = defaultdict(list)
    for node in nodes:
        members[key(node)].append(node)
    whole = sum(node.ms for node in nodes) or 1.0
    groups = [_group(name, found, whole) for name, found in members.items()]
    return sorted(groups, key=lambda group: -group.ms)


def _group(name: str, nodes: Sequence[NodeTime], whole_ms: float) -> Group:
    ms, macs = sum(node.ms for node in nodes), sum(node.macs for node in nodes)
    seconds = max(ms, 1e-6) / 1000
    return Group(
        name,
        len(nodes),
        ms,
        ms / whole_ms,
        macs / 1e9,
        2 * macs / seconds / 1e9 if macs else None,
        sum(node.nbytes for node in nodes) / seconds / 1e9,
    )


class _Graph:
    """Finds the exported node that a node of the optimised graph does the work of."""

    def __init__(self, cost: NetworkCost) -> None:
        self._by_name = {node.name: node for node in cost.nodes if node.name}
        self._by_output = {name: node for node in cost.nodes for name in node.outputs}

    def origin(self, name: str, operator: str) -> NodeCost | None:
        """None for nodes ONNX Runtime put in, e.g. reorderings of memory."""
        plain = name.removesuffix(_BLOCKED).removeprefix(_FUSED_NAME).partition("/")[0]
        node = self._by_name.get(plain) or self._by_output.get(plain)
        # A fused node bears the name of the last node it swallowed; the work is the first one's.
        while node is not None and node.operator != operator.removeprefix(_FUSED) and node.inputs:
            before = self._by_output.get(node.inputs[0])
            if before is None or not before.module.startswith(node.module):
                break
            node = before
        return node


def _nodes(events: Iterable[Mapping[str, Any]], graph: _Graph, repeats: int) -> list[NodeTime]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_SUFFIX):
            found[event["name"], event["args"].get("node_index", "")].append(event)
    return [_node(name.removesuffix(_SUFFIX), runs[-repeats:], graph) for (name, _), runs in found.items()]


def _node(name: str, runs: Sequence[Mapping[str, Any]], graph: _Graph) -> NodeTime:
    facts = runs[0]["args"]
    operator = str(facts["op_name"])
    inputs, outputs = _shapes(facts["input_type_shape"]), _shapes(facts["output_type_shape"])
    origin = graph.origin(name, operator)
    # Weights that were packed beforehand are in no event, so the exported node counts better.
    counted = origin is not None and origin.macs > 0 and origin.operator == operator.removeprefix(_FUSED)
    sizes = (int(facts.get(key, 0)) for key in ("activation_size", "parameter_size", "output_size"))
    shown = ", ".join("x".join(map(str, shape)) for shape in inputs[:2])
    return NodeTime(
        name,
        operator,
        "" if origin is None else origin.module,
        f"{shown} -> {'x'.join(map(str, outputs[0])) if outputs else '?'}",
        tuple(run["dur"] / 1000 for run in runs),
        origin.macs
        if origin is not None and counted
        else macs_of(operator, inputs, outputs[0])
        if outputs
        else 0,
        origin.nbytes if origin is not None and counted else sum(sizes),
    )


def _shapes(entries: Iterable[Mapping[str, Sequence[int]]]) -> list[tuple[int, ...]]:
    """``[{"float": [1, 3]}, ...]`` as tuples."""
    return [tuple(shape) for entry in entries for shape in entry.values()]
