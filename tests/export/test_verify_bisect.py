"""Finding the first wrong node: planted faults in small graphs and in the real L-Net."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dubstream.engines.artifact import Artifact
from dubstream.engines.specs import LNET
from dubstream.export.fidelity import fidelity_cases
from dubstream.export.verify.bisect import (
    NOISE,
    executor_fault,
    first_fault,
    half_fault,
    model_fault,
)
from dubstream.export.verify.bisect import ModelReference as Reference
from dubstream.export.verify.bisect_graph import Feeds, Graph, Load, Part, onnx_runtime
from dubstream.export.verify.bisect_search import relative_error

SCOPES = "pkg.torch.onnx.name_scopes"
DEPTH, WIDTH = 12, 16


def chain(seed: int = 0) -> onnx.ModelProto:
    """`DEPTH` blocks of MatMul, Relu and a shortcut; block k is body.k, its product is in body.k.mix."""
    draw = np.random.default_rng(seed)
    nodes, weights = [], []
    for block in range(DEPTH):
        before = f"x{block}" if block else "x"
        last = "y" if block == DEPTH - 1 else f"x{block + 1}"
        weights.append(named(draw.normal(0, 0.3, (WIDTH, WIDTH)), f"w{block}"))
        nodes += [
            node("MatMul", [before, f"w{block}"], f"m{block}", f"body.{block}", f"body.{block}.mix"),
            node("Relu", [f"m{block}"], f"r{block}", f"body.{block}"),
            node("Add", [f"r{block}", before], last, f"body.{block}"),
        ]
    return model(nodes, weights)


def named(values: Any, name: str) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def node(kind: str, inputs: list[str], output: str, *modules: str) -> onnx.NodeProto:
    made = helper.make_node(kind, inputs, [output], name=f"node_{output}")
    made.metadata_props.add(key=SCOPES, value=str(["", "body", *modules, output]))
    return made


def model(nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> onnx.ModelProto:
    shape = ["n", WIDTH]
    graph = helper.make_graph(
        nodes, "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def inputs(items: int = 3) -> dict[str, Any]:
    return {"x": np.random.default_rng(7).normal(0, 1, (items, WIDTH)).astype(np.float32)}


def copied(original: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(original)
    return copy


def with_wrong_weight(original: onnx.ModelProto, block: int, factor: float = 1.01) -> onnx.ModelProto:
    copy = copied(original)
    weight = copy.graph.initializer[block]
    weight.CopyFrom(named(numpy_helper.to_array(weight) * factor, weight.name))
    return copy


@pytest.mark.parametrize("block", range(DEPTH))
def test_a_wrong_weight_is_found_in_every_block(block: int) -> None:
    fault = model_fault(chain(), with_wrong_weight(chain(), block), inputs())
    assert fault is not None
    assert (fault.tensor, fault.node, fault.op) == (f"m{block}", f"node_m{block}", "MatMul")
    assert (fault.module, fault.kind, fault.depth) == (f"body.{block}.mix", "node", 3 * block)
    assert fault.error == pytest.approx(0.01, rel=1e-3)
    assert fault.end_error > fault.allowed
    assert fault.cured_error == 0.0


def test_of_two_faults_the_first_is_named_and_the_cure_says_that_one_remains() -> None:
    wrong = with_wrong_weight(with_wrong_weight(chain(), 3), 9)
    fault = model_fault(chain(), wrong, inputs())
    assert fault is not None
    assert fault.tensor == "m3"
    assert 1e-5 < fault.cured_error < fault.end_error


def test_equal_models_have_no_fault() -> None:
    assert model_fault(chain(), chain(), inputs()) is None


def test_a_difference_below_what_is_always_allowed_is_none() -> None:
    assert model_fault(chain(), with_wrong_weight(chain(), 4, 1 + 1e-6), inputs()) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_a_fault(bad: float) -> None:
    fault = model_fault(chain(), with_wrong_weight(chain(), 5, bad), inputs())
    assert fault is not None
    assert fault.tensor == "m5"
    assert math.isinf(fault.error)
    plain = json.loads(json.dumps(fault.as_json(), allow_nan=False))
    assert plain["error"] is None
    assert plain["module"] == "body.5.mix"


def test_a_wrong_operator_is_found() -> None:
    wrong = copied(chain())
    wrong.graph.node[3 * 6 + 1].op_type = "LeakyRelu"
    fault = model_fault(chain(), wrong, inputs())
    assert fault is not None
    assert (fault.tensor, fault.op, fault.module) == ("r6", "LeakyRelu", "body.6")


def test_tensors_without_a_counterpart_widen_the_stretch_to_their_module() -> None:
    """The judged model computes block 5 in a different way, of tensors that the reference does not have."""
    other = with_wrong_weight(chain(), 5)
    for place in (3 * 5, 3 * 5 + 1):
        part = other.graph.node[place]
        for names in (part.input, part.output):
            for index, name in enumerate(names):
                names[index] = f"other_{name}" if name in ("m5", "r5") else name
    other.graph.node[3 * 5 + 2].input[0] = "other_r5"
    fault = model_fault(chain(), other, inputs())
    assert fault is not None
    assert (fault.tensor, fault.op, fault.module) == ("x6", "Add", "body.5")


def cancelling() -> onnx.ModelProto:
    """Adds a large number and takes it away: correct backends, and a blind comparison, would differ."""
    large = named(1e4, "large")
    nodes = [
        node("MatMul", ["x", "w"], "m", "body.mix"),
        node("Add", ["m", "large"], "up", "body.shaky"),
        node("Sub", ["up", "large"], "down", "body.shaky"),
        node("Relu", ["down"], "y", "body.end"),
    ]
    return model(nodes, [named(np.eye(WIDTH) * 0.7, "w"), large])


def test_what_noise_on_the_inputs_explains_is_growth_not_a_wrong_node() -> None:
    slightly = copied(cancelling())
    slightly.graph.initializer[0].CopyFrom(named(np.eye(WIDTH) * np.float32(0.7 * (1 + 9e-6)), "w"))
    fault = model_fault(cancelling(), slightly, inputs(200))
    assert fault is not None
    assert (fault.kind, fault.tensor, fault.module) == ("growth", "down", "body.shaky")
    assert "grown" in str(fault)


def test_a_wrong_node_before_a_cancellation_is_still_found() -> None:
    wrong = copied(cancelling())
    wrong.graph.initializer[0].CopyFrom(named(np.eye(WIDTH) * 0.72, "w"))
    fault = model_fault(cancelling(), wrong, inputs())
    assert fault is not None
    assert (fault.kind, fault.tensor) == ("node", "m")


def with_tail(front: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The same, then a dozen times Relu, and a product in the middle of them."""
    made = copied(front)
    made.graph.node[-1].output[0], made.graph.node[-1].name = "t0", "node_t0"
    for step in range(12):
        after = "y" if step == 11 else f"t{step + 1}"
        kind, inputs = ("MatMul", [f"t{step}", "tail"]) if step == 6 else ("Relu", [f"t{step}"])
        made.graph.node.append(node(kind, inputs, after, "body.tail"))
    made.graph.initializer.append(named(np.eye(WIDTH) * factor, "tail"))
    return made


