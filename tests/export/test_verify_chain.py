"""The chain on a toy: who is compared with whom, who is blamed, and what is not run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from verify_toys import Exported, alter, flipped, toy_copy

from dubstream.engines.errors import ArtifactError, DeviceError, UsageError
from dubstream.engines.weights import WeightsChoice
from dubstream.export.verify import chain as chains
from dubstream.export.verify.explain import Explainer
from dubstream.export.verify.links import Link, link_named, links_of
from dubstream.export.verify.pictures import planes_of
from dubstream.export.verify.result import ChainReport, LinkResult
from dubstream.export.verify.root import load_root

HALF_COMPARISONS = [
    ("fp16/onnx", "fp32/onnx"),
    ("fp16/onnx", "fp32/torch"),
    ("fp16/onnxruntime", "fp16/onnx"),
    ("fp16/onnxruntime", "fp32/torch"),
]
COMPARISONS = [
    ("fp32/onnx", "fp32/torch"),
    ("fp32/onnxruntime", "fp32/onnx"),
    ("fp32/onnxruntime", "fp32/torch"),
    *HALF_COMPARISONS,
]


@pytest.fixture
def toy(tmp_path: Path) -> Exported:
    return toy_copy(tmp_path)


def verdicts(results: list[LinkResult]) -> dict[tuple[str, str], str]:
    return {(result.link, result.against): result.verdict for result in results}


def test_every_link_is_compared_with_its_predecessor_and_with_the_root(toy: Exported) -> None:
    results = toy.chain(precisions=("fp32", "fp16")).verify()
    assert verdicts(results) == dict.fromkeys(COMPARISONS, "passed")
    assert all(result.rows and result.seconds > 0 for result in results)
    for result in results:
        rounded = (result.link, result.against) == ("fp16/onnxruntime", "fp16/onnx")
        assert result.reason == (
            "both links round; each is held to this from PyTorch: a toy" if rounded else "a toy"
        )
    assert all(0 <= row.share <= 1 and row.ssim > 0.99 for result in results for row in result.rows)
    cases = [row.case for row in results[0].rows]
    assert cases == ["uniform/3", "ends/1", "real/2", "constant/1", "saturated/1", "checkerboard/1"]
    plain = ChainReport(tuple(results), {}).as_json()
    assert json.loads(json.dumps(plain, allow_nan=False))["holds"] is True


def test_a_fault_in_the_float32_file_is_found_there_and_named(toy: Exported) -> None:
    alter(toy, "fp32", flipped)
    results = toy.chain(precisions=("fp32",)).verify(Explainer())
    assert verdicts(results) == {
        ("fp32/onnx", "fp32/torch"): "failed",
        ("fp32/onnxruntime", "fp32/onnx"): "passed",  # the executor is innocent
        ("fp32/onnxruntime", "fp32/torch"): "failed",
    }
    assert (results[0].fault.module, results[0].fault.op) == ("conv", "Conv")
    assert "relative L2" in results[0].worst.problem


def test_a_fault_in_the_half_precision_file_leaves_float32_alone(toy: Exported) -> None:
    alter(toy, "fp16", flipped)
    results = toy.chain(precisions=("fp32", "fp16")).verify(Explainer())
    failed = {pair for pair, verdict in verdicts(results).items() if verdict == "failed"}
    assert failed == set(HALF_COMPARISONS) - {("fp16/onnxruntime", "fp16/onnx")}
    assert {result.fault.module for result in results if result.link == "fp16/onnx"} == {"core.conv"}


def test_what_is_not_finite_is_found_and_counted(toy: Exported) -> None:
    alter(toy, "fp32", lambda weights: np.full_like(weights, np.nan))
    results = toy.chain(quick=True, precisions=("fp32",)).verify(Explainer())
    assert {result.verdict for result in results} == {"failed"}
    assert results[0].worst.nan == (0, 3 * 8 * 8)
    assert results[1].worst.nan == (3 * 8 * 8,) * 2  # equal, and still no pass
    assert results[0].fault.op == "Conv"
    json.dumps(ChainReport(tuple(results), {}).as_json(), allow_nan=False)


def test_a_missing_backend_is_not_run_and_never_passed(
    toy: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> None:
        raise DeviceError("no such device")

    monkeypatch.setattr(chains, "open_backend", nothing)
    chain = toy.chain(quick=True, precisions=("fp32",))
    chain.settings = replace(chain.settings, links=[Link("fp32", "onnx"), Link("fp32", "tensorrt")])
    onnx, *others = chain.verify()
    assert onnx.verdict == "passed"
    (missing,) = others
    assert (missing.verdict, missing.against, missing.rows) == ("not run", "fp32/onnx", ())
    assert "no such device" in missing.reason
    assert ChainReport((onnx, missing), {}).holds
    assert not ChainReport((onnx, missing), {}, required=("fp32/tensorrt",)).holds


def test_an_artifact_that_is_missing_is_not_run(toy: Exported) -> None:
    for path in toy.folder.glob("*.fp32.*"):
        path.unlink()
    results = toy.chain(quick=True, precisions=("fp32", "fp16")).verify()
    assert verdicts(results) == {
        ("fp32/onnx", "fp32/torch"): "not run",
        ("fp32/onnxruntime", "fp32/onnx"): "not run",
        ("fp16/onnx", "fp32/torch"): "passed",  # its nearest ancestor that ran
        ("fp16/onnxruntime", "fp16/onnx"): "passed",
        ("fp16/onnxruntime", "fp32/torch"): "passed",
    }
    assert "dubstream export" in results[0].reason


def test_half_precisions_alone_still_have_their_predecessor(toy: Exported) -> None:
    chain = toy.chain(quick=True, precisions=("fp16",))
    assert verdicts(chain.verify()) == dict.fromkeys(HALF_COMPARISONS, "passed")
    assert list(chain.planes.results.keys()) == []


def test_pictures_that_only_a_clamp_bounds_have_a_rounding_floor(toy: Exported) -> None:
    for path in toy.folder.glob("*.fp32.*"):
        path.unlink()  # of another spec than the one below
    chain = toy.chain(precisions=("fp16",))
    assert chain.rounding("fp16") == {}
    spec = toy.recipe.spec
    endless = replace(spec, outputs=(replace(spec.outputs[0], low=None, high=None),))
    chain = toy.chain(precisions=("fp16",))
    chain.recipe = replace(toy.recipe, spec=endless)
    floors = chain.rounding("fp16")
    assert {case for case, _ in floors} == {"ends/1", "constant/1", "saturated/1", "checkerboard/1"}
    assert all(0 < row.max_abs < 2 for row in floors.values())


def test_a_damaged_or_foreign_artifact_is_an_error(toy: Exported) -> None:
    chain = toy.chain(quick=True, precisions=("fp32",))
    chain.source = "seeded:other"
    with pytest.raises(ArtifactError, match=r"seeded:retalk.*seeded:other"):
        chain.verify()
    path = toy.folder / "halftoy.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="SHA-256"):
        toy.chain(quick=True, precisions=("fp32",)).verify()


def test_the_root_needs_the_weights_the_artifacts_name(toy: Exported, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert load_root(toy.recipe, tmp_path / "empty", ("fp32",), None) is None
    seeded = load_root(toy.recipe, tmp_path / "empty", ("fp32",), WeightsChoice(None))
    assert seeded is not None
    assert seeded.source == "seeded:retalk"
    sidecar = toy.folder / "halftoy.fp32.json"
    sidecar.write_text(sidecar.read_text().replace("retalk", "tempered"))
    with pytest.raises(ArtifactError, match="seal"):
        load_root(toy.recipe, toy.folder, ("fp32",), None)


def test_a_clip_is_a_probe_of_both_domains(toy: Exported) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    results = toy.chain(quick=True, precisions=("fp32", "fp16"), frames=[frame]).verify()
    assert all("clip/1" in {row.case for row in result.rows} for result in results)
    assert {result.verdict for result in results} == {"passed"}


def test_planes_are_what_the_pictures_become_inside(toy: Exported) -> None:
    form = toy.recipe.half("fp16")
    pixels = form.real()["image"]
    planes = planes_of({"image": pixels}, toy.recipe.spec, form)["image"]
    np.testing.assert_allclose(planes, pixels.transpose(0, 3, 1, 2) / np.float32(255), rtol=1e-6)
    assert planes.dtype == np.float32


def test_words_for_links() -> None:
    assert [link.name for link in links_of(["fp16"], ["tensorrt"])] == ["fp16/onnx", "fp16/tensorrt"]
    assert link_named("bf16/tensorrt").predecessor == Link("bf16", "onnx")
    assert [link.name for link in link_named("fp16/tensorrt").ancestors()] == [
        "fp16/onnx", "fp32/onnx", "fp32/torch",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="fp16/tensorrt"):
        link_named("fp16/tensorflow")
    with pytest.raises(UsageError, match="onnxruntime-cuda"):
        links_of([], ["cuda"])
