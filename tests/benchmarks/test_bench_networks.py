"""Networks checked, then timed in turn: on a real toy network with every baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bench_toys import RECIPE, SPEC, TINY, export_toy, options

from dubstream.benchmarks.bench.method.base import held_against, load_base, save_base
from dubstream.benchmarks.bench.method.results import Results
from dubstream.benchmarks.bench.networks import bench as networks
from dubstream.benchmarks.bench.networks import pytorch, variants
from dubstream.benchmarks.bench.networks.by_op import NO_MODULE, by_module, by_node, by_operator, profile
from dubstream.benchmarks.bench.networks.cost import network_cost
from dubstream.benchmarks.bench.networks.options import BenchOptions
from dubstream.benchmarks.bench.networks.pytorch import PlainNetwork, UnavailableError
from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import CheckpointError

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_toy(tmp_path_factory.mktemp("toy"))


def bench(toy: Artifact, chosen: BenchOptions, recipes: Any = None) -> Results:
    results = Results({"cpu": "toy", "cores": 1, "threads": 1})
    networks.bench_networks(
        {("recon", "fp32"): toy}, chosen, results, recipes=recipes or {"recon": RECIPE}, sizes=TINY
    )
    return results


def by_stage(results: Results, status: str = "passed") -> dict[tuple[str, Any], dict[str, Any]]:
    return {(row["stage"], row.get("batch")): row for row in results.rows if row["status"] == status}


def test_every_variant_is_compared_and_timed_in_the_same_rounds(toy: Artifact, tmp_path: Path) -> None:
    results = bench(toy, options(baselines=("eager", "naive", "driver"), naive_folder=tmp_path))
    assert results.failures == []
    rows = by_stage(results)
    engine = "recon/engine/onnxruntime/fp32"
    ours = {
        (engine, 1),
        (engine, 3),
        ("recon/driver/onnxruntime/fp32", 1),
        ("recon/driver/onnxruntime/fp32", 3),
    }
    peaks = {(f"peak/{name}", None) for name in ("conv", "matmul", "copy")}
    assert set(rows) == ours | peaks | {("recon/eager", 1), ("recon/eager", 3), ("recon/naive", 1)}
    one, three = rows[engine, 1], rows[engine, 3]
    assert {row["n"] for key, row in rows.items() if key not in peaks} == {5}
    assert rows["peak/conv", None]["n"] == 10
    assert one["compared_with"] == "PyTorch"
    assert 0 <= one["of_tolerance"] <= 1
    assert set(one["over"]) == {"eager", "naive", "driver/onnxruntime/fp32"}
    assert three["gmacs"] == pytest.approx(3 * one["gmacs"], abs=2e-6)
    assert three["items_s"] == pytest.approx(3000 / three["median"], rel=1e-3)
    assert one["low"] <= one["median"] == one["p50"] <= one["p95"] <= one["p99"]
    assert 0 < one["device_ms"] <= one["p99"]
    assert one["of_roofline"] > 0
    naive = by_stage(results, "not run")["recon/naive", 3]
    assert "batch 1 only" in naive["reason"]
    assert sorted(results.cases) == sorted(f"{stage}/{batch}" for stage, batch in ours)


def test_a_batch_above_the_limit_is_a_row_that_says_so(toy: Artifact) -> None:
    results = bench(toy, options(batches=(16,)))
    assert [(row["status"], row["batch"], row["reason"]) for row in results.rows] == [
        ("not run", 16, "the largest batch of recon is 4")
    ]


def test_a_variant_that_is_off_is_not_timed(toy: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = variants.Driver.outputs
    monkeypatch.setattr(
        variants.Driver, "outputs", lambda self: {k: v + np.float32(0.01) for k, v in honest(self).items()}
    )
    results = bench(toy, options(batches=(1,), baselines=("driver",)))
    assert [
        (row["stage"], "max abs 0.01 (allowed" in row["reason"]) for row in results.rows if "reason" in row
    ] == [("recon/driver/onnxruntime/fp32", True)]
    assert "recon/driver/onnxruntime/fp32 at batch 1" in results.failures[0]
    assert list(results.cases) == ["recon/engine/onnxruntime/fp32/1"]


def test_every_item_of_a_batch_is_compared(toy: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = variants.Resident.outputs

    def last_item_off(self: variants.Resident) -> variants.Arrays:
        found = honest(self)
        found["coeffs"][-1] += 1
        return found

    monkeypatch.setattr(variants.Resident, "outputs", last_item_off)
    assert len(bench(toy, options(batches=(3,))).failures) == 1


def test_weights_unknown_to_pytorch_leave_onnx_runtime_as_the_reference(
    toy: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytorch, "SEED_SALT", "another")
    results = bench(toy, options(batches=(1,), baselines=("eager",)))
    assert by_stage(results)["recon/engine/onnxruntime/fp32", 1]["compared_with"] == "ONNX Runtime on the CPU"
    assert "no such weights" in by_stage(results, "not run")["recon/eager", 1]["reason"]


def test_a_checkpoint_has_to_be_the_artifacts_own(toy: Artifact) -> None:
    from dataclasses import replace

    source = f"checkpoint:{SPEC.checkpoint}:{'0' * 64}"
    trained = replace(toy, sidecar=replace(toy.sidecar, source=source))
    with pytest.raises(UnavailableError, match="--checkpoints DIR"):
        PlainNetwork(trained, recipe=RECIPE)
    with pytest.raises(CheckpointError, match=SPEC.checkpoint):
        PlainNetwork(trained, toy.path.parent, recipe=RECIPE)


def test_compile_says_what_it_lacks(toy: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, inputs = PlainNetwork(toy, recipe=RECIPE), variants.seeded_batch(SPEC, 1)
    monkeypatch.setattr(pytorch.shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match=r"C\+\+ compiler, found none"):
        plain.compiled(inputs)
    monkeypatch.undo()

    def gives_up(*arguments: Any, **options: Any) -> Any:
        def call(*inputs: Any) -> Any:
            raise RuntimeError("backend='inductor' raised:\nmore")

        return call

    monkeypatch.setattr(pytorch.shutil, "which", lambda name: "/usr/bin/c++")
    monkeypatch.setattr(plain._torch, "compile", gives_up)
    with pytest.raises(UnavailableError, match=r"RuntimeError: backend='inductor' raised:$"):
        plain.compiled(inputs)


def test_compiled_networks_are_variants_like_the_others(
    toy: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling takes half a minute: torch's own tracing backend stands in for the C++ one.
    import torch

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    results = bench(toy, options(batches=(1,), baselines=("compile",)))
    assert "compile" in by_stage(results)["recon/engine/onnxruntime/fp32", 1]["over"]


def test_a_saved_run_holds_against_itself(toy: Artifact, tmp_path: Path) -> None:
    results = bench(toy, options(batches=(1,)))
    save_base(tmp_path / "base.json", results)
    base = load_base(tmp_path / "base.json")
    assert base.cases == results.cases
    (itself,) = held_against(base, results, 1.10)
    assert (itself.key, itself.outcome) == ("recon/engine/onnxruntime/fp32/1", "kept")
    assert itself.slowdown is not None
    assert (itself.slowdown.estimate, itself.raw) == (1.0, 1.0)


def test_time_is_found_by_operator_module_and_node(toy: Artifact) -> None:
    cost = network_cost(toy.path, 2)
    nodes = profile(toy.path, variants.seeded_batch(SPEC, 2), cost, threads=1, repeats=3)
    assert {len(node.samples_ms) for node in nodes} == {3}
    assert sum(node.macs for node in nodes) == cost.macs == 2 * (8 * 256 * 27 + 8 * 7)
    assert sum(group.share for group in by_operator(nodes)) == pytest.approx(1)
    modules = {group.name: group for group in by_module(nodes)}
    # ONNX Runtime pads the channels to its blocks and fuses the activation: the work is still
    # the convolution's, as exported.
    assert modules["first"].gmacs == pytest.approx(2 * 8 * 256 * 27 / 1e9)
    assert modules["last"].gmacs == pytest.approx(2 * 8 * 7 / 1e9)
    assert modules.keys() <= {"first", "last", NO_MODULE}
    assert any(group.name.startswith("Conv first 2x3x16x16, ") for group in by_node(nodes))
    assert by_operator(nodes)[0].ms >= by_operator(nodes)[-1].ms


def test_a_profile_without_modules_has_times_all_the_same(toy: Artifact, tmp_path: Path) -> None:
    model = onnx.load(str(toy.path))
    for node in model.graph.node:
        node.ClearField("metadata_props")
    onnx.save(model, str(tmp_path / "bare.onnx"))
    cost = network_cost(tmp_path / "bare.onnx", 1)
    nodes = profile(tmp_path / "bare.onnx", variants.seeded_batch(SPEC, 1), cost, threads=1, repeats=1)
    assert [group.name for group in by_module(nodes)] == [NO_MODULE]
    assert sum(node.macs for node in nodes) == cost.macs
