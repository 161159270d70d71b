"""`dubstream engines` and `dubstream inspect`, and what `dubstream build` says without TensorRT."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from test_store import KEY, OTHER, PLAN, flip
from toy_networks import publish_toys
from trt_checker import toys
from typer.testing import CliRunner, Result

from dubstream.engines.errors import ArtifactError, DeviceError, UsageError
from dubstream.engines.specs import SPECS
from dubstream.engines.store import PlanStore
from dubstream.runtime.cli import engines_command

app = typer.Typer()
app.command()(engines_command.build)
app.command()(engines_command.inspect)
app.add_typer(engines_command.engines, name="engines")


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    made = PlanStore(tmp_path / "engines")
    made.obtain(KEY, lambda: PLAN)
    made.obtain(OTHER, lambda: b"another plan")
    return made


def call(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def test_list_shows_what_is_there(store: PlanStore) -> None:
    result = call("engines", "list", "--engines", store.root)
    assert result.exit_code == 0
    for word in ("lnet", "enet", "NVIDIA H200", "11.4.0.106", KEY.digest()[:12]):
        assert word in result.stdout


def test_verify_exits_2_when_a_plan_is_damaged(store: PlanStore) -> None:
    assert call("engines", "verify", "--engines", store.root).exit_code == 0
    flip(store.root / KEY.digest() / "plan")
    result = call("engines", "verify", "--engines", store.root)
    assert result.exit_code == 2
    assert "SHA-256" in result.stdout


def test_prune_deletes_the_damaged_and_what_is_asked_for(store: PlanStore) -> None:
    flip(store.root / KEY.digest() / "plan")
    result = call("engines", "prune", "--engines", store.root)
    assert KEY.digest()[:12] in result.stdout
    assert OTHER.digest()[:12] not in result.stdout
    assert "lnet" not in call("engines", "prune", "--older-than", 1, "--engines", store.root).stdout
    assert "enet" in call("engines", "prune", "--older-than", 0, "--engines", store.root).stdout
    assert "enet" not in call("engines", "list", "--engines", store.root).stdout


def test_inspect_shows_a_model(tmp_path: Path) -> None:
    result = call("inspect", toys.warp(tmp_path, "float16")[0])
    assert result.exit_code == 0
    for words in ("1 FP32 islands", "GridSample", "image: float16 (batch, 4, 16, 16)"):
        assert words in result.stdout


def test_inspect_shows_a_stored_plan_by_its_digest(store: PlanStore) -> None:
    assert "kernels" in call("inspect", KEY.digest()[:8], "--engines", store.root).stdout
    result = call("inspect", "nothing", "--engines", store.root)
    assert isinstance(result.exception, UsageError)


@pytest.mark.parametrize("weights", [["--weights", "seeded"], ["--checkpoints", "files"]])
def test_a_missing_precision_is_named_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUBSTREAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    for spec in SPECS.values():
        (tmp_path / "files" / spec.checkpoint).write_bytes(b"weights")
    error = call("build", "lnet", "--precision", "bf16", *weights).exception
    assert isinstance(error, ArtifactError)
    (folder,) = (tmp_path / "cache" / "artifacts").iterdir()
    command = f"dubstream export lnet --artifacts {folder} --precision bf16 {' '.join(weights)}"
    assert error.hint == f"remake it: {command}"


def test_build_without_tensorrt_is_a_device_error_with_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    publish_toys(tmp_path)
    result = call("build", "--artifacts", tmp_path, "--precision", "fp32", "--engines", tmp_path / "engines")
    assert isinstance(result.exception, DeviceError)
    assert "pip install" in str(result.exception)
