"""The whole job on toy networks: lengths, resuming, reuse, failures. Real media, real faces, real files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import QUICK, frames_of, write_portrait, write_speech, write_video
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import DubError, NoFaceError, StageError
from dubstream.runtime.job.dub import dub
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.timeline import AudioMode

FRAMES = 24
STREAM = StreamOptions(batch=3, slots=2, threads=1, segment_s=0.32)
OPTIONS = DubOptions(stream=STREAM, encode=QUICK)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("media")
    return write_portrait(folder / "talk.mp4", FRAMES), write_speech(folder / "voice.wav", 0.96)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return publish_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def request_(media: tuple[Path, Path], toys: dict[str, Artifact], tmp_path: Path) -> DubRequest:
    return DubRequest(*media, tmp_path / "out.mp4", toys, tmp_path / "cache", OPTIONS)


@pytest.fixture(scope="module")
def undisturbed(
    media: tuple[Path, Path], toys: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    dub(DubRequest(*media, folder / "out.mp4", toys, folder / "cache", OPTIONS))
    return folder / "out.mp4"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".part" in path.name]


def test_every_output_frame_is_there_and_the_sound_fits(request_: DubRequest) -> None:
    summary = dub(request_)
    assert summary.frames == FRAMES == len(frames_of(request_.output))
    assert summary.av_gap_s < 1 / 25
    assert summary.weights == "seeded:toy"
    assert {"prepare/dnet", "synthesise/lnet", "synthesise/enet", "synthesise/blend"} <= summary.busy_s.keys()
    with av.open(str(request_.output)) as container:
        assert container.streams.video[0].average_rate == 25
        assert container.streams.audio[0].codec.name == "aac"


def test_frames_without_the_face_pass_through_and_are_reported(request_: DubRequest) -> None:
    options = replace(
        OPTIONS, encode=replace(QUICK, crf=0, pix_fmt="yuv444p"), face=replace(OPTIONS.face, max_gap=0)
    )
    summary = dub(replace(request_, options=options))
    assert summary.absent == [(15, 18)]
    assert summary.dubbed == FRAMES - 3
    source, output = frames_of(request_.video), frames_of(request_.output)
    changed = np.abs(source - output).max(axis=(1, 2, 3)).tolist()
    # Lossless video; what remains is the rounding of two colour conversions.
    assert max(changed[15:18]) <= 3
    assert min(changed[:15] + changed[18:]) > 20
    assert np.abs(source - output)[:, :60, :60].max() <= 3


@pytest.mark.parametrize(
    ("mode", "seconds", "frames"),
    [
        (AudioMode.CUT, 1.5, 24),
        (AudioMode.LOOP, 1.5, 38),
        (AudioMode.BOUNCE, 1.5, 38),
        (AudioMode.FREEZE, 1.5, 38),
        (AudioMode.SILENCE, 0.5, 24),
        (AudioMode.BOUNCE, 0.5, 13),
    ],
)
def test_audio_modes(
    request_: DubRequest, tmp_path: Path, mode: AudioMode, seconds: float, frames: int
) -> None:
    voice = write_speech(tmp_path / "voice.wav", seconds)
    summary = dub(replace(request_, audio=voice, options=replace(OPTIONS, audio_mode=mode)))
    assert summary.frames == frames == len(frames_of(request_.output))
    assert summary.av_gap_s < 1 / 25


def test_an_interrupted_job_leaves_nothing_and_goes_on_to_the_same_bytes(
    request_: DubRequest, undisturbed: Path
) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "synthesise" and done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dub(request_, interrupt)
    assert not request_.output.exists()
    assert leftovers(request_.output.parent) == []
    summary = dub(request_)
    assert summary.reused["segments"] == 1
    assert "track" not in summary.busy_s
    assert digest(request_.output) == digest(undisturbed)


@pytest.mark.parametrize("slots", [1, 3])
def test_the_number_of_slots_does_not_change_a_byte(
    request_: DubRequest, undisturbed: Path, slots: int
) -> None:
    dub(replace(request_, options=replace(OPTIONS, stream=replace(STREAM, slots=slots))))
    assert digest(request_.output) == digest(undisturbed)


def test_a_second_language_reuses_the_preparation(request_: DubRequest, tmp_path: Path) -> None:
    dub(request_)
    other = write_speech(tmp_path / "other.wav", 0.96, seed=8)
    summary = dub(replace(request_, audio=other, output=tmp_path / "other.mp4"))
    assert not any(stage.startswith("prepare") or stage == "track" for stage in summary.busy_s)
    assert summary.frames == FRAMES


def test_another_face_shares_what_was_seen_and_nothing_else(request_: DubRequest, tmp_path: Path) -> None:
    dub(request_)
    options = replace(OPTIONS, face=replace(OPTIONS.face, selector="center"))
    summary = dub(replace(request_, output=tmp_path / "other.mp4", options=options))
    assert "track" not in summary.busy_s
    assert summary.busy_s["prepare/recon"] > 0
    assert summary.busy_s["prepare/dnet"] > 0


def test_a_damaged_preparation_is_made_again(request_: DubRequest, undisturbed: Path) -> None:
    dub(request_)
    for path in (request_.cache / "prepared").rglob("*.pngs"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    summary = dub(request_)
    assert summary.busy_s["prepare/dnet"] > 0
    assert digest(request_.output) == digest(undisturbed)


def test_no_face_anywhere(request_: DubRequest, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, 120, 160, 3), np.uint8)
    video = write_video(tmp_path / "noise.mp4", list(noise))
    with pytest.raises(NoFaceError):
        dub(replace(request_, video=video))
    assert not request_.output.exists()


@pytest.mark.parametrize(("network", "stage"), [("enet", "blend"), ("dnet", "reference")])
def test_a_network_that_returns_nan_is_named_with_stage_and_frame(
    request_: DubRequest, tmp_path: Path, toys: dict[str, Artifact], network: str, stage: str
) -> None:
    broken = publish_toys(tmp_path / "broken", broken=network)
    with pytest.raises(StageError, match=f"stage '{stage}' failed at frame 0"):
        dub(replace(request_, artifacts={**toys, network: broken[network]}))
    assert not request_.output.exists()
    assert leftovers(tmp_path) == []


def test_an_existing_output_survives_a_failure(request_: DubRequest, tmp_path: Path) -> None:
    request_.output.write_bytes(b"precious")
    silent = tmp_path / "short.wav"
    write_speech(silent, 0.1)
    with pytest.raises(DubError):
        dub(replace(request_, audio=silent))
    assert request_.output.read_bytes() == b"precious"
