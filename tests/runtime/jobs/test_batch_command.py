"""`dubstream batch`: many jobs, one file; what fails stops nothing, what is done stays done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clips import write_portrait, write_speech
from toy_networks import publish_toys

from dubstream.runtime.cli import batch_command
from dubstream.runtime.cli.app import run
from dubstream.runtime.cli.batch_lines import read_lines
from dubstream.runtime.job.batch import BatchState, JobResult, worst_exit_code


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    write_portrait(folder / "talk.mp4", 12)
    write_speech(folder / "english.wav", 0.4)
    write_speech(folder / "french.wav", 0.48, seed=8)
    publish_toys(folder / "artifacts")
    return folder


@pytest.fixture
def desk(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in stock.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Batch = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def batch(stock: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> Batch:
    def call(*jobs: object, options: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
        rows = [job if isinstance(job, str) else json.dumps(job) for job in jobs]
        (desk / "jobs.jsonl").write_text("\n".join(rows))
        common = ["--artifacts", str(stock / "artifacts"), "--threads", "1", "--preset", "ultrafast"]
        code = run(["batch", "jobs.jsonl", *common, "--cache", str(desk / "cache"), "--json", *options])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, json.loads(said.out) if said.out else {"error": said.err}

    return call


def job(audio: str = "english.wav", output: str = "", **more: object) -> dict[str, object]:
    return {"video": "talk.mp4", "audio": audio, "output": output or f"{audio}.mp4", **more}


def statuses(report: dict[str, Any]) -> list[str]:
    return [one["status"] for one in report["jobs"]]


def test_jobs_share_the_preparation_and_the_artifacts(
    batch: Batch, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summaries, opened = [], []
    real_dub, real_find = batch_command.run_dub, batch_command.DubOrder.find_networks
    monkeypatch.setattr(
        batch_command, "run_dub", lambda *args: summaries.append(real_dub(*args)) or summaries[-1]
    )
    monkeypatch.setattr(
        batch_command.DubOrder, "find_networks", lambda *args: opened.append(1) or real_find(*args)
    )
    code, report = batch(job(), job("french.wav", crf=30))
    assert (code, statuses(report)) == (0, ["done", "done"])
    assert [one["frames"] for one in report["jobs"]] == [10, 12]
    assert len(opened) == 1
    assert "track" in summaries[0].busy_s
    assert "track" not in summaries[1].busy_s
    assert all((desk / one["output"]).is_file() for one in report["jobs"])


def test_what_is_done_is_skipped_until_something_of_it_changes(batch: Batch, desk: Path) -> None:
    jobs = [job(), job("french.wav")]
    assert statuses(batch(*jobs)[1]) == ["done", "done"]
    assert statuses(batch(*reversed(jobs))[1]) == ["skipped", "skipped"]
    written = (desk / "french.wav.mp4").read_bytes()
    (desk / "french.wav.mp4").write_bytes(b"not what it was")
    write_speech(desk / "english.wav", 0.4, seed=9)
    assert statuses(batch(*jobs)[1]) == ["done", "done"]
    assert (desk / "french.wav.mp4").read_bytes() == written
    assert statuses(batch(job(crf=30), jobs[1])[1]) == ["done", "skipped"]
    (desk / "french.wav.mp4").unlink()
    (desk / "jobs.jsonl.done").write_text("{")  # a state that nobody can read
    assert statuses(batch(jobs[1])[1]) == ["done"]


def test_a_bad_job_stops_no_other_and_the_worst_code_is_the_end(batch: Batch, desk: Path) -> None:
    (desk / "broken.mp4").write_bytes(b"no video")
    code, report = batch(
        job(video="missing.mp4", output="a.mp4"),
        "{no json",
        job(video="broken.mp4", output="b.mp4"),
        job(crf="good", output="c.mp4"),
        job(backend="tensorrt", output="d.mp4"),
        job(expression="smile", output="e.mp4"),
        job(output="out.mp4"),
        job(output="out.mp4"),
    )
    assert statuses(report) == ["failed"] * 6 + ["done", "failed"]
    codes = [one["exit_code"] for one in report["jobs"]]
    assert codes[:4] + codes[5:] == [2, 2, 2, 2, 2, 0, 2]
    assert codes[4] in (2, 69)  # fp32 artifacts, or no driver: whichever is met first
    assert code == report["exit_code"] == worst_exit_code([_failed(one) for one in codes])
    errors = [one["error"] for one in report["jobs"]]
    for error, words in zip(
        errors,
        [
            "missing.mp4",
            "no JSON",
            "broken.mp4",
            'crf is "good", expected a number',
            "",
            "templates",
            "",
            "line 7",
        ],
        strict=True,
    ):
        assert words in error
    assert sorted(path.name for path in desk.glob("?.mp4")) == []
    assert (desk / "out.mp4").is_file()


def test_the_table_and_the_errors(stock: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "jobs.jsonl").write_text(
        json.dumps(job(video="missing.mp4")) + "\n\n" + json.dumps(job(output="x.avi"))
    )
    assert run(["batch", "jobs.jsonl", "--artifacts", str(stock / "artifacts")]) == 2
    said = capsys.readouterr()
    assert "failed" in said.out
    assert [line[:14] for line in said.err.splitlines() if "error" in line] == [
        "error: line 1:",
        "error: line 3:",
    ]


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_a_file_without_jobs_is_refused(
    desk: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (desk / "jobs.jsonl").write_text(content)
    assert run(["batch", "jobs.jsonl", "--weights", "seeded"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (desk / "jobs.jsonl.done").exists()


def test_values_are_read_by_the_type_of_their_option(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(
        json.dumps(job(**{"audio-mode": "cut", "face": 0, "batch": 2, "crf": 20, "one_shot": True}))
    )
    (line,) = read_lines(path)
    assert line.error is None
    assert line.values == {
        "video": Path("talk.mp4"), "audio": Path("english.wav"), "output": Path("english.wav.mp4"),
        "audio_mode": "cut", "face": "0", "batch": 2, "crf": 20.0, "one_shot": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"batch": 2.5}, "batch is 2.5, expected a whole number"),
        ({"batch": True}, "expected a whole number"),
        ({"one_shot": 1}, "one_shot is 1, expected true or false"),
        ({"cache": ""}, "expected a path as text, null"),
        ({"json": True}, "unknown 'json'"),
        ({"verbose": 2}, "unknown 'verbose'"),
        ({"audio": None}, "lacks audio"),
    ],
)
def test_values_of_other_types_are_refused(tmp_path: Path, more: dict[str, object], words: str) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(json.dumps({**job(), **more}))
    (line,) = read_lines(path)
    assert words in str(line.error)
    assert str(line.error).startswith("line 1")


def test_the_worst_code_is_ours_before_the_machines_before_the_inputs() -> None:
    assert worst_exit_code([_failed(0), _failed(0)]) == 0
    assert worst_exit_code([_failed(2), _failed(75), _failed(0)]) == 2
    assert worst_exit_code([_failed(2), _failed(69), _failed(74)]) == 74
    assert worst_exit_code([_failed(70), _failed(74)]) == 70


def test_two_batches_over_one_file_forget_nothing_of_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    one, other = BatchState(tmp_path / "jobs.done"), BatchState(tmp_path / "jobs.done")
    one.record("1", tmp_path / "a")
    other.record("2", tmp_path / "b")
    assert one.is_done("1", tmp_path / "a")
    assert one.is_done("2", tmp_path / "b")
    assert not one.is_done("1", tmp_path / "b")


def _failed(code: int) -> JobResult:
    return JobResult(1, "", "", "", "failed" if code else "done", exit_code=code)
