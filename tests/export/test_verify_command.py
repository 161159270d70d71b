"""`dubstream verify` on a toy: exit codes, table, JSON, golden and report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from verify_toys import NAME, Exported, alter, flipped, toy_copy

from dubstream.export.recipes import RECIPES
from dubstream.export.verify import command, run
from dubstream.export.verify.explain import Explainer
from dubstream.runtime.cli.app import run as dubstream

CPU = ["--backend", "onnxruntime", "--threads", "1"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exported:
    made = toy_copy(tmp_path / "artifacts")
    monkeypatch.setattr(command, "SPECS", {NAME: made.recipe.spec})
    monkeypatch.setattr(command, "CORE", (NAME,))
    monkeypatch.setattr(run, "RECIPES", {NAME: made.recipe})
    return made


def verify(toy: Exported, *options: str) -> int:
    return dubstream(["verify", "--artifacts", str(toy.folder), *CPU, *options])


def test_networks_of_the_command_are_those_with_a_recipe() -> None:
    assert set(command.SPECS) == set(RECIPES) >= set(command.CORE)


def test_a_chain_that_holds(toy: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(toy) == 0
    shown = capsys.readouterr().out
    assert shown.count("passed") == 7
    assert "fp16/onnxruntime" in shown
    assert "not run: halftoy bf16/onnx: no halftoy.bf16.onnx" in shown
    assert "seeded:retalk" in shown


def test_json_alone_is_on_standard_output(toy: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(toy, "--quick", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] is True
    assert found["facts"]["weights"] == "seeded:retalk"
    assert {link["verdict"] for link in found["links"]} == {"passed", "not run"}
    row = found["links"][0]["rows"][0]
    assert {"max_abs", "mean_abs", "relative_l2", "cosine", "psnr", "ssim", "share", "nan", "inf"} <= set(row)


def test_a_fault_ends_with_one_and_names_link_and_module(
    toy: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(toy, "fp16", flipped)
    page, golden = tmp_path / "report.html", tmp_path / "golden.json"
    assert verify(toy, "--report", str(page), "--save", str(golden)) == 1
    said = capsys.readouterr()
    finding = r"error: halftoy fp16/onnx against fp32/onnx: \w+/\d \w+: max abs \S+ \(allowed "
    assert re.search(finding, said.err), said.err  # link, row and value
    assert "module 'core.conv'" in said.err
    assert "2 more findings" in said.err
    assert not golden.exists()  # only what holds becomes a golden
    written = page.read_text()
    assert written.count("data:image/png") == 6  # reference, output and difference, in two precisions
    assert "data:image/svg+xml" in written
    assert "core.conv" in written


def test_the_search_for_the_cause_can_be_left(
    toy: Exported, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Explainer, "__call__", pytest.fail)
    alter(toy, "fp16", flipped)
    assert verify(toy, "--quick", "--precision", "fp16", "--no-search", "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["holds"] is False
    assert "error: halftoy fp16/onnx against fp32/onnx: uniform/1 " in said.err
    assert "module" not in said.err


def test_a_golden_is_saved_and_compared(
    toy: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.json"
    assert verify(toy, "--quick", "--precision", "fp32", "--save", str(golden)) == 0
    capsys.readouterr()
    half = ("--quick", "--precision", "fp32", "--precision", "fp16")
    assert verify(toy, *half, "--golden", str(golden), "--json") == 0
    links = {
        (link["link"], link["verdict"])
        for link in json.loads(capsys.readouterr().out)["links"]
        if link["against"] == "golden"
    }
    assert links == {
        ("fp32/torch", "passed"), ("fp32/onnx", "passed"), ("fp32/onnxruntime", "passed"),
        ("fp16/onnx", "not run"), ("fp16/onnxruntime", "not run"),  # the golden was made without them
    }  # fmt: skip
    alter(toy, "fp32", flipped)
    assert verify(toy, "--quick", "--precision", "fp32", "--golden", str(golden)) == 1


def test_a_required_link_that_is_missing_is_a_failure(
    toy: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(toy, "--quick", "--precision", "fp32", "--require", "bf16/onnx") == 1
    assert "bf16/onnx is required and was not run: no halftoy.bf16.onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--network", "gnet"], "--network received 'gnet'"),
        (["--precision", "int8"], "--precision received 'int8'"),
        (["--backend", "cuda"], "--backend received 'cuda'"),
        (["--require", "fp16"], "--require received 'fp16'"),
        (["--threads", "0"], "--threads 0"),
        (["--save", "/nowhere/golden.json"], "cannot write /nowhere/golden.json"),
        (["--golden", "/nowhere/golden.json"], "expected a golden file, found none"),
        (["--clip", "/nowhere/clip.mp4"], "/nowhere/clip.mp4"),
        (["--weights", "trained"], "'seeded'"),
    ],
)
def test_bad_options_end_before_any_work(
    toy: Exported, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert verify(toy, *options) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_a_missing_library_is_named_before_any_work(
    toy: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    assert verify(toy) == 2
    assert "skimage.metrics is not installed" in capsys.readouterr().err


def test_nothing_to_verify_is_not_a_success(
    toy: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert dubstream(["verify", "--artifacts", str(tmp_path / "empty"), *CPU]) == 2
    assert "nothing could be verified" in capsys.readouterr().err
    assert dubstream(["verify"]) == 2
    assert "give --artifacts DIR" in capsys.readouterr().err


def test_the_command_line_starts_without_what_verify_needs() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'polygraphy', 'skimage', 'matplotlib', 'jinja2', 'av'}"
    code = f"import dubstream.export.verify.command, sys; print(*sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
