"""`dubstream verify video` and `verify dub` from the command line: exit codes, JSON, report, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import toy_networks
from clips import write_speech, write_video
from review_parts import LOSSLESS, openness, talking
from toy_half_networks import publish_half_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import UsageError
from dubstream.runtime.artifacts import open_all
from dubstream.runtime.cli.app import run
from dubstream.runtime.faces.observations import Observations
from dubstream.runtime.job.dub import dub
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.review import faces
from dubstream.runtime.review.two_dubs import parse_side

FRAMES = 10
Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dub of a small clip by toy networks with its cache, and the parts it was made from."""
    folder = tmp_path_factory.mktemp("stock")
    write_video(folder / "talk.mp4", talking(openness(FRAMES)), options=LOSSLESS)
    write_speech(folder / "voice.wav", FRAMES / 25)
    publish_half_toys(folder / "artifacts")
    options = DubOptions(stream=StreamOptions(batch=4, threads=1), encode=LOSSLESS)
    dub(_request(folder, open_all(folder / "artifacts"), options))
    return folder


def _request(folder: Path, toys: dict[str, Artifact], options: DubOptions) -> DubRequest:
    return DubRequest(
        folder / "talk.mp4", folder / "voice.wav", folder / "dub.mp4", toys, folder / "cache", options
    )


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, dict[str, Any], str]:
        code = run(["verify", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else {}, captured.err

    return call


def preparation(stock: Path) -> Path:
    (folder,) = (entry for entry in (stock / "cache" / "prepared").iterdir() if entry.is_dir())
    return folder


def values(found: dict[str, Any]) -> dict[str, Any]:
    return {measure["name"]: measure for measure in found["measures"]}


def test_a_dub_against_its_source_with_the_preparation_it_left(stock: Path, verify: Run) -> None:
    code, found, errors = verify(
        "video", stock / "talk.mp4", stock / "dub.mp4", "--expect", "dubbed", "--faces", preparation(stock)
    )
    assert code == 0, errors
    assert found["holds"] is True
    assert found["frames"] == FRAMES
    measures = values(found)
    assert measures["background"]["value"] == 0
    assert measures["mouth_ssim"]["limit"] == ""
    assert measures["mouth_ssim"]["value"] < 0.999
    assert {"ssim", "sharpness", "lip motion", "background"} <= found["seconds_per_frame"].keys()
    assert found["made_by"]["versions"]["numpy"] == np.__version__


def test_a_finding_exits_with_1_after_everything_was_written(
    stock: Path, tmp_path: Path, verify: Run
) -> None:
    report = tmp_path / "review.html"
    code, found, errors = verify("video", stock / "talk.mp4", stock / "dub.mp4", "--report", report)
    assert code == 1
    assert found["holds"] is False
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "mouth SSIM" in lines[0]
    assert "Traceback" not in errors
    text = report.read_text()
    assert text.count("data:image/png") == 6
    assert text.count("data:image/svg+xml") == 5
    for words in ("Least similar mouth", "talk.mp4", "✗ failed", "numpy"):
        assert words in text
    assert "<script" not in text


def test_limits_are_options(stock: Path, verify: Run) -> None:
    base = ("video", stock / "talk.mp4", stock / "talk.mp4")
    assert verify(*base)[0] == 0
    code, _, errors = verify(*base, "--min-psnr", "101")
    assert code == 1
    assert "PSNR is 100 dB, expected ≥ 101" in errors
    looser = ("--min-ssim", "0", "--min-mouth-ssim", "0", "--min-lip-correlation", "-1")
    lips = ("--min-lip-energy", "0", "--max-lip-energy", "1e6", "--max-sharpness-loss", "1")
    worst = ("--min-worst-ssim", "-1", "--min-worst-mouth-ssim", "-1", "--max-sound-difference", "9")
    seams = ("--max-seam", "255", "--max-flicker", "255")
    dubbed = ("video", write_silent(stock), stock / "talk.mp4")
    assert verify(*dubbed, *looser, *lips, *worst, *seams)[0] == 0


def write_silent(stock: Path) -> Path:
    path = stock / "other.mp4"
    if not path.exists():
        write_video(path, talking(openness(FRAMES)[::-1]), options=LOSSLESS)
    return path


def test_the_table_shows_every_measure(stock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "video", str(stock / "talk.mp4"), str(stock / "talk.mp4")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("mouth", "PSNR", "flicker", "passed"):
        assert words in shown


def _damaged(folder: Path) -> Path:
    path = next(folder.glob("observations-*.npz"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return folder


def _unfinished(folder: Path) -> Path:
    next(folder.glob("observations-*.npz.json")).unlink()
    return folder


@pytest.mark.parametrize(
    "spoil", [_damaged, _unfinished, lambda folder: folder.parent, lambda folder: folder / "no"]
)
def test_a_folder_that_is_no_preparation(
    stock: Path, tmp_path: Path, verify: Run, spoil: Callable[[Path], Path]
) -> None:
    copy = shutil.copytree(preparation(stock), tmp_path / "prepared" / "key")
    code, found, errors = verify("video", stock / "talk.mp4", stock / "dub.mp4", "--faces", spoil(copy))
    assert (code, found) == (2, {})
    assert "is no preparation" in errors
    assert not (tmp_path / "prepared" / "no").exists()


def test_the_preparation_of_another_video(stock: Path, tmp_path: Path, verify: Run) -> None:
    shorter = write_video(tmp_path / "short.mp4", talking(openness(6)), options=LOSSLESS)
    code, _, errors = verify("video", shorter, shorter, "--faces", preparation(stock))
    assert code == 2
    assert "another number of frames than the 6 of short.mp4" in errors


def test_what_is_no_video(stock: Path, tmp_path: Path, verify: Run) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video at all\n" * 50)
    for pair in ((stock / "talk.mp4", text), (text, stock / "talk.mp4"), (stock / "talk.mp4", tmp_path)):
        report = tmp_path / "r.html"
        code, found, errors = verify("video", *pair, "--report", report)
        assert (code, found) == (2, {})
        assert errors.startswith("error: ")
        assert not report.exists()


def test_a_clip_without_a_face_and_a_report_without_a_folder(
    stock: Path, tmp_path: Path, verify: Run
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 120, 160, 3), np.uint8)
    faceless = write_video(tmp_path / "noise.mp4", list(noise))
    code, _, errors = verify("video", faceless, faceless)
    assert code == 2
    assert "no face" in errors
    code, _, errors = verify("video", faceless, faceless, "--report", tmp_path / "none" / "r.html")
    assert code == 2
    assert "no folder" in errors


def test_a_picture_says_which_face(stock: Path, tmp_path: Path, verify: Run) -> None:
    portrait = tmp_path / "person.png"
    cv2.imwrite(str(portrait), talking(openness(FRAMES))[3])
    pair = ("video", stock / "talk.mp4", stock / "dub.mp4", "--expect", "dubbed")
    given = ("--faces", preparation(stock))
    _, by_default, _ = verify(*pair, *given)
    for source in ((), given):
        code, by_picture, errors = verify(*pair, *source, "--face", portrait)
        assert code == 0, errors
        assert values(by_picture)["mouth_ssim"] == values(by_default)["mouth_ssim"]


@pytest.mark.parametrize("source", ["tracked", "prepared"])
def test_a_useless_picture_is_refused_before_the_video_is_looked_at(
    stock: Path, tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(faces, "observe", pytest.fail)
    monkeypatch.setattr(Observations, "from_arrays", pytest.fail)
    noise = tmp_path / "noise.png"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))
    given = ("--faces", preparation(stock)) if source == "prepared" else ()
    for picture, words in ((noise, "noise.png', 160x120"), (tmp_path / "none.png", "none.png")):
        code, found, errors = verify(
            "video", stock / "talk.mp4", stock / "dub.mp4", "--face", picture, *given
        )
        assert (code, found) == (2, {})
        assert words in errors


def test_a_padded_odd_picture_is_compared_without_its_padding(
    stock: Path, tmp_path: Path, verify: Run
) -> None:
    pictures = [picture[:-1, :-1] for picture in talking(openness(6))]
    odd = write_video(tmp_path / "odd.mp4", pictures, options=LOSSLESS)
    even = write_video(
        tmp_path / "even.mp4",
        [cv2.copyMakeBorder(picture, 0, 1, 0, 1, cv2.BORDER_REPLICATE) for picture in pictures],
        options=LOSSLESS,
    )
    code, found, errors = verify("video", odd, even)
    assert code == 0, errors
    assert values(found)["psnr"]["value"] == 100


def sides(stock: Path, artifacts: Path) -> list[object]:
    files = ["dub", stock / "talk.mp4", stock / "voice.wav", "--artifacts", artifacts]
    return [*files, "--against", "precision=fp16", "--threads", 1, "--preset", "ultrafast"]


def test_half_precision_holds_against_full(stock: Path, tmp_path: Path, verify: Run) -> None:
    keep = tmp_path / "kept"
    keep.mkdir()
    code, found, errors = verify(*sides(stock, stock / "artifacts"), "--keep", keep)
    assert code == 0, errors
    measures = values(found)
    assert 40 < measures["psnr"]["value"] < 100
    assert measures["lip_correlation"]["value"] > 0.99
    assert found["frames"] == FRAMES
    assert found["made_by"]["A computed by"].startswith("onnxruntime fp32")
    assert found["made_by"]["B computed by"].startswith("onnxruntime fp16")
    assert {path.name for path in keep.iterdir()} == {"reference.mp4", "candidate.mp4"}


def test_a_side_that_computes_something_else_is_found(
    stock: Path, tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong"
    # The toy L-Net moves the lips with the sound; this one far too much, in half precision only.
    monkeypatch.setitem(toy_networks._GRAPHS["lnet"][1], "gain", np.float32(0.5))
    publish_half_toys(wrong)
    for right in (stock / "artifacts").glob("*.fp32.*"):
        shutil.copy(right, wrong)
    code, found, errors = verify(*sides(stock, wrong))
    assert code == 1
    assert "SSIM" in errors
    measures = values(found)
    assert measures["mouth_ssim"]["holds"] is False
    assert measures["background"]["holds"] is True


@pytest.mark.parametrize("side", ["--against", "--reference"])
def test_a_side_without_its_device_is_no_pass(stock: Path, verify: Run, side: str) -> None:
    chosen = {"--against": "precision=fp32", "--reference": "precision=fp32"} | {side: "backend=tensorrt"}
    code, found, errors = verify(
        "dub", stock / "talk.mp4", stock / "voice.wav", "--artifacts", stock / "artifacts",
        *(word for pair in chosen.items() for word in pair),
    )  # fmt: skip
    assert (code, found) == (69, {}), errors


def test_sides_are_read() -> None:
    assert parse_side("--against", "backend=tensorrt,precision=bf16,device=1") == Backend(
        "tensorrt", 1, "bf16"
    )
    assert parse_side("--against", "precision=fp16") == Backend(wanted="fp16")
    for text in (
        "",
        "fp16",
        "backend=,precision=fp16",
        "precision=fp16,precision=fp32",
        "speed=1",
        "device=x",
    ):
        with pytest.raises(UsageError, match="--against received"):
            parse_side("--against", text)
    with pytest.raises(UsageError, match="nonsense"):
        parse_side("--against", "backend=nonsense")
