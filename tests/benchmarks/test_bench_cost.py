"""Multiplications and bytes counted from graphs, against hands and against the specs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dubstream.benchmarks.bench.networks.cost import SCOPES, macs_of, module_of, network_cost
from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import ArtifactError


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    weights: dict[str, tuple[int, ...]],
    dtype: int = TensorProto.FLOAT,
) -> bytes:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.zeros(shape, kind), name) for name, shape in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return made.SerializeToString()


def test_a_chain_is_counted_by_hand() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="n1", group=2, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["a", "w2"], ["b"], name="n2", strides=[2, 2]),
        helper.make_node("Relu", ["b"], ["y"], name="n3"),
    ]
    weights = {"w1": (8, 2, 3, 3), "w2": (8, 5, 2, 2)}
    made = model(nodes, {"x": ["batch", 4, 6, 6]}, {"y": ["batch", 5, 12, 12]}, weights)
    cost = network_cost(made, 3)
    assert [node.macs for node in cost.nodes] == [3 * 8 * 36 * 2 * 9, 3 * 8 * 36 * 5 * 4, 0]
    assert cost.macs == sum(node.macs for node in cost.nodes)
    assert cost.weight_bytes == 4 * (8 * 2 * 9 + 8 * 5 * 4)
    edges = 4 * 3 * (4 * 36 + 5 * 144)
    assert (cost.edge_bytes, cost.least_bytes) == (edges, edges + cost.weight_bytes)
    inner = 4 * 3 * (8 * 36 + 5 * 144)
    assert cost.traffic_bytes == edges + cost.weight_bytes + 2 * inner


def test_half_precision_halves_the_bytes_and_not_the_work() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="n")]
    edges = {"x": ["batch", 10]}, {"y": ["batch", 30]}
    full = network_cost(model(nodes, *edges, {"w": (10, 30)}), 2)
    half = network_cost(model(nodes, *edges, {"w": (10, 30)}, TensorProto.FLOAT16), 2)
    assert (full.macs, half.macs) == (600, 600)
    assert full.traffic_bytes == full.least_bytes == 2 * half.least_bytes


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "macs"),
    [
        ("MatMul", [(2, 4, 5, 6), (6, 7)], (2, 4, 5, 7), 2 * 4 * 5 * 7 * 6),
        ("MatMul", [(5, 6), (2, 6, 7)], (2, 5, 7), 2 * 5 * 7 * 6),
        ("FusedMatMul", [(2, 6, 5), (2, 6, 7)], (2, 5, 7), 2 * 5 * 7 * 6),
        ("Gemm", [(3, 6), (7, 6)], (3, 7), 3 * 7 * 6),
        ("Gemm", [(6, 3), (6, 7)], (3, 7), 3 * 7 * 6),
        ("Conv", [(1, 8, 5), (16, 8, 3)], (1, 16, 3), 16 * 3 * 8 * 3),
        ("MatMul", [(5, 6)], (5, 7), 0),
        ("Add", [(5, 6), (5, 6)], (5, 6), 0),
    ],
)
def test_macs(operator: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], macs: int) -> None:
    assert macs_of(operator, inputs, output) == macs


def test_the_roofline_is_the_slower_of_arithmetic_and_memory() -> None:
    cost = network_cost(
        model(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            {"x": ["b", 10]},
            {"y": ["b", 30]},
            {"w": (10, 30)},
        ),
        1,
    )
    assert cost.least_seconds(flops=600.0, bandwidth=1e12) == pytest.approx(1.0)
    assert cost.least_seconds(flops=1e12, bandwidth=float(cost.least_bytes)) == pytest.approx(1.0)


def test_operators_that_multiply_unseen_are_named() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["a"]),
        helper.make_node("DFT", ["a"], ["y"], onesided=0),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 2])],
        [numpy_helper.from_array(np.array([2], np.int64), "last")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    assert network_cost(made.SerializeToString(), 1).uncounted == ("DFT",)


@pytest.mark.parametrize(
    ("note", "module"),
    [("['', 'a', 'a.b', 'conv2d']", "a.b"), ("['', 'add']", ""), ("[", ""), ("['alone']", ""), ("7", "")],
)
def test_modules_are_read_from_notes(note: str, module: str) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    node.metadata_props.add(key=SCOPES, value=note)
    assert module_of(node) == module


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x00no model")
    for broken in (path, b"\x00no model", tmp_path / "absent.onnx"):
        with pytest.raises(ArtifactError, match="cannot be counted"):
            network_cost(broken, 1)


@pytest.mark.parametrize("name", ["dnet", "enet", "lnet", "recon"])
def test_the_real_networks_cost_what_their_specs_say(artifacts: dict[str, Artifact], name: str) -> None:
    artifact = artifacts[name]
    cost = network_cost(artifact.path, 1)
    assert cost.gmacs == pytest.approx(artifact.spec.gmacs, abs=0.05)
    assert cost.uncounted == ()
    assert cost.edge_bytes == sum(t.nbytes(1) for t in artifact.spec.inputs + artifact.spec.outputs)
    assert 0.99 < cost.weight_bytes / artifact.path.stat().st_size <= 1
