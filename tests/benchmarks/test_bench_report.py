"""Rows read by what is in them, and drawn: nothing invented, nothing lost without a count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dubstream.benchmarks.bench.method.row_files import read_rows, write_rows
from dubstream.benchmarks.bench.report.data import find
from dubstream.benchmarks.bench.report.plots import is_ours, plot_latency, render
from dubstream.benchmarks.bench.report.points import Dub, FidelityPoint, Machine, NetworkPoint, PeakPoint
from dubstream.benchmarks.bench.report.report import network_table, plots, ratios, sections
from dubstream.engines.errors import StorageError
from dubstream.engines.page import Table, Verdict
from dubstream.engines.specs import SPECS
from dubstream.runtime.cli.app import run

HERE: dict[str, Any] = {"cpu": "Some CPU", "cores": 2, "commit": "abc", "versions": {"numpy": "2"}}
THERE = {**HERE, "gpu": {"name": "Some GPU"}}
Row = dict[str, Any]


def network(stage: str, median: float, **facts: Any) -> Row:
    row = {"stage": stage, "unit": "ms", "n": 9, "median": median, "low": 0.9 * median, "high": 1.2 * median}
    return {**row, "batch": 1, "threads": 2, **HERE, **facts}


def dub(**facts: Any) -> Row:
    row = {"stage": "dub/clip", "n": 1, "frames": 10, "fps": 2.5, "busy_s": {"enet": 3.0, "read": 1.0}}
    return {**row, "wall_over_slowest": {"synthesise": 1.25}, "peak_rss_mib": 100.0, **HERE, **facts}


def fidelity(**facts: Any) -> Row:
    row = {"stage": "fidelity/enet/fp32", "n": 4, "max_abs": 1e-5, "tolerance_share": 0.1, "cosine": 1.0}
    return {**row, "relative_l2": 1e-6, "psnr": None, **facts}


PEAK: Row = {
    "stage": "peak/conv",
    "unit": "GFLOP/s",
    "n": 7,
    "median": 200.0,
    "low": None,
    "high": 210,
    **HERE,
}
ROWS: list[Row] = [
    network("enet/eager", 3000.0),
    network("enet/onnx", 1500.0, precision="fp32"),
    network("enet/eager", 12000.0, batch=4),
    network("enet/onnx", 4000.0, batch=4, precision="fp32"),
    dub(),
    PEAK,
    fidelity(),
]


def test_rows_become_what_they_are_about() -> None:
    findings = find(ROWS)
    (machine,) = findings.machines
    assert machine.title == "Some CPU, 2 cores"
    first, second, *_ = findings.of(machine, NetworkPoint)
    assert (first.variant, first.ms, first.low_ms, first.items_per_s) == (
        "eager",
        3000,
        2700,
        pytest.approx(1 / 3),
    )
    assert second.gflops == pytest.approx(2 * SPECS["enet"].gmacs / 1.5)
    (found,) = findings.of(machine, Dub)
    assert [(stage.stage, stage.ms_per_frame, stage.share) for stage in found.stages] == [
        ("enet", 300.0, 0.75),
        ("read", 100.0, 0.25),
    ]
    assert findings.of(machine, PeakPoint)[0].median == 200
    assert findings.all(FidelityPoint)[0].psnr is None
    assert findings.skipped == {}


def test_frames_per_second_and_milliseconds_are_one_scale() -> None:
    facts = {"unit": "fps", "low": 20.0, "high": 80.0, "batch": 4, **THERE}
    (point,) = find([network("networks/enet/tensorrt/driver", 40.0, **facts)]).all(NetworkPoint)
    assert (point.ms, point.low_ms, point.high_ms, point.items_per_s) == (100, 50, 200, pytest.approx(40))
    assert not is_ours(point)


def test_of_equal_cases_the_last_row_counts_and_machines_stay_apart() -> None:
    findings = find(
        [network("enet/onnx", 1.0), network("enet/onnx", 2.0), network("enet/onnx", 3.0, **THERE)]
    )
    assert [machine.gpu for machine in findings.machines] == [None, "Some GPU"]
    assert [[point.ms for point in findings.of(machine, NetworkPoint)] for machine in findings.machines] == [
        [2],
        [3],
    ]


def test_stages_measured_batch_by_batch_replace_those_of_the_whole() -> None:
    stage = {
        "stage": "dub/clip/enet",
        "ms_per_frame": 7.0,
        "share": 1.0,
        "p50": 5.0,
        "p95": 6.0,
        "p99": 6.5,
        **HERE,
    }
    (found,) = find([dub(), stage]).all(Dub)
    assert [(one.stage, one.ms_per_frame, one.batch_ms["p95"]) for one in found.stages] == [
        ("enet", 7.0, 6.0)
    ]
    (later,) = find([dub(), stage, dub()]).all(Dub)
    assert [one.stage for one in later.stages] == ["enet", "read"]
    assert find([stage]).skipped == {"a stage without its dub": 1}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"unit": "ms"}, "no stage"),
        ({"against": "enet/engine/1", "outcome": "kept"}, "fields missing or of another type"),
        ({"stage": "kernels/crop", "unit": "ms", **HERE}, "unknown"),
        ({"stage": "nonet/eager", "batch": 1, **HERE}, "unknown"),
        (network("enet/onnx", 1.0, dry_run=True), "dry run"),
        (network("enet/compile", 1.0, status="not run"), "fields missing or of another type"),
        (network("enet/onnx", 1.0, unit="furlongs"), "fields missing or of another type"),
        (network("enet/onnx", -1.0), "fields missing or of another type"),
        ({"stage": "enet/onnx", "batch": 1, "unit": "ms", **HERE}, "fields missing or of another type"),
        (dub(frames=0), "fields missing or of another type"),
        (dub(cpu=None, cores=None), "fields missing or of another type"),
        (fidelity(max_abs=None), "fields missing or of another type"),
    ],
)
def test_a_row_that_says_nothing_known_is_counted(row: Row, why: str) -> None:
    findings = find([*ROWS, row])
    assert findings.skipped == {why: 1}
    assert len(findings.points) == len(ROWS)


def test_ratios_compare_like_with_like() -> None:
    found = ratios(find(ROWS).all(NetworkPoint))
    assert [(ratio.ours.batch, ratio.value) for ratio in found] == [(1, 2.0), (4, 3.0)]
    for change in ({"commit": "other"}, {"threads": 1}, {"batch": 2}):
        rows = [network("enet/eager", 3000.0), network("enet/onnx", 1500.0, **change)]
        assert ratios(find(rows).all(NetworkPoint)) == []


@pytest.mark.parametrize(("rounds", "interval"), [(5, (2.4, 2.6)), (4, None)])
def test_a_paired_ratio_is_taken_from_the_row_its_interval_where_rounds_suffice(
    rounds: int, interval: tuple[float, float] | None
) -> None:
    over = {"eager": {"estimate": 2.5, "low": 2.4, "high": 2.6}}
    stage = "enet/engine/onnxruntime/fp32"
    rows = [network("enet/eager", 3000.0), network(stage, 1500.0, precision="fp32", over=over, n=rounds)]
    (ratio,) = ratios(find(rows).all(NetworkPoint))
    assert (ratio.value, ratio.interval) == (2.5, interval)
    assert ratio.ours.label == "engine/onnxruntime fp32"


def test_a_driven_engine_is_compared_with_itself() -> None:
    rows = [
        network(f"enet/{kind}/onnxruntime/{precision}", 10.0, precision=precision)
        for kind in ("engine", "driver")
        for precision in ("fp16", "fp32")
    ]
    found = ratios(find(rows).all(NetworkPoint))
    assert [(ratio.ours.label, ratio.baseline.label) for ratio in found] == [
        (f"engine/onnxruntime {precision}", f"driver/onnxruntime {precision}")
        for precision in ("fp16", "fp32")
    ]


def test_what_was_not_measured_and_what_is_slower_is_said_with_the_reason() -> None:
    interval = {"estimate": 1.3, "low": 1.25, "high": 1.35}
    findings = find(
        [
            {"stage": "enet/compile", "batch": 1, "status": "not run", "reason": "no C compiler", **HERE},
            {"stage": "lnet/engine", "status": "failed", "reason": "off by 0.1", **HERE},
            {"against": "enet/engine/1", "outcome": "slower", "slowdown": interval, "raw": 1.4},
            {"against": "recon/engine/1", "outcome": "not in the base", "slowdown": None, "raw": None},
        ]
    )
    absent, against = sections(findings, [])
    assert (absent.verdict, against.verdict) == (Verdict.FAILED, Verdict.FAILED)
    assert isinstance(absent.parts[0], Table)
    assert isinstance(against.parts[0], Table)
    assert [row[1:] for row in absent.parts[0].rows] == [
        ("1", Verdict.NOT_RUN, "no C compiler"),
        ("", Verdict.FAILED, "off by 0.1"),
    ]
    assert [row[1:] for row in against.parts[0].rows] == [
        (Verdict.FAILED, "slower", 1.3, "1.250–1.350"),
        (Verdict.NOT_RUN, "not in the base", None, ""),
    ]
    assert findings.skipped == {}


def test_the_table_says_how_far_from_the_peak_and_from_eager() -> None:
    findings = find(ROWS)
    table = network_table(findings.all(NetworkPoint), findings.all(PeakPoint))
    ours = dict(zip(table.columns, table.rows[0], strict=True))
    gflops = 2 * SPECS["enet"].gmacs / 1.5
    assert (ours["variant"], ours["times eager"]) == ("onnx fp32", "2.00")
    assert ours["of peak"] == f"{100 * gflops / 200:.0f} %"


def test_every_kind_of_row_has_its_plot_and_its_section() -> None:
    findings = find([*ROWS, {"stage": "what"}])
    drawn = list(plots(findings))
    assert [plot.stem for plot in drawn] == ["latency", "throughput", "gflops", "ratios", "dub-clip"]
    titles = [section.title for section in sections(findings, drawn)]
    assert titles == [
        "Networks: Some CPU, 2 cores", "Dub of clip: Some CPU, 2 cores", "Fidelity of the artifacts", "Plots",
        "Rows left out",
    ]  # fmt: skip
    assert list(plots(find([fidelity()]))) == []


def test_equal_rows_give_equal_pictures() -> None:
    points = find(ROWS).all(NetworkPoint)
    first, second = (render(plot_latency(points, "Latency"), "svg") for _ in range(2))
    assert first == second
    assert b"eager" in first
    assert b"onnx fp32" in first


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    return path


def test_the_command_writes_one_page_and_the_plots(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    page = tmp_path / "report.html"
    assert run(["bench", "report", str(rows), "--html", str(page), "--png", str(tmp_path / "plots")]) == 0
    text = page.read_text()
    assert "Some CPU, 2 cores" in text
    assert text.count("data:image/svg+xml") == 5
    written = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert written == ["dub-clip.png", "gflops.png", "latency.png", "ratios.png", "throughput.png"]
    assert (tmp_path / "plots" / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_target_the_tables_are_printed(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "report", str(rows)]) == 0
    shown = capsys.readouterr().out
    assert "Dub of clip" in shown
    assert "Fidelity of the artifacts" in shown


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{broken", "line 2"),
        ("[1]", "line 2"),
        ('"text"', "line 2"),
        ("9" * 5000, "line 2"),
        ("\udcff", "UTF-8"),
    ],
)
def test_a_broken_line_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, word: str
) -> None:
    path, page = tmp_path / "rows.jsonl", tmp_path / "report.html"
    path.write_bytes((json.dumps(ROWS[0]) + "\n" + line + "\n").encode(errors="surrogateescape"))
    assert run(["bench", "report", str(path), "--html", str(page)]) == 2
    assert word in capsys.readouterr().err
    assert not page.exists()


@pytest.mark.parametrize("option", ["--html", "--png", "--svg"])
def test_a_target_that_is_not_there_is_refused(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert run(["bench", "report", str(rows), option, str(tmp_path / "missing" / "x")]) == 2
    assert "mkdir -p" in capsys.readouterr().err


def test_rows_nobody_knows_are_an_error_with_the_command_that_makes_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"stage": "what"}])
    assert run(["bench", "report", str(path)]) == 2
    assert "--rows FILE" in capsys.readouterr().err


def test_rows_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    assert read_rows([path]) == ROWS
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_rows(path, [{"stage": "new"}, {"stage": float("nan")}])
    assert read_rows([path]) == ROWS
    with pytest.raises(StorageError, match="reading"):
        read_rows([tmp_path / "missing.jsonl"])


def test_machines_differ_by_their_gpu() -> None:
    assert Machine("CPU", 1).title == "CPU, 1 core"
    assert Machine("CPU", 16, "GPU").title == "GPU (CPU, 16 cores)"
