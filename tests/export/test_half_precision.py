"""Half-precision export: types in the graph, ranges audited, errors measured, modules named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from half_toys import (
    RECIPE,
    SIDE,
    HalfToy,
    real,
    spec,
    toy_recipe,
    with_bare_norm,
    with_shaky_end,
)

from dubstream.engines.artifact import Artifact, open_artifact
from dubstream.engines.errors import ArtifactError, FidelityError, InternalError, UsageError
from dubstream.engines.inspect_model import inspect_model
from dubstream.engines.loading import load_engine
from dubstream.engines.specs import SPECS, spec_of
from dubstream.export import produce as produce_module
from dubstream.export.command import export_networks
from dubstream.export.precision import HALF_RECIPES, Island, recipe_of
from dubstream.export.recipes import RECIPES
from dubstream.export.steps import HALF_STEPS, ExportEvent

ISLANDS = (Island("Norm", "sums squares"),)


def export(folder: Path, recipe: Any = None, precision: str = "fp16", **options: Any) -> Artifact:
    recipe = recipe or toy_recipe()
    return export_networks(
        [], checkpoints=None, weights="seeded", artifacts=folder, threads=1, precision=precision,
        recipes={recipe.spec.name: recipe}, **options,
    )[0]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[str]]:
    events: list[ExportEvent] = []
    artifact = export(tmp_path_factory.mktemp("half"), on_progress=events.append)
    return artifact, [event.step for event in events if event.event == "step"]


def test_artifact_is_verified_named_and_records_recipe_ranges_and_errors(
    made: tuple[Artifact, list[str]],
) -> None:
    artifact, steps = made
    sidecar = artifact.sidecar
    assert steps == list(HALF_STEPS)
    assert artifact.path.name == "halftoy.fp16.onnx"
    assert open_artifact(artifact.path.parent, spec("uint8"), "fp16") == artifact
    assert (sidecar.recipe, sidecar.recipe_version, sidecar.precision) == ("toy-fp16", 3, "fp16")
    assert {row.case for row in sidecar.fidelity} == {
        "rounded/real/2", "rounded/uniform/1", "file/real/2",
    }  # fmt: skip
    assert all(50 < row.psnr < 70 for row in sidecar.fidelity if row.psnr is not None)
    assert [row.max_abs for row in sidecar.ranges] == sorted(
        (row.max_abs for row in sidecar.ranges), reverse=True
    )
    assert sidecar.ranges[0].max_abs == 255.0


def test_a_missing_one_is_hinted_at_with_its_precision(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(tmp_path, spec("uint8"), "fp16")
    assert f"--artifacts {tmp_path} --precision fp16" in str(caught.value)


def test_kept_when_current_and_remade_for_another_recipe_version(
    made: tuple[Artifact, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def produce(recipe: Any, *_: Any, precision: str, **__: Any) -> Artifact:
        calls.append(precision)
        return made[0]

    monkeypatch.setattr(produce_module, "produce", produce)
    folder = made[0].path.parent
    assert export(folder) == made[0]
    assert calls == []
    export(folder, toy_recipe(numbers=replace(RECIPE, version=4)))
    assert calls == ["fp16"]


def test_both_precisions_live_in_one_folder_and_float32_has_no_cast(tmp_path: Path) -> None:
    half, full = export(tmp_path), export(tmp_path, precision="fp32")
    assert {half.path.name, full.path.name} == {"halftoy.fp16.onnx", "halftoy.fp32.onnx"}
    operators = {node.op_type for node in onnx.load(str(full.path)).graph.node}
    assert "Cast" not in operators
    assert full.sidecar.ranges == ()


def test_island_is_float32_between_two_casts_and_the_rest_is_half(
    made: tuple[Artifact, list[str]],
) -> None:
    census = inspect_model(made[0].path)
    assert [(cast.source, cast.target) for cast in census.casts] == [
        ("float16", "float32"), ("float32", "float16"),
    ]  # fmt: skip
    assert len(census.islands) == 1
    assert {"Mul", "ReduceSum"} <= set(census.islands[0])
    assert {dtype for (kind, dtype) in census.operators if kind == "Conv"} == {"float16"}
    first, last = census.tensors
    assert (first, last) == (
        f"image: uint8 (batch, {SIDE}, {SIDE}, 3)",
        f"shown: uint8 (batch, {SIDE}, {SIDE}, 3)",
    )


def test_pictures_are_cast_first_and_last(made: tuple[Artifact, list[str]]) -> None:
    nodes = list(onnx.load(str(made[0].path)).graph.node)
    assert [node.op_type for node in nodes if "image" in node.input] == ["Cast"]
    assert [node.op_type for node in nodes[-3:]] == ["Round", "Transpose", "Cast"]


def test_onnx_runtime_engine_runs_it_on_pictures(made: tuple[Artifact, list[str]]) -> None:
    class Now:
        handle = None

        def launch(self, work: Any, name: str) -> None:
            work()

    images = real()["image"]
    out = np.zeros_like(images)
    folder = made[0].path.parent
    with load_engine(folder, spec("uint8"), precision="fp16", threads=1) as engine:
        engine.bind({"image": images, "shown": out}, 2).enqueue(Now())
    assert len(np.unique(out)) > 20


def test_bfloat16_goes_through_the_same_mechanism(tmp_path: Path) -> None:
    loose = replace(spec("uint8").tolerances["shown"], max_abs=9.0, cosine=0.99, relative_l2=0.1, psnr=30.0)
    recipe = toy_recipe()
    form = recipe.halves["bf16"]
    form = replace(form, spec=replace(form.spec, tolerances={"shown": loose}))
    artifact = export(tmp_path, replace(recipe, halves={"bf16": form}), precision="bf16")
    assert artifact.path.name == "halftoy.bf16.onnx"
    assert {dtype for kind, dtype in inspect_model(artifact.path).operators if kind == "Conv"} == {"bfloat16"}
    assert {row.case.split("/")[0] for row in artifact.sidecar.fidelity} == {"rounded"}


def test_planted_overflow_is_refused_with_tensor_node_and_module(tmp_path: Path) -> None:
    with pytest.raises(FidelityError, match=r"of node .* in module 'core\.norm' reaches \d") as caught:
        export(tmp_path, toy_recipe(with_bare_norm, replace(RECIPE, islands=())))
    assert "tensors beyond 3e+04: tensor '" in caught.value.message
    assert "(Mul)" in caught.value.message
    assert "an island" in str(caught.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_missed_tolerance_names_the_module_that_misses_it(tmp_path: Path) -> None:
    with pytest.raises(FidelityError, match=r"relative error grows most in module 'core\.last\.1'") as caught:
        export(tmp_path, toy_recipe(with_shaky_end))
    assert "toy-fp16 is not its float32 original: rounded/real/2 shown: max abs" in caught.value.message
    assert "PSNR" in caught.value.message


def test_weights_beyond_the_range_are_named() -> None:
    network = HalfToy()
    torch.nn.init.constant_(network.conv.weight, 4e4)
    with pytest.raises(FidelityError, match=r"weight conv\.weight reaches 4e\+04, expected less than 3e\+04"):
        RECIPE.apply(network)


def test_recipe_halves_all_but_its_islands() -> None:
    network = HalfToy()
    RECIPE.apply(network)
    assert {name: tensor.dtype for name, tensor in network.named_parameters()} == {
        "conv.weight": torch.float16, "conv.bias": torch.float16, "norm.gain": torch.float32,
        "last.0.weight": torch.float16, "last.0.bias": torch.float16,
    }  # fmt: skip


@pytest.mark.parametrize("where", ["last", r"last\.\d", "Sequential"])
def test_islands_hold_everything_inside_them(where: str) -> None:
    network = HalfToy()
    replace(RECIPE, islands=(Island(where, ""), *ISLANDS)).apply(network)
    assert network.last[0].weight.dtype == torch.float32
    assert network.conv.weight.dtype == torch.float16


def test_an_island_that_is_nowhere_is_our_fault() -> None:
    with pytest.raises(InternalError, match="recipe toy-fp16: no module 'Warp' in the network"):
        replace(RECIPE, islands=(Island("Warp", ""),)).apply(HalfToy())


def test_every_network_has_every_half_precision_and_reasons() -> None:
    assert set(HALF_RECIPES) == {(name, half) for name in SPECS for half in ("fp16", "bf16")}
    for (name, half), recipe in HALF_RECIPES.items():
        assert RECIPES[name].halves[half].recipe is recipe
        assert RECIPES[name].halves[half].spec == spec_of(name, half)
        assert all(island.reason for island in recipe.islands)
    assert recipe_of("dnet", "fp32").name == "as-trained"


@pytest.mark.parametrize("precision", ["fp8", "", "FP16"])
def test_unknown_precision_is_a_usage_error(tmp_path: Path, precision: str) -> None:
    with pytest.raises(UsageError, match="precision"):
        export_networks(["dnet"], checkpoints=None, weights="seeded", artifacts=tmp_path, precision=precision)
    with pytest.raises(UsageError, match="precision"):
        export(tmp_path, precision=precision)
    with pytest.raises(UsageError, match="no recipe for dnet"):
        recipe_of("dnet", precision)


def test_specs_of_half_artifacts_have_pictures_as_bytes() -> None:
    for name in SPECS:
        half = spec_of(name, "fp16")
        for tensor in (*half.inputs, *half.outputs):
            is_picture = tensor.shape[-1] == 3 or tensor.name == "masks"
            assert (tensor.dtype == "uint8") == is_picture
            if is_picture:
                assert (tensor.low, tensor.high) == (0.0, 255.0)
        assert (half.max_batch, half.gmacs, half.name) == (SPECS[name].max_batch, SPECS[name].gmacs, name)
    assert [tensor.name for tensor in spec_of("dnet", "fp16").outputs] == ["edited"]
    with pytest.raises(UsageError, match="unknown network"):
        spec_of("xnet", "fp16")
