"""Export of a small network, and how long an engine takes to be ready. Each result is checked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_networks import publish_toys  # type: ignore[import-not-found]

from dubstream.engines.artifact import Artifact, open_artifact
from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.engines.specs import SPECS

BLOCK = NetworkSpec(
    name="block",
    title="four convolutions",
    inputs=(TensorSpec("image", "float32", (BATCH, 3, 32, 32), 0.0, 1.0, "planes"),),
    outputs=(TensorSpec("features", "float32", (BATCH, 16, 32, 32), None, None, "planes"),),
    max_batch=4,
    tolerances={"features": Tolerance(1e-5, 0.999999, "a few hundred float32 additions")},
    gmacs=0.01,
    checkpoint="",
    licence="",
)


class InlineStream:
    """Runs work at once."""

    handle = None

    def launch(self, work: Callable[[], None], name: str) -> None:
        """Run it."""
        work()


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Toy artifacts with the interfaces of the real networks."""
    published: dict[str, Artifact] = publish_toys(tmp_path_factory.mktemp("toys"))
    return published


def test_export_of_a_small_network(benchmark: Any, tmp_path: Path) -> None:
    import torch

    from dubstream.export.onnx_export import check_onnx, export_onnx, onnx_runner, torch_runner

    torch.manual_seed(0)
    sizes = (3, 16, 16, 16, 16)
    layers = [torch.nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(sizes)]
    module = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())])
    path = tmp_path / "block.onnx"
    benchmark.pedantic(export_onnx, (module, BLOCK, path), rounds=3, warmup_rounds=1)
    check_onnx(path, BLOCK)
    inputs = {"image": np.random.default_rng(0).random((3, 3, 32, 32), np.float32)}
    wanted = torch_runner(module, BLOCK)(inputs)["features"]
    found = onnx_runner(path, BLOCK, 1)(inputs)["features"]
    assert np.abs(found - wanted).max() <= BLOCK.tolerances["features"].max_abs


def test_verification_of_an_artifact(benchmark: Any, toys: dict[str, Artifact]) -> None:
    known = toys["enet"]
    assert benchmark(open_artifact, known.path.parent, SPECS["enet"]) == known


def test_start_of_an_engine_up_to_its_first_result(benchmark: Any, toys: dict[str, Artifact]) -> None:
    spec = SPECS["enet"]
    arrays = {
        tensor.name: np.full(tensor.concrete(1), 0.5, tensor.dtype)
        for tensor in (*spec.inputs, *spec.outputs)
    }

    def start() -> None:
        arrays["enhanced"].fill(-1)
        with OnnxRuntimeEngine(toys["enet"].path, spec, threads=1) as engine:
            engine.bind(arrays, 1).enqueue(InlineStream())

    benchmark.pedantic(start, rounds=10, warmup_rounds=1)
    np.testing.assert_allclose(arrays["enhanced"], 0.5, rtol=1e-6)


@pytest.mark.parametrize("module", ["dubstream.runtime", "dubstream.runtime.cli.app"])
def test_import_in_a_process_of_its_own(benchmark: Any, module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"

    def start() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert benchmark.pedantic(start, rounds=5, warmup_rounds=1).strip() == "False"
