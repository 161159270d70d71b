"""`dubstream bench` as a user meets it: tables, JSON, rows, base files, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_toys import TINY
from toy_networks import publish_toys

from dubstream.benchmarks.bench.method.rounds import measure_rounds
from dubstream.benchmarks.bench.networks import bench as networks
from dubstream.benchmarks.bench.networks import command, peaks, variants
from dubstream.engines.errors import DeviceError
from dubstream.engines.specs import SPECS
from dubstream.runtime.cli.app import run

Bench = Callable[..., int]
QUICK = ("--threads", "1", "--repeats", "5", "--batch", "1", "--no-first-calls")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    publish_toys(folder)
    return folder


@pytest.fixture
def bench(toys: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(peaks, "ON_CPU", TINY)

    def call(*arguments: str, network: str = "recon") -> int:
        return run(["bench", "--artifacts", str(toys), "--network", network, *QUICK, *arguments])

    return call


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str, expected: int = 2) -> None:
    errors = capsys.readouterr().err
    assert code == expected, errors
    (line,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert "Traceback" not in errors
    for word in words:
        assert word in line


def test_a_table_for_people(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--baseline", "driver", "--baseline", "eager") == 0
    shown = capsys.readouterr().out
    for words in ("recon engine fp32", "p95", "items/s", "of roof", "peak/conv", "no such weights"):
        assert words in shown


def test_json_rows_and_first_calls(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--json", "--first-calls", "--rows", str(tmp_path / "rows.jsonl")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["threads"] == 1
    assert {"cpu", "cores", "versions", "commit", "python"} <= answer.keys()
    (engine,) = (row for row in answer["rows"] if row.get("variant") == "engine")
    assert engine["stage"] == "recon/engine/onnxruntime/fp32"
    assert engine["memory_kind"] == "growth of the peak resident set"
    assert engine["memory_mib"] > 0
    assert engine["open_ms"] > 0
    assert engine["first_run_ms"] > 0
    written = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in written] == [row["stage"] for row in answer["rows"]]
    assert all(row["cpu"] == answer["cpu"] and row["versions"] == answer["versions"] for row in written)


def test_what_was_saved_is_kept_and_what_is_slower_fails(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.json"
    # A clock that ticks in calls, so that this test is about exit codes and not about this machine.
    factor = {"engine/onnxruntime/fp32": 1.0}

    def counted(runs: Any, stop: Any) -> Any:
        found = measure_rounds(runs, stop)
        draw = np.random.default_rng(len(runs))
        for name, series in found.items():
            ticks = factor.get(name, 1.0) * draw.uniform(0.99, 1.01, len(series.wall_s))
            series.wall_s[:] = series.cpu_s[:] = series.device_s[:] = ticks.tolist()
        return found

    monkeypatch.setattr(networks, "measure_rounds", counted)
    assert bench("--save", str(base)) == 0
    assert bench("--against", str(base)) == 0
    assert "kept" in capsys.readouterr().out
    factor["engine/onnxruntime/fp32"] = 1.3
    code = bench("--against", str(base), "--json")
    captured = capsys.readouterr()
    assert code == 1
    assert "recon/engine/onnxruntime/fp32/1 takes 1.30 times as long" in captured.err
    (verdict,) = json.loads(captured.out)["against"]
    assert verdict["outcome"] == "slower"
    assert bench("--against", str(base), "--max-slowdown", "1.5") == 0
    capsys.readouterr()
    code = bench("--against", str(base), network="lnet")
    refused(capsys, code, "nothing could be held against the base", "not in the base", expected=1)


def test_a_wrong_result_ends_with_1_after_the_report_and_saves_nothing(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = variants.Resident.outputs
    monkeypatch.setattr(
        variants.Resident, "outputs", lambda self: {k: v + np.float32(1) for k, v in honest(self).items()}
    )
    code = bench("--rows", str(tmp_path / "rows.jsonl"), "--save", str(tmp_path / "base.json"))
    assert "failed" in (tmp_path / "rows.jsonl").read_text()
    assert not (tmp_path / "base.json").exists()
    refused(capsys, code, "recon/engine/onnxruntime/fp32 at batch 1", "max abs 1 (allowed", expected=1)


def test_time_by_operator(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--by-op") == 0
    shown = capsys.readouterr().out
    assert "MatMul" in shown
    assert "by module" in shown
    assert bench("--by-op", "--json") == 0
    profiles = json.loads(capsys.readouterr().out)["profiles"]
    assert {group["name"] for group in profiles["recon.fp32 at batch 1"]["operators"]} == {
        "ReduceMean",
        "MatMul",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--network", "znet"], ["--network", "znet", *SPECS]),
        (["--baseline", "jit"], ["--baseline", "jit", "compile"]),
        (["--batch", "1,x"], ["--batch", "1,x"]),
        (["--batch", "0"], ["--batch", "0"]),
        (["--threads", "0"], ["--threads", "0"]),
        (["--repeats", "0"], ["--repeats 0"]),
        (["--seconds", "0"], ["--seconds 0"]),
        (["--seconds", "nan"], ["--seconds nan"]),
        (["--backend", "abacus"], ["--backend", "abacus", "tensorrt"]),
        (["--precision", "bf16"], ["--precision", "bf16", "fp32"]),
        (["--backend", "onnxruntime", "--backend", "tensorrt"], ["--backend", "one device"]),
        (["--max-slowdown", "1"], ["--max-slowdown", "more than 1"]),
        (["--max-slowdown", "nan"], ["--max-slowdown", "more than 1"]),
        (["--against", "absent.json"], ["absent.json", "--save"]),
        (["--save", "absent/base.json"], ["absent", "mkdir"]),
        (["--rows", "absent/rows.jsonl"], ["absent", "mkdir"]),
        (["--by-op", "--baseline", "eager"], ["--by-op"]),
        (["--weights", "other"], ["--weights", "--artifacts"]),
    ],
)
def test_bad_usage(
    bench: Bench, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    refused(capsys, bench(*arguments), *words)


def test_a_backend_that_is_not_there_shows_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: Any, **options: Any) -> Any:
        raise DeviceError("no driver")

    monkeypatch.setattr(command, "open_platform", missing)
    code = run(["bench", "--artifacts", str(tmp_path), "--backend", "tensorrt"])
    refused(capsys, code, "no driver", expected=69)


def test_no_artifacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, run(["bench"]), "--artifacts DIR", "--weights seeded")
    refused(capsys, run(["bench", "--artifacts", str(tmp_path)]), "dubstream export")
