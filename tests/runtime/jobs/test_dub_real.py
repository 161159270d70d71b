"""The whole chain at full size: the real networks with seeded weights, on real footage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import frames_of, write_portrait, write_speech
from real_artifacts import half_artifact

from dubstream.engines.artifact import Artifact
from dubstream.engines.specs import CORE
from dubstream.runtime.cli.app import run
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.review.pictures import luma, mean_ssim, psnr_db, ssim_map

FRAMES = 5  # the last batch is a short one
SSIM = 0.98
PSNR_DB = 40.0
"""Whole frames, both encoded with the same settings, so the encoder's noise is in it twice."""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("media")
    return write_portrait(folder / "talk.mp4", FRAMES), write_speech(folder / "voice.wav", FRAMES / 25)


@pytest.fixture(scope="module")
def full(
    artifacts: dict[str, Artifact], media: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> DubSummary:
    folder = tmp_path_factory.mktemp("full")
    options = DubOptions(stream=StreamOptions(batch=3))
    return dub(DubRequest(*media, folder / "out.mp4", artifacts, folder / "cache", options))


@pytest.mark.slow
def test_a_clip_is_dubbed_by_the_real_networks(full: DubSummary, media: tuple[Path, Path]) -> None:
    assert (full.frames, full.av_gap_s < 1 / 25) == (FRAMES, True)
    assert full.weights == "seeded:retalk"
    for source, dubbed in zip(frames_of(media[0]), frames_of(Path(full.output)), strict=True):
        change = np.abs(source - dubbed).max(axis=2)
        assert change[:80].max() < 40, "the top of the picture is only encoded again"
        assert (change > 40).mean() > 0.02, "seeded weights give noise where the mouth is"


@pytest.mark.slow
def test_half_precision_dubs_the_same_video(
    full: DubSummary, media: tuple[Path, Path], tmp_path: Path
) -> None:
    """The command a user types, with the artifacts a GPU runs: pictures in and out of every network."""
    folder = {half_artifact(name, "fp16").path.parent for name in CORE}.pop()
    output = tmp_path / "half.mp4"
    options = ["--artifacts", folder, "--precision", "fp16", "--batch", 3, "--cache", tmp_path / "cache"]
    assert run(["dub", *map(str, [*media, "--output", output, *options])]) == 0
    wide, narrow = (frames_of(path).astype(np.uint8) for path in (Path(full.output), output))
    pairs = list(zip(wide, narrow, strict=True))
    assert len(pairs) == FRAMES
    assert min(mean_ssim(ssim_map(luma(first), luma(second))) for first, second in pairs) >= SSIM
    assert min(psnr_db(*pair) for pair in pairs) >= PSNR_DB
