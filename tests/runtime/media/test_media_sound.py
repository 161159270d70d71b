"""Audio of every container in, as float32 blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_factory import Clip, Sound, make_audio, make_video, make_wav, sine

from dubstream.engines.errors import LimitError, MediaError, TruncatedMediaError
from dubstream.runtime.media.audio import AudioFile, AudioTrack, decode_audio
from dubstream.runtime.media.limits import MediaLimits

LIMITS = MediaLimits()
KINDS = {
    "a.wav": (Sound(codec="pcm_s16le"), 1e-4),
    "b.wav": (Sound(codec="pcm_f32le", layout="mono", rate=22050), 1e-7),
    "c.wav": (Sound(codec="pcm_u8", rate=8000), 0.01),
    "d.wav": (Sound(codec="pcm_s24le"), 1e-6),
    "e.wav": (Sound(codec="pcm_f64le"), 1e-7),
    "f.flac": (Sound(codec="flac", rate=44100), 1e-4),
    "g.mp3": (Sound(codec="libmp3lame", rate=44100), 0.05),
    "h.m4a": (Sound(codec="aac", rate=44100), 0.05),
    "i.aac": (Sound(codec="aac"), 0.05),
    "j.ogg": (Sound(codec="flac"), 1e-4),
    "k.opus": (Sound(codec="libopus"), 0.05),
    "l.mka": (Sound(codec="pcm_s16le", layout="5.1"), 1e-4),
    "m.aiff": (Sound(codec="pcm_s16be"), 1e-4),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_sine_comes_back_from_every_kind(tmp_path: Path, name: str) -> None:
    sound, tolerance = KINDS[name]
    track = decode_audio(make_audio(tmp_path / name, sound), LIMITS)
    wanted = sine(sound.rate, sound.seconds, channels=track.samples.shape[0])
    assert track.rate == sound.rate
    assert track.samples.dtype == np.float32
    assert track.duration_s == pytest.approx(1.0, abs=0.1)
    # Lossy codecs may keep their delay: compare the best alignment within it, away from the ends.
    middle = wanted[0, 6000:7000]
    heard = track.samples[0]
    errors = [
        np.abs(heard[6000 + d : 7000 + d] - middle).max()
        for d in range(-10, 3000 if tolerance > 0.02 else 10)
    ]
    assert min(errors) <= tolerance


def test_the_track_of_a_video_is_chosen_by_number(tmp_path: Path) -> None:
    sounds = (Sound(hertz=440.0), Sound(hertz=440.0, rate=16000, layout="mono"))
    path = make_video(tmp_path / "two.mkv", Clip(frames=25, sounds=sounds))
    first, second = decode_audio(path, LIMITS), decode_audio(path, LIMITS, stream=1)
    assert (first.rate, first.samples.shape[0]) == (48000, 2)
    assert (second.rate, second.samples.shape[0]) == (16000, 1)
    with pytest.raises(MediaError, match="expected stream 2"):
        decode_audio(path, LIMITS, stream=2)


def test_blocks_can_be_read_twice_and_left_early(tmp_path: Path) -> None:
    source = AudioFile(make_audio(tmp_path / "a.wav", Sound(codec="pcm_s16le")), LIMITS)
    next(source.blocks())
    once = np.concatenate(list(source.blocks()), axis=1)
    again = np.concatenate(list(source.blocks()), axis=1)
    assert once.shape == (2, 48000)
    assert np.array_equal(once, again)


def test_mono_is_the_mean_of_the_channels() -> None:
    track = AudioTrack(np.array([[0.0, 1.0], [0.5, 0.0]], np.float32), 8000, "stereo")
    np.testing.assert_array_equal(track.mono(), np.array([0.25, 0.5], np.float32))
    assert [block.shape for block in track.blocks()] == [(2, 2)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_found_and_placed(tmp_path: Path, bad: float) -> None:
    samples = sine(16000, 1.0)
    samples[0, 8000] = bad
    with pytest.raises(MediaError, match=r"NaN or infinity at 0\.500 s"):
        decode_audio(make_wav(tmp_path / "nan.wav", samples, 16000), LIMITS)


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no audio stream"):
        decode_audio(make_video(tmp_path / "silent.mp4", Clip(frames=2)), LIMITS)


@pytest.mark.parametrize("samples", [0, 1, 3199])
def test_less_than_a_fifth_of_a_second_is_too_short(tmp_path: Path, samples: int) -> None:
    path = make_wav(tmp_path / "short.wav", np.zeros((1, samples), np.float32), 16000)
    with pytest.raises(LimitError, match="--min-audio"):
        decode_audio(path, LIMITS)
    decode_audio(make_wav(tmp_path / "enough.wav", np.zeros((1, 3200), np.float32), 16000), LIMITS)


def test_sixty_four_channels_and_hours_name_their_limits(tmp_path: Path) -> None:
    wide = make_wav(tmp_path / "wide.wav", np.zeros((64, 8000), np.float32), 16000)
    with pytest.raises(LimitError, match="--max-audio-channels"):
        decode_audio(wide, LIMITS)
    long = make_wav(tmp_path / "long.wav", np.zeros((1, 16000), np.float32), 16000)
    with pytest.raises(LimitError, match="--max-audio"):
        decode_audio(long, MediaLimits(max_audio_s=0.5))


@pytest.mark.parametrize("name", ["a.wav", "f.flac", "g.mp3", "h.m4a"])
def test_audio_cut_short_is_refused_or_its_loss_reported(tmp_path: Path, name: str) -> None:
    sound = KINDS[name][0]
    options = Sound(codec=sound.codec, rate=sound.rate, seconds=3.0)
    path = make_audio(tmp_path / name, options) if name != "h.m4a" else _faststart(tmp_path, options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(TruncatedMediaError, match=r"short|ends at|damaged|lacks"):
        decode_audio(path, LIMITS)
    track = decode_audio(path, LIMITS, allow_truncated=True)
    assert 1.0 < track.duration_s < 2.5
    assert name == "a.wav" or track.lost_s > 0.5


def test_a_streamed_wav_without_sizes_is_read_whole(tmp_path: Path) -> None:
    path = make_wav(tmp_path / "piped.wav", sine(16000, 1.0), 16000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert decode_audio(path, LIMITS).samples.shape == (1, 16000)


def _faststart(folder: Path, sound: Sound) -> Path:
    import av

    path = folder / "h.m4a"
    with av.open(str(path), "w", format="ipod", container_options={"movflags": "+faststart"}) as output:
        from media_factory import _store

        _store(output, output.add_stream("aac", rate=sound.rate, layout=sound.layout), sound)
    return path
