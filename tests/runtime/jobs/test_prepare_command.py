"""`dubstream prepare` and `dub --prepared`: pay once, and be told what does not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from clips import write_portrait, write_speech
from scipy.io import savemat
from toy_networks import publish_toys

from dubstream.runtime.cli.app import run

FRAMES = 16


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    write_portrait(folder / "talk.mp4", FRAMES)
    write_portrait(folder / "other.mp4", FRAMES + 2)
    write_speech(folder / "voice.wav", 0.64)
    publish_toys(folder / "artifacts")
    row = np.linspace(-8, 8, 64)[None]
    savemat(folder / "expression.mat", {"expression_center": row, "expression_mouth": -row})
    return folder


@pytest.fixture(scope="module")
def prepared(stock: Path) -> Path:
    """The folder of a preparation, moved away from its cache."""
    assert prepare(stock, stock / "cache") == 0
    (folder,) = (stock / "cache" / "prepared").iterdir()
    return Path(shutil.move(folder, stock / "moved"))


def prepare(stock: Path, cache: Path, *more: str) -> int:
    return run(["prepare", str(stock / "talk.mp4"), *common(stock, cache), *more])


def dub(stock: Path, cache: Path, *more: str, video: str = "talk.mp4") -> int:
    files = [str(stock / video), str(stock / "voice.wav"), "-o", str(cache.parent / "out.mp4")]
    return run(["dub", *files, *common(stock, cache), "--preset", "ultrafast", *more])


def common(stock: Path, cache: Path) -> list[str]:
    return ["--artifacts", str(stock / "artifacts"), "--threads", "1", "--cache", str(cache)]


def content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_key_and_folder_are_printed_and_a_second_call_does_nothing(
    stock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(stock, tmp_path / "cache", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["frames"] == FRAMES
    assert Path(first["folder"]).parent == tmp_path / "cache" / "prepared"
    assert {"track", "prepare/recon", "prepare/dnet"} <= first["busy_s"].keys()
    assert prepare(stock, tmp_path / "cache") == 0
    shown = capsys.readouterr().out
    assert f"key     {first['key']}\n" in shown
    assert f"folder  {first['folder']}\n" in shown
    assert "time by stage" not in shown


def test_a_dub_of_a_preparation_equals_a_dub_without_and_changes_nothing_in_it(
    stock: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(prepared)
    assert dub(stock, tmp_path / "cache", "--prepared", str(prepared), "--json") == 0
    busy = json.loads(capsys.readouterr().out)["busy_s"]
    assert not any(stage == "track" or stage.startswith("prepare/") for stage in busy)
    assert content(prepared) == before
    assert not (tmp_path / "cache" / "prepared").exists()
    ours = (tmp_path / "out.mp4").read_bytes()
    assert dub(stock, tmp_path / "cache") == 0
    assert (tmp_path / "out.mp4").read_bytes() == ours


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--face", "center"], 'face.selector is "largest", not "center"'),
        (["--detect-every", "4"], "face.detect_every is 5, not 4"),
        (["--one-shot"], "one_shot is false, not true"),
        (["--expression", "smile"], "expression.template is [0.0, 0.0"),
    ],
)
def test_what_does_not_fit_is_named(
    stock: Path,
    prepared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    more = (
        [*options, "--expression-templates", str(stock / "expression.mat")] if "smile" in options else options
    )
    before = content(prepared)
    code = dub(stock, tmp_path / "cache", "--prepared", str(prepared), *more)
    refused(code, capsys.readouterr().err, tmp_path, words)
    assert content(prepared) == before


def test_another_video_and_another_folder_are_named(
    stock: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = dub(stock, tmp_path / "cache", "--prepared", str(prepared), video="other.mp4")
    refused(code, capsys.readouterr().err, tmp_path, 'video is "')
    code = dub(stock, tmp_path / "cache", "--prepared", str(tmp_path))
    refused(code, capsys.readouterr().err, tmp_path, "expected a folder such as CACHE/prepared/KEY")


@pytest.mark.parametrize("pattern", ["observations-*.npz", "references-*/*.pngs"])
def test_a_damaged_preparation_is_not_mended_silently(
    stock: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    copy = Path(shutil.copytree(prepared, tmp_path / "copy"))
    (path,) = copy.glob(pattern)
    path.write_bytes(path.read_bytes()[:-1])
    code = dub(stock, tmp_path / "cache", "--prepared", str(copy))
    refused(code, capsys.readouterr().err, tmp_path, f"{path.name} is missing or damaged")


def refused(code: int, errors: str, folder: Path, words: str) -> None:
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), errors
    assert words in lines[0]
    assert "dubstream prepare VIDEO" in lines[0]
    assert not (folder / "out.mp4").exists()
