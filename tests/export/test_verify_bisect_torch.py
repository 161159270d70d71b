"""A PyTorch module against the ONNX file made from it: faults planted in the file are found by module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.export.onnx_export import export_onnx
from dubstream.export.verify.bisect_graph import Graph
from dubstream.export.verify.bisect_torch import TorchReference, torch_fault

SHAPE: tuple[int | str, ...] = (BATCH, 4, 6, 6)
SPEC = NetworkSpec(
    name="nested", title="a toy",
    inputs=(TensorSpec("image", "float32", SHAPE, 0.0, 1.0, "planes"),),
    outputs=(TensorSpec("picture", "float32", SHAPE, None, None, "planes"),),
    max_batch=4, tolerances={"picture": Tolerance(1e-5, 0.999999, "a toy")}, gmacs=0.1,
    checkpoint="Nested.pth", licence="none",
)  # fmt: skip


class Table(nn.Module):
    """Stands in two places, like a Fourier transform."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(6, 6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.get_buffer("table")


class Unit(nn.Module):
    def __init__(self, table: Table) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(4, 4, 1)
        self.fourier = table
        self.expand = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(torch.tanh(self.fourier(torch.relu(self.squeeze(x)))))
        return y + x


class Gate(nn.Module):
    """Returns two tensors, so that its results are not known by themselves."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean((2, 3), keepdim=True)
        return torch.sigmoid(mean), torch.tanh(mean)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        table = Table()
        self.gate = Gate()
        self.units = nn.ModuleList([Unit(table), Unit(table), Unit(table)])
        self.last = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))

    def forward(self, image: Tensor) -> Tensor:
        scale, shift = self.gate(image)
        x = image * scale
        for unit in self.units:
            x = unit(x) + shift
        y: Tensor = self.last(x)
        return y


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Nested, onnx.ModelProto]:
    torch.manual_seed(3)
    network = Nested().eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("nested") / "nested.onnx"
    export_onnx(network, SPEC, Path(path))
    return network, onnx.load(str(path))


def inputs() -> dict[str, Any]:
    return {"image": np.random.default_rng(2).random((2, 4, 6, 6)).astype(np.float32)}


def planted(model: onnx.ModelProto, module: str, kind: str) -> tuple[onnx.ModelProto, str]:
    """A copy in which the last weight of one module's node is twice as large, and the node's name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    node = next(n for n in graph.nodes if n.op_type == kind and graph.module_of(n.output[0]) == module)
    weight = next(entry for entry in copy.graph.initializer if entry.name == node.input[1])
    copy.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, "wrong"))
    node.input[1] = "wrong"
    return copy, node.name


def test_the_file_is_what_the_module_is(made: tuple[Nested, onnx.ModelProto]) -> None:
    assert torch_fault(*made, inputs(), ["picture"]) is None


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("units.0.squeeze", "Conv"),
        ("units.0.fourier", "MatMul"),
        ("units.1.fourier", "MatMul"),
        ("units.2.fourier", "MatMul"),
        ("units.1.expand", "Conv"),
        ("last.0", "Conv"),
    ],
)
def test_a_planted_fault_is_found_by_module(
    made: tuple[Nested, onnx.ModelProto], module: str, kind: str
) -> None:
    network, model = made
    wrong, name = planted(model, module, kind)
    fault = torch_fault(network, wrong, inputs(), ["picture"])
    assert fault is not None
    assert (fault.module, fault.node, fault.op, fault.kind) == (module, name, kind, "node")
    assert fault.cured_error < 1e-5 < fault.end_error


def test_a_module_in_several_places_is_told_apart_by_its_caller(
    made: tuple[Nested, onnx.ModelProto],
) -> None:
    network, model = made
    graph = Graph(model)
    reference = TorchReference(network, inputs(), ["picture"])
    known = {graph.module_of(name) for name in reference.knows(graph)}
    assert {f"units.{place}.fourier" for place in range(3)} <= known
    assert "gate" not in known
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_results_are_copied_before_they_are_changed_in_place(made: tuple[Nested, onnx.ModelProto]) -> None:
    network, model = made
    graph = Graph(model)
    reference = TorchReference(network, inputs(), ["picture"])
    (before,) = (n for n in reference.knows(graph) if graph.module_of(n) == "last.0")
    assert (reference.values([before])[before] < 0).any()
