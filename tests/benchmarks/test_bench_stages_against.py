"""Dubs held against a saved base: a slower stage is found, a slower machine is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import write_portrait, write_speech
from toy_networks import publish_toys

from dubstream.benchmarks.bench.dubs import against as dub_against
from dubstream.benchmarks.bench.dubs.against import Anchors, DubComparison, dub_cases
from dubstream.benchmarks.bench.dubs.dub import DubBench, DubRun
from dubstream.benchmarks.bench.method.base import KEPT, SLOWER, load_base
from dubstream.benchmarks.bench.networks import peaks
from dubstream.benchmarks.bench.networks.peaks import PeakSizes
from dubstream.engines.errors import UsageError, VerificationError
from dubstream.runtime.cli.app import run
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.options.dub import DubOptions, StreamOptions
from dubstream.runtime.timing import Block, Timing

OPTIONS = DubOptions(stream=StreamOptions(threads=1))
SMALL = PeakSizes(channels=4, side=8, matmul=8, copy=64, batch=1)
STAGES = {"track": 0.30, "synthesise/enet": 1.6, "synthesise/fill": 0.0005}
"""Seconds per frame."""


class MadeUpAnchors(Anchors):
    """A machine whose speed is told, not measured."""

    def __init__(self, speed: list[float]) -> None:
        super().__init__(OPTIONS)
        self._s_per_mac = [1e-12 / one for one in speed]
        self._s_per_byte = [1e-10 / one for one in speed]
        self._cpu_shares = [0.5]


def made_up(
    seed: int, *, slower: str = "", times: float = 1.0, machine: float = 1.0
) -> tuple[DubBench, Anchors]:
    """Seven dubs on a machine that drifts; one stage may take longer than it should."""
    draw = np.random.default_rng(seed)
    speed = machine * (1 + 0.15 * np.sin(np.arange(8) + seed))
    runs = []
    for number in range(7):
        here = float(speed[number : number + 2].mean())
        factor = {stage: times if stage == slower else 1.0 for stage in STAGES}
        noise = draw.normal(1, 0.01, len(STAGES))
        busy = {
            stage: 10 * seconds * factor[stage] * wobble / here
            for (stage, seconds), wobble in zip(STAGES.items(), noise, strict=True)
        }
        timing = Timing(busy_s=busy, frames=dict.fromkeys(busy, 10))
        timing.blocks = [Block(stage, 0.0, seconds) for stage, seconds in busy.items()]
        summary = DubSummary(
            output="", frames=10, dubbed=10, rate="25", wall_s=sum(busy.values()), fps=1.0, video_s=0.4,
            audio_s=0.4, av_gap_s=0.0, absent=[], busy_s=busy, wall_over_slowest={}, reused={},
            peak_rss_mib=1.0, backend="", weights="", timing=timing,
        )  # fmt: skip
        runs.append(DubRun(summary, "same"))
    setting = {"backend": "onnxruntime", "precision": "fp32", "batch": 4, "slots": 2}
    return DubBench("clip", tuple(runs), setting), MadeUpAnchors(list(speed))


Comparison = Callable[..., DubComparison]


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """A comparison with the saved dubs of seed 0."""
    bench, anchors = made_up(0)
    saving = DubComparison(OPTIONS, tmp_path / "base.json", None, 1.1)
    saving._anchors = anchors
    assert saving.finish(bench) == []
    saving.judge()

    def make(anchors: Anchors) -> DubComparison:
        found = DubComparison(OPTIONS, None, tmp_path / "base.json", 1.1)
        found._anchors = anchors
        return found

    return make


def test_cases_are_the_whole_and_the_stages_that_matter() -> None:
    cases = dub_cases(*made_up(0))
    where = "onnxruntime fp32 batch 4 slots 2"
    assert set(cases) == {f"dub/clip{stage} {where}" for stage in ("", "/track", "/synthesise/enet")}
    case = cases[f"dub/clip/synthesise/enet {where}"]
    assert len(case.wall.seconds) == 7
    assert case.work.macs > 1e11


def test_a_slower_stage_is_named(comparison: Comparison) -> None:
    bench, anchors = made_up(1, slower="track", times=1.3)
    held = comparison(anchors)
    outcomes = {row["against"].split()[0]: row["outcome"] for row in held.finish(bench)}
    assert outcomes["dub/clip/track"] == SLOWER
    assert outcomes["dub/clip/synthesise/enet"] == KEPT
    with pytest.raises(VerificationError, match="dub/clip/track"):
        held.judge()


def test_a_slower_machine_is_not_a_slower_stage(comparison: Comparison) -> None:
    bench, anchors = made_up(2, machine=0.6)
    held = comparison(anchors)
    assert {row["outcome"] for row in held.finish(bench)} == {KEPT}
    held.judge()


def test_noise_alone_fails_no_build(comparison: Comparison) -> None:
    alarms = 0
    for seed in range(3, 23):
        bench, anchors = made_up(seed, machine=0.8)
        alarms += sum(row["outcome"] == SLOWER for row in comparison(anchors).finish(bench))
    assert alarms == 0


def test_a_comparison_of_nothing_is_no_pass(comparison: Comparison) -> None:
    bench, anchors = made_up(1)
    held = comparison(anchors)
    held.finish(replace(bench, name="other"))
    with pytest.raises(VerificationError, match="not in the base"):
        held.judge()


def test_arguments_are_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--max-slowdown received 1,"):
        DubComparison(OPTIONS, None, None, 1.0)
    with pytest.raises(UsageError, match="expected a base file, found none"):
        DubComparison(OPTIONS, None, tmp_path / "base.json", 1.1)


def test_anchors_are_the_means_of_what_was_measured_around(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors = Anchors(OPTIONS, SMALL)
    for seconds in (1.0, 3.0, 5.0):
        monkeypatch.setattr(dub_against, "_seconds", lambda _peak, seconds=seconds: (seconds, seconds / 2))
        anchors()
    per_mac, per_byte = anchors.around()
    assert len(per_mac) == len(per_byte) == 2
    assert per_mac[1] / per_mac[0] == pytest.approx(4 / 2)
    assert anchors.cpu_share == 0.5
    assert per_byte[0] * 2 * 4 * SMALL.copy == pytest.approx(2.0)


def test_the_command_saves_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peaks, "ON_CPU", SMALL)
    media = [str(write_portrait(tmp_path / "talk.mp4", 6)), str(write_speech(tmp_path / "voice.wav", 0.24))]
    publish_toys(tmp_path / "artifacts")
    base = tmp_path / "base.json"
    common = ["bench", "dub", *media, "--artifacts", str(tmp_path / "artifacts"), "--threads", "1"]
    assert run([*common, "--save", str(base), "--json"]) == 0
    saved = load_base(base)
    assert json.loads(capsys.readouterr().out)["against"] == []
    assert saved.facts["threads"] == 1
    assert {f"dub/talk{stage} onnxruntime fp32 batch 1 slots 2" for stage in ("", "/track")} <= set(
        saved.cases
    )
    assert run([*common, "--against", str(base)]) == 1
    shown = capsys.readouterr()
    assert "against the base" in shown.out
    assert "too few samples" in shown.err
    assert "--repeats 5 or more" in shown.err
