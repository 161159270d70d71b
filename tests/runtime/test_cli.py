"""The command line on bad input: one helpful line, the right exit code, no traceback, no output file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import remux, write_portrait, write_speech
from scipy.io import wavfile
from toy_networks import publish_toys

from dubstream.engines.specs import SPECS
from dubstream.runtime.cli.app import run


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good clip, a good voice and toy artifacts."""
    folder = tmp_path_factory.mktemp("stock")
    write_portrait(folder / "talk.mp4", 12)
    write_speech(folder / "voice.wav", 0.48)
    publish_toys(folder / "artifacts")
    return folder


@pytest.fixture
def desk(stock: Path, tmp_path: Path) -> Path:
    """A private copy of the stock."""
    shutil.copytree(stock, tmp_path / "desk")
    return tmp_path / "desk"


Command = Callable[..., int]


@pytest.fixture
def dub(desk: Path) -> Command:
    def call(video: str = "talk.mp4", audio: str = "voice.wav", *more: str, output: str = "out.mp4") -> int:
        weights = (
            [] if "--artifacts" in more or "--weights" in more else ["--artifacts", str(desk / "artifacts")]
        )
        paths = [video if "://" in video else str(desk / video), str(desk / audio), "-o", str(desk / output)]
        options = ["--threads", "1", "--preset", "ultrafast", "--cache", str(desk / "cache")]
        return run(["dub", *paths, *weights, *options, *more])

    return call


def _check_refused(desk: Path, code: int, errors: str, *words: str, expected: int = 2) -> None:
    assert code == expected, errors
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    for word in words:
        assert word in lines[0]
    assert not (desk / "out.mp4").exists()
    assert [path.name for path in desk.rglob("*.part")] == []


