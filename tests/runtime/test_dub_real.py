"""The whole chain at full size: the real networks with seeded weights, on real footage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import write_portrait, write_speech

from dubstream.engines.artifact import Artifact
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.options import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader

FRAMES = 6


@pytest.mark.slow
def test_a_clip_is_dubbed_by_the_real_networks(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    video = write_portrait(tmp_path / "talk.mp4", FRAMES)
    audio = write_speech(tmp_path / "voice.wav", FRAMES / 25)
    output = tmp_path / "out.mp4"
    options = DubOptions(stream=StreamOptions(batch=3))
    summary = dub(DubRequest(video, audio, output, artifacts, tmp_path / "cache", options))
    assert (summary.frames, summary.av_gap_s < 1 / 25) == (FRAMES, True)
    assert summary.weights == "seeded:retalk"
    for source, dubbed in zip(_frames(video), _frames(output), strict=True):
        change = np.abs(source.astype(int) - dubbed).max(axis=2)
        assert change[:80].max() < 40, "the top of the picture is only encoded again"
        assert (change > 40).mean() > 0.02, "seeded weights give noise where the mouth is"


def _frames(path: Path) -> list[np.ndarray]:
    limits = MediaLimits()
    with VideoReader(probe_video(path, limits), limits) as reader:
        return [picture for _, picture in reader.frames()]
