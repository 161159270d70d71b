"""Clean-up of a graph: what does nothing goes, what does nearly nothing stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.export.networks.enet import DEMODULATION_EPSILON
from dubstream.export.onnx_export import export_onnx, onnx_runner

_SPEC = NetworkSpec(
    name="toy",
    title="one addition",
    inputs=(TensorSpec("x", "float32", (BATCH, 4), 0.0, 1.0, "numbers"),),
    outputs=(TensorSpec("y", "float32", (BATCH, 4), None, None, "numbers"),),
    max_batch=4,
    tolerances={"y": Tolerance(1e-6, 0.999999, "exact but for rounding")},
    gmacs=0.0,
    checkpoint="toy.pth",
    licence="none",
)


class _Root(nn.Module):
    """1 / sqrt(scale * x^2 + offset)."""

    def __init__(self, offset: float, scale: float) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(offset))
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        return torch.rsqrt((x * x) * self.scale + self.offset)


def _operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_the_epsilon_of_a_demodulation_stays(tmp_path: Path) -> None:
    network, path = _Root(DEMODULATION_EPSILON, 1.0), tmp_path / "toy.onnx"
    export_onnx(network, _SPEC, path)
    assert "Add" in _operators(path)
    got = onnx_runner(path, _SPEC, 1)({"x": np.zeros((1, 4), np.float32)})["y"]
    assert got == pytest.approx(DEMODULATION_EPSILON**-0.5, rel=1e-5)


def test_nothing_added_and_nothing_scaled_goes(tmp_path: Path) -> None:
    export_onnx(_Root(0.0, 1.0), _SPEC, tmp_path / "toy.onnx")
    assert "Add" not in _operators(tmp_path / "toy.onnx")
    assert _operators(tmp_path / "toy.onnx").count("Mul") == 1


def test_a_scale_that_is_nearly_one_stays(tmp_path: Path) -> None:
    export_onnx(_Root(0.0, 1.000002), _SPEC, tmp_path / "toy.onnx")
    assert _operators(tmp_path / "toy.onnx").count("Mul") == 2
