"""`dubstream dub --quality`, `--mask` and `--restore`: what they stand for, and what is said of licences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clips import write_portrait, write_speech
from toy_networks import publish_toys

from dubstream.engines.errors import UsageError
from dubstream.engines.specs import spec_of
from dubstream.runtime.cli.app import run
from dubstream.runtime.cli.dub_command import dub_order
from dubstream.runtime.options.backend import PRECISIONS, Backend
from dubstream.runtime.options.dub import DubOptions
from dubstream.runtime.options.finish import FinishOptions

FILES = {"video": Path("talk.mp4"), "audio": Path("voice.wav"), "output": Path("out.mp4")}


def options(**values: str | int) -> DubOptions:
    return dub_order(**FILES, **values).options


def test_standard_needs_no_restricted_weights() -> None:
    found = options()
    assert (found.face.finder, found.finish) == ("cascade", FinishOptions("box", "none"))
    assert set(found.networks) == {"dnet", "lnet", "enet", "recon"}


def test_full_is_the_complete_system_without_gpen() -> None:
    found = options(quality="full")
    assert (found.face.finder, found.finish) == ("networks", FinishOptions("parse", "gfpgan"))
    assert {"s3fd", "fan4", "parsenet", "gfpgan"} <= set(found.networks)
    assert "gpen" not in found.networks


def test_an_option_of_its_own_wins() -> None:
    found = options(quality="full", faces="cascade", restore="both")
    assert (found.face.finder, found.finish) == ("cascade", FinishOptions("parse", "both"))
    assert options(mask="parse").finish == FinishOptions("parse", "none")


@pytest.mark.parametrize(
    ("backend", "precision"),
    [(name, precision) for name, each in PRECISIONS.items() for precision in each],
)
def test_the_complete_system_is_for_every_backend_and_precision(backend: str, precision: str) -> None:
    found = options(
        quality="full", restore="both", emotion="sad", backend=backend, precision=precision, batch=8
    )
    assert found.backend == Backend(backend, wanted=precision)
    for name in found.networks:
        assert spec_of(name, precision).max_batch >= found.stream.batch


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": "best"}, {"mask": ""}, {"mask": "oval"}, {"restore": "codeformer"},
        {"mask": "parse", "batch": 12},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, str | int]) -> None:
    with pytest.raises(UsageError):
        options(**wrong)


def test_licences_are_said_once_and_kept_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_portrait(tmp_path / "talk.mp4", 4)
    write_speech(tmp_path / "voice.wav", 0.24)
    publish_toys(tmp_path / "toys")
    arguments = ["dub", *(str(tmp_path / name) for name in ("talk.mp4", "voice.wav")), "-o"]
    arguments += [str(tmp_path / "out.mp4"), "--artifacts", str(tmp_path / "toys"), "--restore", "both"]
    arguments += ["--cache", str(tmp_path / "cache"), "--threads", "1", "--preset", "ultrafast", "--json"]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    for network in ("dnet", "lnet", "enet", "recon", "parsenet", "gfpgan", "gpen"):
        assert captured.err.count(f"licence of {network}:") == 1
    notes = json.loads(captured.out)["notes"]
    assert "licence of gpen: non-commercial use only, code and weights" in notes
