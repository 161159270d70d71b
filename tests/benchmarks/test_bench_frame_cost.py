"""Calls and multiply-accumulates per output frame: what jobs count is what the model says, mode by mode."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from clips import QUICK, write_speech, write_video
from toy_face_graphs import swaying_portrait
from toy_networks import publish_toys

from dubstream.benchmarks.bench.frame_cost import cost as frame_cost
from dubstream.benchmarks.bench.frame_cost.cost import (
    MODES,
    FrameCost,
    Mode,
    SteadyClip,
    steady_cost,
    steady_work,
)
from dubstream.benchmarks.bench.frame_cost.original import SIZES, _estimated, original_cost
from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import UsageError
from dubstream.engines.specs import SPECS
from dubstream.runtime.cli.app import run
from dubstream.runtime.emotion import EmotionOptions
from dubstream.runtime.job.dub import dub
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.preparation import clip_faces, preparation
from dubstream.runtime.timing import NetworkWork

FRAMES, SPOKEN = 8, 11
STREAM = StreamOptions(batch=3, threads=1, segment_s=0.2)

TRIED = {
    **{mode.name: mode.options for mode in MODES if not mode.prepared},
    "all that is optional": DubOptions(
        finish=FinishOptions("parse", "both"), emotion=EmotionOptions("angry")
    ),
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost_stock")
    write_video(folder / "talk.mp4", map(swaying_portrait, range(FRAMES)))
    write_speech(folder / "voice.wav", SPOKEN / 25)
    return folder


@pytest.fixture(scope="module")
def toys(stock: Path) -> dict[str, Artifact]:
    return publish_toys(stock / "artifacts")


def tried(options: DubOptions) -> DubOptions:
    face = replace(options.face, detect_every=3)
    return replace(options, face=face, stream=STREAM, encode=QUICK)


def counted(stock: Path, toys: dict[str, Artifact], options: DubOptions, cache: Path) -> FrameCost:
    """Dub the clip, all of whose frames show the face."""
    request = DubRequest(stock / "talk.mp4", stock / "voice.wav", cache / "out.mp4", toys, cache, options)
    summary = dub(request)
    assert summary.dubbed == summary.frames == SPOKEN
    assert summary.as_json()["networks"] == {
        name: {"items": work.items, "calls": work.calls} for name, work in summary.networks.items()
    }
    return FrameCost(summary.frames, summary.networks)


@pytest.mark.parametrize("mode", TRIED)
def test_a_job_calls_what_the_model_says(
    stock: Path, toys: dict[str, Artifact], tmp_path: Path, mode: str
) -> None:
    options, clip = tried(TRIED[mode]), SteadyClip(FRAMES, SPOKEN)
    for prepared in (False, True):
        ran = counted(stock, toys, options, tmp_path)
        assert ran.work == steady_work(clip, options, prepared=prepared)
        assert ran == steady_cost(clip, options, prepared=prepared)
        assert set(ran.work) == set(options.networks) - (
            {"recon", "dnet", "s3fd", "fan4", "gpen"} if prepared else set()
        )


def test_so_it_does_in_chunks_and_with_a_short_voice(
    stock: Path, toys: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (clip_faces, preparation, frame_cost):
        monkeypatch.setattr(module, "CHUNK_FRAMES", 5)
    options = tried(TRIED["full"])
    ran = counted(stock, toys, options, tmp_path)
    assert ran.work == steady_work(SteadyClip(FRAMES, SPOKEN), options)
    # Looked at: 0, 3, 5 as the first of its chunk, 6. Both chunks measure all frames for their windows.
    assert (ran.work["s3fd"], ran.work["recon"]) == (NetworkWork(4, 4), NetworkWork(16, 6))
    short = steady_work(SteadyClip(FRAMES, 4), options)
    # Faces are followed through the whole clip, references made for the first chunk alone.
    assert (short["s3fd"].items, short["dnet"], short["lnet"]) == (4, NetworkWork(5, 2), NetworkWork(4, 2))


def test_the_figures_are_those_of_the_specs() -> None:
    cost = FrameCost(10, {"enet": NetworkWork(10, 3), "s3fd": NetworkWork(2, 2)})
    assert (cost.items("enet"), cost.calls("enet"), cost.calls()) == (1.0, 0.3, 0.5)
    assert cost.gmacs() == pytest.approx(SPECS["enet"].gmacs + 0.2 * SPECS["s3fd"].gmacs)
    assert cost.as_json()["networks"]["s3fd"]["gmacs"] == pytest.approx(0.2 * SPECS["s3fd"].gmacs)  # type: ignore[index]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_every_mode_stays_below_its_target(mode: Mode) -> None:
    most = {"full": 800, "full, not restored": 420, "full, prepared": 640}.get(mode.name)
    assert mode.most_gmacs == most
    cost = steady_cost(SteadyClip(), mode.options, prepared=mode.prepared)
    assert most is None or cost.gmacs() <= most
    assert cost.gmacs() < original_cost(1280, 720).gmacs / 3


def test_the_original_costs_what_was_counted() -> None:
    small, large = (original_cost(*size) for size in SIZES)
    assert (round(small.gmacs), round(large.gmacs)) == (1899, 2348)
    assert (small.title, large.size) == ("the original program, 720p", "1080p")
    assert small.calls == large.calls == 14 + 2 / 16 + 1 / 4
    for one in (small, large):
        counted_ = [stage.gmacs for stage in one.stages[-3:]]
        assert _estimated(one.width, one.height) == pytest.approx(counted_, rel=0.03)
    assert small.gmacs < original_cost(1600, 900).gmacs < large.gmacs


def test_a_face_that_is_often_lost_costs_detections_and_no_more() -> None:
    options = next(mode.options for mode in MODES if mode.name == "full")
    steady_, half, never = (
        steady_work(SteadyClip(240, steady_share=share), options) for share in (1, 0.5, 0)
    )
    assert [one["s3fd"].items for one in (steady_, half, never)] == [48, 48 + 96, 240]
    assert {**steady_, "s3fd": half["s3fd"], "fan4": half["fan4"]} == half


@pytest.mark.parametrize("clip", [{"frames": 0}, {"steady_share": 1.1}, {"steady_share": float("nan")}])
def test_clips_that_do_not_exist_are_refused(clip: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        SteadyClip(**clip)  # type: ignore[arg-type]


def test_the_command_shows_all_modes_or_the_one_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "cost"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in ("standard", "556.6", "800", "1899", "2348"):
        assert word in shown
    assert "missed" not in shown
    arguments = ["--faces", "networks", "--restore", "gfpgan", "--detect-every", "1", "--frames", "240"]
    size = ["--width", "1280", "--height", "720"]
    assert run(["bench", "cost", *arguments, *size, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (mode,), (original,) = found["modes"], found["original"]
    assert mode["networks"]["s3fd"] == {"items": 1.0, "calls": 1.0, "gmacs": SPECS["s3fd"].gmacs}
    assert {"parsenet", "gfpgan"} <= set(mode["networks"])
    assert mode["original_over_ours"] == {"720p": round(original["gmacs"] / mode["gmacs"], 3)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--width", "1280"], "both or neither"),
        (["--width", "1280", "--height", "-1"], "--height -1"),
        (["--faces", ""], "cascade, networks"),
        (["--emotion", "bored"], "--emotion"),
        (["--detect-every", "0"], "--detect-every 0"),
        (["--frames", "0"], "--frames received 0"),
        (["--frames", "1000000000000"], "expected 1 to 500000"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "cost", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_bench_dub_prints_and_writes_what_ran(
    stock: Path, toys: dict[str, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    media = [str(stock / "talk.mp4"), str(stock / "voice.wav"), "--artifacts", str(stock / "artifacts")]
    options = ["--threads", "1", "--preset", "ultrafast", "--quality", "full", "--batch", "2"]
    assert run(["bench", "dub", *media, *options, "--rows", str(rows)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in ("track/fan4", "gfpgan", "GMAC/frame", "the original program, 720p", "1899"):
        assert word in shown
    whole, *stages = [json.loads(line) for line in rows.read_text().splitlines()]
    expected = steady_cost(SteadyClip(FRAMES, SPOKEN), replace(TRIED["full"], stream=StreamOptions(batch=2)))
    assert whole["cost"] == expected.as_json()
    assert (whole["faces"], whole["mask"], whole["restore"]) == ("networks", "parse", "gfpgan")
    assert sum(row["share"] for row in stages) == pytest.approx(1, abs=1e-4)