def test_a_wrong_node_behind_grown_errors_is_found() -> None:
    """The cancellation alone would be a verdict, but it is not what is wrong."""
    slightly = copied(cancelling())
    slightly.graph.initializer[0].CopyFrom(named(np.eye(WIDTH) * np.float32(0.7 * (1 + 9e-6)), "w"))
    fault = model_fault(with_tail(cancelling(), 1.0), with_tail(slightly, 1.1), inputs(200))
    assert fault is not None
    assert (fault.kind, fault.tensor, fault.module) == ("node", "t7", "body.tail")


def shrinking(kind: str, block: int) -> Load:
    """An executor that computes one operator of one block wrongly."""
    right = onnx_runtime()

    def load(part: Part) -> Callable[[Feeds], dict[str, Any]]:
        whole = part.whole()
        for made in whole.graph.node:
            if made.op_type == kind and made.name in (f"node_m{block}", f"node_r{block}"):
                made.op_type = "LeakyRelu"
        return right(Part(whole, {}, part.feeds, part.outputs))

    return load


def test_an_executor_that_computes_one_node_wrongly_is_found() -> None:
    fault = executor_fault(chain(), inputs(), shrinking("Relu", 8))
    assert fault is not None
    assert (fault.tensor, fault.node, fault.module) == ("r8", "node_r8", "body.8")


def test_onnx_runtime_with_its_optimisations_agrees() -> None:
    assert executor_fault(chain(), inputs(), onnx_runtime(optimised=True)) is None


