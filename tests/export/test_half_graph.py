"""What the copies of a half-precision graph tell, against arithmetic in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dubstream.export.half_graph import (
    HalfTensor,
    divergence_model,
    half_tensors,
    peak_name,
    peaks_model,
    rounding_model,
)
from dubstream.export.session import onnx_session

SCOPES = "pkg.torch.onnx.name_scopes"
ITEMS = 1024


def energy(element: int = TensorProto.FLOAT16) -> onnx.ModelProto:
    """The root of a sum of squares, all in half precision: for x = 16 the sum is 262144."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"], name="mul"),
        helper.make_node("ReduceSum", ["squares", "axes"], ["energy"], name="sum", keepdims=1),
        helper.make_node("Sqrt", ["energy"], ["root"], name="sqrt"),
        helper.make_node("Mul", ["root", "third"], ["scaled"], name="scale"),
        helper.make_node("Cast", ["scaled"], ["y"], name="cast", to=TensorProto.FLOAT),
    ]
    for node in nodes[:3]:
        node.metadata_props.add(key=SCOPES, value=f"['', 'core', 'core.norm', '{node.name}']")
    third = numpy_helper.from_array(np.array([1 / 3], np.float32))
    weight = helper.make_tensor("third", element, [1], numpy_helper.to_array(third))
    graph = helper.make_graph(
        nodes, "energy",
        [helper.make_tensor_value_info("x", element, ["n", ITEMS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array([1]), "axes"), weight],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: Any, names: Any = None, optimised: bool = False) -> list[Any]:
    return list(onnx_session(model, 1, optimised=optimised).run(names, {"x": x}))


def test_half_tensors_are_listed_with_node_and_module() -> None:
    tensors = half_tensors(energy())
    assert [tensor.name for tensor in tensors] == ["x", "squares", "energy", "root", "scaled"]
    assert tensors[0] == HalfTensor("x", "input", "")
    assert tensors[2] == HalfTensor("energy", "sum (ReduceSum)", "core.norm")
    assert tensors[4].module == ""


def test_peaks_are_the_true_ones_beyond_the_range() -> None:
    model = energy()
    names = [peak_name(tensor) for tensor in half_tensors(model)]
    x = np.full((2, ITEMS), -16, np.float32)
    third = float(np.float16(1 / 3))
    assert run(peaks_model(model), x, names) == pytest.approx([16, 256, 262144, 512, 512 * third])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 50, ITEMS - 1])
def test_a_single_number_that_is_none_is_seen(bad: float, place: int) -> None:
    x = np.ones((1, ITEMS), np.float32)
    x[0, place] = bad
    assert not np.isfinite(run(peaks_model(energy()), x, [peak_name(HalfTensor("x", "", ""))])[0])


def test_the_cpu_hides_an_overflow_that_audit_and_emulation_show() -> None:
    model, loud = energy(), np.full((1, ITEMS), 16, np.float32)
    hidden = run(model, loud.astype(np.float16), optimised=True)[0].item()
    assert hidden == pytest.approx(512 / 3, rel=1e-3)  # a green run that proves nothing
    assert np.isinf(run(rounding_model(model), loud)[0].item())
    assert run(peaks_model(model), loud, [peak_name(HalfTensor("energy", "", ""))])[0] == 262144


def test_rounding_is_that_of_float16_after_every_node() -> None:
    x = np.random.default_rng(3).normal(0, 1, (3, ITEMS)).astype(np.float16)
    squares = (x.astype(np.float32) ** 2).astype(np.float16).astype(np.float32)
    total = squares.sum(1, keepdims=True).astype(np.float16).astype(np.float32)
    root = np.sqrt(total).astype(np.float16).astype(np.float32)
    expected = (root * np.float32(np.float16(1 / 3))).astype(np.float16).astype(np.float32)
    assert np.array_equal(run(rounding_model(energy()), x.astype(np.float32))[0], expected)


def test_bfloat16_is_rounded_to_eight_bits() -> None:
    got = run(rounding_model(energy(TensorProto.BFLOAT16)), np.full((1, ITEMS), 1.0, np.float32))[0]
    bits = np.asarray(got, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    assert got.item() == pytest.approx(32 / 3, rel=2**-7)


def test_divergence_is_the_relative_error_of_each_tensor() -> None:
    model = energy()
    tensors = [tensor for tensor in half_tensors(model) if tensor.node != "input"]
    x = np.random.default_rng(4).normal(0, 1, (2, ITEMS)).astype(np.float16).astype(np.float32)
    errors = run(divergence_model(model), x, [peak_name(tensor) for tensor in tensors])
    squares = x * x
    rounded = squares.astype(np.float16).astype(np.float32)
    assert errors[0] == pytest.approx(np.linalg.norm(squares - rounded) / np.linalg.norm(squares), rel=1e-4)
    assert all(0 < error < 1e-3 for error in errors)


def test_the_original_is_left_as_it_was() -> None:
    model = energy()
    before = model.SerializeToString()
    for make in (peaks_model, rounding_model, divergence_model):
        make(model)
    assert model.SerializeToString() == before
