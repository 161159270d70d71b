"""Frames finished by networks, through the whole job on toy networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_networks
from clips import QUICK, frames_of, write_portrait, write_speech
from toy_face_graphs import FACE_GRAPHS
from toy_half_networks import publish_half_toys
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import StageError, UsageError
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.options.finish import FinishOptions

FRAMES = 8
OPTIONS = DubOptions(
    stream=StreamOptions(batch=3, slots=2, threads=1, segment_s=0.2),
    encode=replace(QUICK, crf=0, pix_fmt="yuv444p"),
)
LOSSLESS = 3  # levels that two conversions of colour may cost
Dubbed = Callable[..., tuple[DubSummary, np.ndarray]]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return publish_toys(tmp_path_factory.mktemp("finish_toys"))


@pytest.fixture(scope="module")
def request_(toys: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> DubRequest:
    folder = tmp_path_factory.mktemp("finish")
    video = write_portrait(folder / "talk.mp4", FRAMES)
    voice = write_speech(folder / "voice.wav", FRAMES / 25)
    return DubRequest(video, voice, folder / "out.mp4", toys, folder / "cache", OPTIONS)


@pytest.fixture(scope="module")
def dubbed(request_: DubRequest) -> Dubbed:
    """Dubs with a finish; every job once, as jobs of one module share their preparation."""
    done: dict[FinishOptions, tuple[DubSummary, np.ndarray]] = {}

    def run(mask: str = "box", restore: str = "none") -> tuple[DubSummary, np.ndarray]:
        finish = FinishOptions(mask, restore)
        if finish not in done:
            summary = dub(replace(request_, options=replace(OPTIONS, finish=finish)))
            done[finish] = summary, frames_of(request_.output)
        return done[finish]

    return run


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest change of each pixel over the clip."""
    return np.abs(first - second).max(axis=(0, 3))


def stages_of(summary: DubSummary) -> set[str]:
    return {name.split("/")[1] for name in summary.busy_s if name.startswith("synthesise/")}


def test_the_standard_dub_needs_none_of_it(dubbed: Dubbed, request_: DubRequest) -> None:
    assert OPTIONS.networks == ("dnet", "lnet", "enet", "recon")
    summary, _ = dubbed()
    assert "blend" in stages_of(summary)
    assert not {"align", "parsenet", "gfpgan", "finish"} & stages_of(summary)


def test_one_parse_serves_mask_and_mouth(dubbed: Dubbed) -> None:
    summary, frames = dubbed("parse", "gfpgan")
    assert {"crop", "lnet", "enet", "align", "parsenet", "gfpgan", "finish"} <= stages_of(summary)
    assert "blend" not in stages_of(summary)
    assert summary.dubbed == len(frames) - sum(stop - first for first, stop in summary.absent)
    notes = [note for note in summary.notes if note not in dubbed()[0].notes]
    assert [note.split(":")[0] for note in notes] == ["licence of parsenet", "licence of gfpgan"]


def test_the_background_is_the_sources(dubbed: Dubbed, request_: DubRequest) -> None:
    change = changed(dubbed("parse", "gfpgan")[1], frames_of(request_.video))
    assert change[:60].max() <= LOSSLESS
    assert change[:, :60].max() <= LOSSLESS
    assert change[:, -60:].max() <= LOSSLESS
    assert change.max() > 20


def test_the_mask_follows_the_parse(dubbed: Dubbed, request_: DubRequest) -> None:
    source = frames_of(request_.video)
    by_box, by_parse = (changed(dubbed(mask)[1], source) > LOSSLESS for mask in ("box", "parse"))
    # The toy's face is a box of its own, narrower than the lip network's.
    assert by_parse.any()
    assert by_parse.sum() < by_box.sum()


def test_restoring_changes_the_mouth_alone(dubbed: Dubbed) -> None:
    change = changed(dubbed("box", "gfpgan")[1], dubbed("box")[1])
    rows, columns = np.nonzero(change > LOSSLESS)
    height, width = change.shape
    assert 0 < len(rows) < 0.05 * change.size
    assert np.ptp(rows) < 0.3 * height
    assert np.ptp(columns) < 0.5 * width


def test_restored_references_are_another_preparation(dubbed: Dubbed) -> None:
    dubbed()
    summary, frames = dubbed("box", "gpen")
    assert {"prepare/dnet", "prepare/parsenet", "prepare/gpen"} <= summary.busy_s.keys()
    assert "blend" in stages_of(summary)
    assert any("gpen: non-commercial" in note for note in summary.notes)
    # The toy takes 3 % off a reference's contrast.
    assert 1 < changed(frames, dubbed()[1]).max() < 12