def test_a_good_clip_is_dubbed_and_summarised_as_json(
    dub: Command, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dub("talk.mp4", "voice.wav", "--json", "--trace", str(desk / "trace.json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == 12
    assert summary["weights"] == "seeded:toy"
    assert (desk / "out.mp4").stat().st_size > 1000
    spans = json.loads((desk / "trace.json").read_text())["traceEvents"]
    assert {"enet", "read", "drain"} <= {span["name"] for span in spans}


def test_the_table_names_every_stage(dub: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert dub() == 0
    captured = capsys.readouterr()
    for stage in ("prepare/dnet", "synthesise/lnet", "synthesise/enet", "synthesise/blend"):
        assert stage in captured.out
    assert "NOT trained" in captured.err


def _missing(desk: Path) -> list[str]:
    return ["absent.mp4", "voice.wav"]


def _folder(desk: Path) -> list[str]:
    return ["artifacts", "voice.wav"]


def _text(desk: Path) -> list[str]:
    (desk / "text.mp4").write_text("no video at all\n" * 100)
    return ["text.mp4", "voice.wav"]


def _empty(desk: Path) -> list[str]:
    (desk / "empty.mp4").touch()
    return ["empty.mp4", "voice.wav"]


def _truncated(desk: Path) -> list[str]:
    data = remux(desk / "talk.mp4", desk / "whole.mkv").read_bytes()
    (desk / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    return ["cut.mkv", "voice.wav"]


def _playlist(desk: Path) -> list[str]:
    (desk / "list.mp4").write_text("ffconcat version 1.0\nfile talk.mp4\n")
    return ["list.mp4", "voice.wav"]


def _url(desk: Path) -> list[str]:
    return ["http://127.0.0.1:9/talk.mp4", "voice.wav"]


def _no_audio(desk: Path) -> list[str]:
    return ["talk.mp4", "talk.mp4"]


def _short_audio(desk: Path) -> list[str]:
    write_speech(desk / "short.wav", 0.1)
    return ["talk.mp4", "short.wav"]


def _nan_audio(desk: Path) -> list[str]:
    samples = np.zeros(16000, np.float32)
    samples[500] = np.nan
    wavfile.write(desk / "nan.wav", 16000, samples)
    return ["talk.mp4", "nan.wav"]


def _pixels(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--max-pixels", "1000"]


def _face(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--face", "prettiest"]


def _mode(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--audio-mode", "repeat"]


def _pads(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--pads", "1,2"]


def _crf(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--crf", "99"]


def _batch(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--batch", "0"]


def _two_weights(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--weights", "seeded", "--artifacts", str(desk / "artifacts")]


def _no_artifacts(desk: Path) -> list[str]:
    return ["talk.mp4", "voice.wav", "--artifacts", str(desk)]


def _damaged_artifact(desk: Path) -> list[str]:
    path = desk / "artifacts" / "lnet.fp32.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    return ["talk.mp4", "voice.wav"]


def _stale_artifact(desk: Path) -> list[str]:
    path = desk / "artifacts" / "lnet.fp32.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    return ["talk.mp4", "voice.wav"]


def _expression(desk: Path) -> list[str]:
    (desk / "expression.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    return ["talk.mp4", "voice.wav", "--expression", str(desk / "expression.mat")]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, ["absent.mp4"]),
        (_folder, ["artifacts"]),
        (_text, ["text.mp4"]),
        (_empty, ["empty.mp4"]),
        (_truncated, ["cut.mkv", "--allow-truncated"]),
        (_playlist, ["list.mp4"]),
        (_url, ["http"]),
        (_no_audio, ["audio"]),
        (_short_audio, ["0.2"]),
        (_nan_audio, ["NaN"]),
        (_pixels, ["--max-pixels"]),
        (_face, ["prettiest", "largest"]),
        (_mode, ["repeat", "bounce"]),
        (_pads, ["--pads", "top,bottom,left,right"]),
        (_crf, ["--crf"]),
        (_batch, ["--batch 0"]),
        (_two_weights, ["--weights seeded", "expected one"]),
        (_no_artifacts, ["fp32.json", "dubstream export"]),
        (_damaged_artifact, ["lnet.fp32.onnx", "SHA-256", "dubstream export"]),
        (_stale_artifact, ["lnet.fp32.json", "format"]),
        (_expression, ["expression.mat"]),
    ],
)
def test_bad_input(
    dub: Command,
    desk: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], list[str]],
    words: list[str],
) -> None:
    _check_refused(desk, dub(*spoil(desk)), capsys.readouterr().err, *words)


def test_truncated_video_is_dubbed_when_allowed(
    dub: Command, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dub(*_truncated(desk), "--allow-truncated", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames"] == 12
    assert (desk / "out.mp4").exists()


def test_output_folder_missing(dub: Command, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = dub(output="nowhere/out.mp4")
    _check_refused(desk, code, capsys.readouterr().err, "nowhere")


def test_output_is_the_input(dub: Command, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (desk / "talk.mp4").read_bytes()
    code = dub(output="talk.mp4")
    _check_refused(desk, code, capsys.readouterr().err, "talk.mp4")
    assert (desk / "talk.mp4").read_bytes() == before


def test_output_folder_not_writable(
    dub: Command, desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "locked").mkdir()
    # Tests may run as root, who may write everywhere: the kernel's answer is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: "locked" not in str(path))
    code = dub(output="locked/out.mp4")
    _check_refused(desk, code, capsys.readouterr().err, "locked")


@pytest.mark.parametrize("arguments", [["dub"], ["dub", "a", "b", "-o", "c", "--no-such-option"], ["dubb"]])
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_unknown_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["export", "znet", "--weights", "seeded", "--artifacts", str(tmp_path)])
    assert code == 2
    assert "unknown network 'znet'" in capsys.readouterr().err


def test_doctor_lists_versions_and_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    diagnosis = json.loads(capsys.readouterr().out)
    assert "CPUExecutionProvider" in diagnosis["providers"]
    assert diagnosis["versions"]["numpy"] == np.__version__
    assert list(diagnosis["checkpoints"]) == list(SPECS)
    assert all(licence for _, licence in diagnosis["checkpoints"].values())


def test_doctor_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    assert "onnxruntime" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["verify", "--artifacts", "DIR", "dub", "a.mp4", "b.wav"], "--artifacts before 'dub'"),
        (["bench", "--batch", "1", "--json", "report", "rows.jsonl"], "--batch, --json before 'report'"),
    ],
)
def test_options_before_a_subcommand_are_refused(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert named in capsys.readouterr().err
