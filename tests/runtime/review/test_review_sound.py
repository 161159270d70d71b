"""Envelopes, lags and starts of sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import Clip, make_video
from media_factory import Sound as Sine

from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.review.sound import (
    ENVELOPE_HZ,
    Envelope,
    Sound,
    read_sound,
    sound_difference,
    sound_lag_s,
)

LIMITS = MediaLimits()


def sound(envelope: Envelope) -> Sound:
    return Sound(0.0, len(envelope) / ENVELOPE_HZ, envelope)


def speech(seconds: float = 2.0, seed: int = 1) -> Envelope:
    steps = np.random.default_rng(seed).uniform(0, 0.4, round(8 * seconds))
    return np.repeat(steps, ENVELOPE_HZ // 8).astype(np.float32)


@pytest.mark.parametrize("lag", [-60, -1, 0, 7, 140])
def test_the_lag_is_found_in_both_directions(lag: int) -> None:
    first = speech()
    second = np.concatenate([np.zeros(max(lag, 0), np.float32), first[max(-lag, 0) :]])
    assert sound_lag_s(sound(first), sound(second)) == lag / ENVELOPE_HZ
    assert sound_difference(sound(first), sound(second), lag / ENVELOPE_HZ) == 0.0


def test_sounds_that_are_not_alike_have_no_lag() -> None:
    first, other = sound(speech()), sound(speech(seed=2))
    silence = sound(np.zeros(400, np.float32))
    assert sound_difference(first, other, 0.0) > 0.5
    assert sound_lag_s(first, silence) is None
    assert sound_lag_s(silence, silence) is None
    assert sound_difference(silence, silence, 0.0) == 0.0
    assert sound_lag_s(first, sound(speech()[:10])) is None


@pytest.mark.parametrize("rate", [44100, 22050, 8000, 48000])
def test_the_envelope_does_not_drift(tmp_path: Path, rate: int) -> None:
    seconds = 3.0
    path = make_video(
        tmp_path / "a.mkv", Clip(frames=75, sounds=(Sine(rate=rate, seconds=seconds, codec="pcm_s16le"),))
    )
    heard = read_sound(path, LIMITS)
    assert heard is not None
    assert heard.length_s == pytest.approx(seconds, abs=1e-3)
    assert len(heard.envelope) == pytest.approx(seconds * ENVELOPE_HZ, abs=1)
    np.testing.assert_allclose(heard.envelope, 0.5 / 2**0.5, atol=0.03)


def test_a_file_without_sound_has_none(tmp_path: Path) -> None:
    assert read_sound(make_video(tmp_path / "a.mp4", Clip()), LIMITS) is None


def test_a_track_that_starts_later_is_seen_in_the_container(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mkv", Clip(frames=25, sounds=(Sine(codec="pcm_s16le"),)))
    moved = tmp_path / "moved.mkv"
    with av.open(str(whole)) as reading, av.open(str(moved), "w") as writing:
        streams = {s.index: writing.add_stream_from_template(s) for s in reading.streams}
        for packet in reading.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                shift = int(Fraction(200, 1000) / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream.index]
            writing.mux(packet)
    first, second = read_sound(whole, LIMITS), read_sound(moved, LIMITS)
    assert first is not None
    assert second is not None
    assert first.start_s == pytest.approx(0.0, abs=2e-3)
    assert second.start_s == pytest.approx(0.2, abs=2e-3)


def test_speech_shorter_than_a_mouth_needs_is_still_compared(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mkv", Clip(frames=3, sounds=(Sine(seconds=0.1, codec="pcm_s16le"),)))
    heard = read_sound(video, LIMITS)
    assert heard is not None
    assert heard.length_s == pytest.approx(0.1, abs=1e-3)