def test_both_restorers_share_the_references_of_one(dubbed: Dubbed) -> None:
    dubbed("box", "gpen")
    summary, frames = dubbed("parse", "both")
    assert "gfpgan" in stages_of(summary)
    assert not any(stage.startswith("prepare/") for stage in summary.busy_s)
    assert changed(frames, dubbed("parse", "gfpgan")[1]).max() > 1


def test_another_finish_is_another_job(
    request_: DubRequest, toys: dict[str, Artifact], tmp_path: Path
) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "synthesise" and done > 5:
            raise KeyboardInterrupt

    parse = replace(request_, options=replace(OPTIONS, finish=FinishOptions("parse")))
    with pytest.raises(KeyboardInterrupt):
        dub(parse, interrupt)
    restored = replace(parse, options=replace(OPTIONS, finish=FinishOptions("parse", "gfpgan")))
    assert dub(restored).reused["segments"] == 0
    assert dub(parse).reused["segments"] >= 1


@pytest.mark.parametrize(
    ("network", "restore", "stage"),
    [("parsenet", "gfpgan", "finish"), ("gfpgan", "gfpgan", "finish"), ("gpen", "gpen", "restore")],
)
def test_a_network_that_returns_nan_is_named(
    request_: DubRequest, toys: dict[str, Artifact], tmp_path: Path, network: str, restore: str, stage: str
) -> None:
    broken = publish_toys(tmp_path / "broken", broken=network)
    options = replace(OPTIONS, finish=FinishOptions("parse", restore))
    output = tmp_path / "out.mp4"
    with pytest.raises(StageError, match=f"stage '{stage}' failed at frame 0"):
        dub(replace(request_, artifacts={**toys, network: broken[network]}, options=options, output=output))
    assert list(tmp_path.glob("out*")) == []


def test_frames_in_which_no_face_is_parsed_show_the_source_and_are_told(
    request_: DubRequest, toys: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, constants = FACE_GRAPHS["parsenet"]
    blind = nodes, {**constants, "nearly_one": np.float32(0)}
    monkeypatch.setitem(toy_networks._GRAPHS, "parsenet", blind)
    parser = publish_toys(tmp_path / "blind")["parsenet"]
    options = replace(OPTIONS, finish=FinishOptions("parse"))
    output = tmp_path / "out.mp4"
    summary = dub(replace(request_, artifacts={**toys, "parsenet": parser}, options=options, output=output))
    assert f"no face in {summary.dubbed} dubbed frames, which show the source" in " ".join(summary.notes)
    assert changed(frames_of(output), frames_of(request_.video)).max() <= LOSSLESS


def test_half_precision_pictures_give_nearly_the_same_frames(
    request_: DubRequest, dubbed: Dubbed, tmp_path: Path
) -> None:
    halves = publish_half_toys(tmp_path / "half")
    options = replace(OPTIONS, finish=FinishOptions("parse", "gfpgan"), backend=Backend(wanted="fp16"))
    dub(replace(request_, artifacts=halves, options=options, output=tmp_path / "half.mp4"))
    assert changed(frames_of(tmp_path / "half.mp4"), dubbed("parse", "gfpgan")[1]).max() <= 6


def test_a_batch_the_networks_cannot_take_is_refused() -> None:
    DubOptions(stream=StreamOptions(batch=12))
    with pytest.raises(UsageError, match="at most 8"):
        DubOptions(stream=StreamOptions(batch=12), finish=FinishOptions("parse"))


@pytest.mark.parametrize(("mask", "restore"), [("oval", "none"), ("box", "codeformer")])
def test_unknown_names_are_refused(mask: str, restore: str) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        FinishOptions(mask, restore)


@pytest.mark.parametrize(
    ("mask", "restore", "frame", "reference"),
    [
        ("box", "none", (), ()),
        ("parse", "none", ("parsenet",), ()),
        ("box", "gfpgan", ("parsenet", "gfpgan"), ()),
        ("box", "gpen", (), ("parsenet", "gpen")),
        ("parse", "both", ("parsenet", "gfpgan"), ("parsenet", "gpen")),
    ],
)
def test_only_the_networks_that_are_needed(
    mask: str, restore: str, frame: tuple[str, ...], reference: tuple[str, ...]
) -> None:
    finish = FinishOptions(mask, restore)
    assert (finish.frame_networks, finish.reference_networks) == (frame, reference)
    assert set(finish.networks) == {*frame, *reference}
    assert DubOptions(finish=finish).preparation_networks == ("recon", "dnet", *reference)
    assert len(finish.networks) == len(set(finish.networks))
