"""Several people with speech of their own: one pass over the video, one encode, the sum of the voices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import QUICK, frames_of, write_speech, write_video
from crossing_clip import WIDTH, crossing_frames
from toy_networks import publish_toys

from dubstream.engines.errors import DubError, MediaError, StageError, UsageError
from dubstream.runtime.cli.app import run
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.speakers import MixedAudio, heard
from dubstream.runtime.media.audio import AudioTrack, decode_audio
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.options.dub import DubOptions, DubRequest, FaceOptions, StreamOptions
from dubstream.runtime.speakers import Speaker, parse_speakers

FRAMES = 12  # the two stand apart, one on the left, one on the right
LIMITS = MediaLimits()
LOSSLESS = 3  # levels that two conversions of colour may cost
OPTIONS = DubOptions(
    stream=StreamOptions(batch=4, threads=1, segment_s=0.3), encode=replace(QUICK, crf=0, pix_fmt="yuv444p")
)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    write_video(folder / "two.mp4", crossing_frames(0)[:FRAMES])
    write_speech(folder / "anna.wav", FRAMES / 25)
    write_speech(folder / "bert.wav", FRAMES / 25 / 2, seed=11)
    publish_toys(folder / "toys")
    return folder


@pytest.fixture(scope="module")
def request_(stock: Path) -> DubRequest:
    speakers = parse_speakers([f"0={stock / 'anna.wav'}", f"1={stock / 'bert.wav'}"])
    return DubRequest(
        stock / "two.mp4", None, stock / "out.mp4", publish_toys(stock / "toys"), stock / "cache", OPTIONS,
        speakers=speakers,
    )  # fmt: skip


def test_each_face_is_dubbed_as_if_it_were_alone(request_: DubRequest, tmp_path: Path) -> None:
    summary = dub(request_)
    both, source = frames_of(request_.output), frames_of(request_.video)
    assert summary.frames == summary.dubbed == FRAMES
    assert {"synthesise-0/lnet", "synthesise-1/lnet"} <= summary.busy_s.keys()
    halves = slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH)
    for speaker, half, other in zip(request_.speakers, halves, reversed(halves), strict=True):
        face = replace(OPTIONS.face, selector=speaker.face)
        alone = replace(
            request_, audio=speaker.audio, speakers=(), output=tmp_path / "one.mp4",
            options=replace(OPTIONS, face=face),
        )  # fmt: skip
        single = dub(alone)
        assert "track" not in single.busy_s  # what was seen serves every speaker
        assert not any(stage.startswith("prepare/") for stage in single.busy_s)
        one = frames_of(alone.output)
        assert np.abs(one[..., half, :] - source[: len(one), :, half]).max() > 20
        assert np.abs(one[..., half, :] - both[: len(one), :, half]).max() <= LOSSLESS
        assert np.abs(one[..., other, :] - source[: len(one), :, other]).max() <= LOSSLESS


def test_the_output_lasts_as_long_as_the_longest_voice_and_holds_all(request_: DubRequest) -> None:
    dub(request_)
    found = decode_audio(request_.output, LIMITS).mono()
    sound = heard([speaker.audio for speaker in request_.voices], LIMITS, allow_truncated=False)
    wanted = np.concatenate(list(sound.blocks()), axis=1)[0]
    assert abs(len(found) - len(wanted)) < 2048
    common = min(len(found), len(wanted))
    assert np.corrcoef(found[:common], wanted[:common])[0, 1] > 0.95


def test_a_killed_job_goes_on_to_the_same_frames(
    request_: DubRequest, tmp_path: Path, no_threads_left: None
) -> None:
    dub(request_)
    undisturbed = request_.output.read_bytes()

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "synthesise" and done > 8:
            raise KeyboardInterrupt

    again = replace(request_, output=tmp_path / "again.mp4")
    with pytest.raises(KeyboardInterrupt):
        dub(again, interrupt)
    assert not again.output.exists()
    summary = dub(again)
    assert summary.reused["segments"] == 1
    assert again.output.read_bytes() == undisturbed


def test_nonsense_of_a_network_is_named_and_no_thread_stays(
    request_: DubRequest, tmp_path: Path, no_threads_left: None
) -> None:
    broken = publish_toys(tmp_path / "broken", broken="enet")
    artifacts = {**request_.artifacts, "enet": broken["enet"]}
    with pytest.raises(StageError, match="stage 'blend' failed at frame 0"):
        dub(replace(request_, artifacts=artifacts, output=tmp_path / "out.mp4"))
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("faces", "kind", "words"),
    [
        (("0", "largest"), UsageError, "same person"),
        (("0", "7"), UsageError, "face index 7"),
        (("0", "prettiest"), UsageError, "prettiest"),
    ],
)
def test_people_who_are_not_there_or_not_two(
    request_: DubRequest, tmp_path: Path, faces: tuple[str, str], kind: type[DubError], words: str
) -> None:
    pairs = zip(faces, request_.speakers, strict=True)
    speakers = tuple(Speaker(face, speaker.audio) for face, speaker in pairs)
    with pytest.raises(kind, match=words):
        dub(replace(request_, speakers=speakers, output=tmp_path / "out.mp4"))
    assert not (tmp_path / "out.mp4").exists()


def test_speech_comes_from_one_place(request_: DubRequest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="received both"):
        replace(request_, audio=tmp_path / "a.wav")
    with pytest.raises(UsageError, match="received neither"):
        replace(request_, speakers=())
    with pytest.raises(UsageError, match="--face center beside --speaker"):
        replace(request_, options=replace(request_.options, face=FaceOptions("center")))
    missing = (request_.speakers[0], Speaker("1", tmp_path / "missing.wav"))
    with pytest.raises(MediaError, match=r"missing\.wav"):
        dub(replace(request_, speakers=missing))


def test_entries_are_a_face_and_a_file() -> None:
    assert parse_speakers(["0=a.wav", "10,20,30,40=b=c.wav"]) == (
        Speaker("0", Path("a.wav")),
        Speaker("10,20,30,40", Path("b=c.wav")),
    )
    for text in ("a.wav", "=a.wav", "0="):
        with pytest.raises(UsageError, match="expected FACE=AUDIO"):
            parse_speakers([text])
    with pytest.raises(UsageError, match="names face 0 twice"):
        parse_speakers(["0=a.wav", "0=b.wav"])


def test_the_sum_is_as_long_as_the_longest_at_the_highest_rate() -> None:
    low = AudioTrack(np.full((1, 12000), 0.25, np.float32), 8000, "mono")
    high = AudioTrack(np.full((2, 32000), 0.5, np.float32), 16000, "stereo")
    loud = AudioTrack(np.full((1, 8000), 0.9, np.float32), 16000, "mono")
    mixed = MixedAudio([low, high, loud])
    samples = np.concatenate(list(mixed.blocks()), axis=1)
    assert (mixed.rate, mixed.layout, samples.shape) == (16000, "stereo", (2, 32000))
    assert np.abs(samples).max() <= 1.0
    np.testing.assert_allclose(samples[:, 28000:], 0.5, atol=1e-3)
    assert samples[:, 12000:20000].mean() > samples[:, 28000:].mean() + 0.1
    again = np.concatenate(list(mixed.blocks()), axis=1)
    np.testing.assert_array_equal(samples, again)


def test_the_command_and_a_batch_take_speakers(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stock)
    common = [
        "--artifacts",
        "toys",
        "--threads",
        "1",
        "--preset",
        "ultrafast",
        "--cache",
        str(stock / "cache"),
    ]
    voices = ["--speaker", "0=anna.wav", "--speaker", "1=bert.wav"]
    assert run(["dub", "two.mp4", *voices, "-o", str(tmp_path / "a.mp4"), *common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dubbed"] == FRAMES
    job = {"video": "two.mp4", "speaker": ["0=anna.wav", "1=bert.wav"], "output": str(tmp_path / "b.mp4")}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job))
    assert run(["batch", str(tmp_path / "jobs.jsonl"), *common, "--json"]) == 0
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()
    capsys.readouterr()
    assert run(["batch", str(tmp_path / "jobs.jsonl"), *common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["status"] == "skipped"
    assert run(["dub", "two.mp4", "-o", str(tmp_path / "c.mp4"), *common]) == 2
    assert "--speaker FACE=AUDIO" in capsys.readouterr().err
