"""`dubstream bench dub` on toy networks: every stage once, rows that add up, nothing left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from clips import QUICK, write_portrait, write_speech
from toy_networks import publish_toys

from dubstream.benchmarks.bench.dubs import dub as subject
from dubstream.benchmarks.bench.dubs.against import dub_cases
from dubstream.benchmarks.bench.dubs.dub import DubBench, bench_dub, check_written
from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import InternalError, UsageError
from dubstream.runtime.cli.app import run
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions

FRAMES = 12
OPTIONS = DubOptions(stream=StreamOptions(batch=3, threads=1), encode=QUICK)
MACHINE = {"cpu": "Some CPU", "cores": 2}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    write_portrait(folder / "talk.mp4", FRAMES)
    write_speech(folder / "voice.wav", FRAMES / 25)
    return folder


@pytest.fixture(scope="module")
def toys(stock: Path) -> dict[str, Artifact]:
    return publish_toys(stock / "artifacts")


@pytest.fixture(scope="module")
def bench(stock: Path, toys: dict[str, Artifact]) -> DubBench:
    return bench_dub(stock / "talk.mp4", stock / "voice.wav", toys, OPTIONS, repeats=2)


def test_every_run_does_all_the_work(bench: DubBench) -> None:
    assert bench.frames == 2 * FRAMES
    assert bench.same_bytes
    for run_ in bench.runs:
        assert run_.summary.reused == {"segments": 0}
    found = {stage.stage: stage for stage in bench.stages}
    for stage in ("track", "audio", "assemble"):
        assert len(found[stage].batches_s) == 2
    for stage in ("prepare/dnet", "synthesise/lnet", "synthesise/enet", "synthesise/blend"):
        # Both runs, in batches of 3, of every frame with a face.
        assert len(found[stage].batches_s) == 2 * -(-found[stage].frames // 2 // 3)
        assert sum(found[stage].batches_s) == pytest.approx(found[stage].busy_s)


def test_a_preparation_leaves_the_second_pass_alone(
    bench: DubBench, stock: Path, toys: dict[str, Artifact], tmp_path: Path
) -> None:
    whole = DubRequest(
        stock / "talk.mp4", stock / "voice.wav", tmp_path / "dub.mp4", toys, tmp_path / "cache", OPTIONS
    )
    subject.dub(whole)
    (folder,) = (entry for entry in (tmp_path / "cache" / "prepared").iterdir() if entry.is_dir())
    second = bench_dub(whole.video, stock / "voice.wav", toys, OPTIONS, prepared=folder)
    assert [one.part for one in second.passes] == ["synthesise"]
    assert second.runs[0].sha256 == bench.runs[0].sha256
    assert not {"dnet", "recon"} & set(second.runs[0].summary.networks)
    assert second.setting["prepared"]
    for timed, where in ((second, "2 prepared True"), (bench, "2")):
        each = (1e-12,) * len(timed.runs)
        anchors = SimpleNamespace(cpu_share=0.5, around=lambda each=each: (each, each))
        assert {name.rpartition(" slots ")[2] for name in dub_cases(timed, anchors)} == {where}


def test_rows_add_up_and_name_neither_files_nor_folders(bench: DubBench, stock: Path) -> None:
    rows = [json.loads(json.dumps(row, allow_nan=False)) for row in bench.rows(MACHINE)]
    whole = [row for row in rows if row["stage"] == "dub/talk"]
    stages = [row for row in rows if row["stage"].startswith("dub/talk/")]
    assert [row["run"] for row in whole] == [0, 1]
    assert sum(row["share"] for row in stages) == pytest.approx(1, abs=1e-4)
    busy = sum(sum(row["busy_s"].values()) for row in whole)
    assert sum(row["ms_per_frame"] for row in stages) == pytest.approx(1e3 * busy / bench.frames, rel=1e-3)
    assert all(row["p50"] <= row["p95"] <= row["p99"] for row in stages)
    assert all(row["cpu"] == "Some CPU" and row["batch"] == 3 and row["threads"] == 1 for row in rows)
    sizes = {row["stage"].removeprefix("dub/talk/"): row["bytes"] for row in stages if "bytes" in row}
    assert set(sizes) == {
        f"{part}/{copy}" for part in ("prepare", "synthesise") for copy in ("upload", "download")
    }
    assert sizes["synthesise/download"] == 2 * whole[0]["dubbed"] * 480 * 480 * 3
    assert str(stock) not in json.dumps(rows)
    assert {row["sha256"] for row in whole} == {bench.runs[0].sha256}


def test_a_dub_that_is_not_what_it_says_is_not_timed(bench: DubBench, stock: Path) -> None:
    summary = bench.runs[0].summary
    check_written(summary, stock / "talk.mp4", OPTIONS)
    with pytest.raises(InternalError, match="wrote 13 frames"):
        check_written(replace(summary, frames=FRAMES + 1), stock / "talk.mp4", OPTIONS)
    with pytest.raises(InternalError, match=r"0\.050 s apart"):
        check_written(replace(summary, av_gap_s=0.05), stock / "talk.mp4", OPTIONS)


@pytest.mark.parametrize(("repeats", "name"), [(0, None), (1, "a/b"), (1, "")])
def test_arguments_are_checked_before_any_work(
    stock: Path, toys: dict[str, Artifact], repeats: int, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "dub", lambda *_: pytest.fail("it began to work"))
    with pytest.raises(UsageError, match="--repeats"):
        bench_dub(stock / "talk.mp4", stock / "voice.wav", toys, OPTIONS, repeats=repeats, name=name)


def test_the_command_shows_and_writes_what_it_measured(
    stock: Path, toys: dict[str, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, trace = tmp_path / "rows.jsonl", tmp_path / "trace.json"
    media = [str(stock / "talk.mp4"), str(stock / "voice.wav"), "--artifacts", str(stock / "artifacts")]
    options = ["--name", "clip", "--threads", "1", "--preset", "ultrafast"]
    code = run(["bench", "dub", *media, *options, "--rows", str(rows), "--trace", str(trace)])
    shown = capsys.readouterr().out
    assert code == 0
    for word in (
        "synthesise/enet",
        "wall time over slowest",
        "waited for a free slot",
        "outside all stages",
        "seeded:toy",
    ):
        assert word in shown
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert written[0]["stage"] == "dub/clip"
    assert written[0]["versions"]["numpy"]
    processes = {event["args"]["name"] for event in json.loads(trace.read_text())["traceEvents"]
                 if event["name"] == "process_name"}  # fmt: skip
    assert processes == {"job", "prepare", "synthesise"}


@pytest.mark.parametrize("option", ["--rows", "--trace"])
def test_a_place_that_cannot_be_written_is_refused_at_once(
    stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    target = tmp_path / "missing" / "file"
    code = run(["bench", "dub", str(stock / "talk.mp4"), str(stock / "voice.wav"), "--weights", "seeded",
                option, str(target)])  # fmt: skip
    assert code == 2
    assert "mkdir -p" in capsys.readouterr().err