def halved() -> onnx.ModelProto:
    """float16: a product, then the root of a sum of squares that float16 cannot hold."""
    half = TensorProto.FLOAT16
    nodes = [
        node("Mul", ["x", "third"], "scaled", "body.scale"),
        node("Mul", ["scaled", "scaled"], "squares", "body.norm"),
        node("ReduceSum", ["squares", "axes"], "energy", "body.norm"),
        node("Sqrt", ["energy"], "y", "body.norm"),
    ]
    graph = helper.make_graph(
        nodes, "halved",
        [helper.make_tensor_value_info("x", half, ["n", 64])],
        [helper.make_tensor_value_info("y", half, ["n", 1])],
        [
            numpy_helper.from_array(np.array(1 / 3, np.float16), "third"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_an_overflow_of_half_precision_is_one_node_and_plain_rounding_is_no_fault() -> None:
    loud = np.random.default_rng(1).uniform(100, 200, (2, 64)).astype(np.float16)
    fault = half_fault(halved(), {"x": loud})
    assert fault is not None
    assert (fault.kind, fault.tensor, fault.op, fault.module) == ("node", "energy", "ReduceSum", "body.norm")
    assert half_fault(halved(), {"x": loud / 20}) is None


def test_parts_are_models_of_their_own() -> None:
    graph = Graph(chain())
    part = graph.part(["r3"], {"x3": inputs()["x"]})
    assert [made.name for made in part.model.graph.node] == ["node_m3", "node_r3"]
    assert list(part.feeds) == ["x3"]
    assert onnx_runtime()(part)(part.feeds)["r3"].shape == (3, WIDTH)


def test_weights_are_not_copied_into_parts() -> None:
    wide = chain()
    wide.graph.initializer[2].CopyFrom(named(np.zeros((WIDTH, 1 << 16)), "w2"))
    part = Graph(wide).part(["m2"], {"x2": inputs()["x"]})
    assert list(part.weights) == ["w2"]
    assert part.model.ByteSize() < 1000
    assert part.whole().ByteSize() > 4 * WIDTH << 16
    assert not onnx_runtime()(part)(part.feeds)["m2"].any()


def test_nodes_without_a_module_get_the_one_before_them() -> None:
    bare = chain()
    del bare.graph.node[4].metadata_props[:]
    assert Graph(bare).module_of("r1") == "body.1.mix"
    assert Graph(bare).module_of("x") == ""


def test_relative_error() -> None:
    one, nan = np.ones(4, np.float32), np.array([1, 1, 1, np.nan], np.float32)
    assert relative_error(one, one * 1.5) == pytest.approx(0.5)
    assert relative_error(one * 0, one * 1e-3) == pytest.approx(2e-3)
    assert relative_error(one, np.ones((2, 2), np.float32)) == math.inf
    assert relative_error(one, nan) == math.inf
    assert relative_error(nan, nan * 2) == pytest.approx(1.0)


def test_the_reference_forgets_what_is_not_kept() -> None:
    runs: list[list[str]] = []

    def counting(part: Part) -> Callable[[Feeds], dict[str, Any]]:
        runs.append([made.name for made in part.model.graph.node])
        return onnx_runtime()(part)

    reference = Reference(chain(), inputs(), counting)
    reference.values(["x2"])
    reference.values(["x2", "m2"])
    assert runs[1] == ["node_m2"]
    reference.keep([])
    reference.values(["m0"])
    assert runs[2] == ["node_m0"]
    wrong = with_wrong_weight(chain(), 1)
    assert first_fault(wrong, reference, inputs(), load=onnx_runtime(), noise=NOISE["fp32"]) is not None


@pytest.mark.slow
def test_a_wrong_table_in_one_of_the_54_fourier_units_of_lnet_is_found(
    artifacts: dict[str, Artifact],
) -> None:
    reference = onnx.load(str(artifacts["lnet"].path))
    right = Graph(reference)
    units = [made for made in right.nodes if made.op_type == "MatMul" and _is_first(made)]
    assert len(units) == 54
    feeds = {name: array[:1] for name, array in fidelity_cases(LNET)[0].inputs.items()}
    unit = units[np.random.default_rng(54).integers(len(units))]
    fault = model_fault(reference, with_shifted_table(reference, unit), feeds)
    assert fault is not None
    assert (fault.tensor, fault.node, fault.op) == (unit.output[0], unit.name, "MatMul")
    assert fault.module == right.module_of(unit.output[0])
    assert fault.module.endswith(".wide_to_wide.fourier")
    assert fault.kind == "node"
    assert fault.cured_error == 0.0


def _is_first(made: onnx.NodeProto) -> bool:
    """Whether it is the first product of a unit: with the whole table, or with the cosines of the rows."""
    return made.input[1].endswith((".fourier.analysis", ".fourier.cosines"))


def with_shifted_table(reference: onnx.ModelProto, unit: onnx.NodeProto) -> onnx.ModelProto:
    """A copy in which one unit alone has a table whose frequencies are off by one."""
    judged = copied(reference)
    table = next(weight for weight in judged.graph.initializer if weight.name == unit.input[1])
    wrong = np.roll(numpy_helper.to_array(table), 1, axis=1)
    judged.graph.initializer.append(named(wrong, "wrong"))
    (same,) = (made for made in judged.graph.node if made.name == unit.name)
    same.input[1] = "wrong"
    return judged
