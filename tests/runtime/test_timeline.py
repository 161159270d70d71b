"""The join of video frames and audio length, in every mode, at the awkward lengths."""

from fractions import Fraction

import numpy as np
import pytest

from dubstream.engines.errors import MediaError, UsageError
from dubstream.runtime.timeline import AudioMode, parse_audio_mode, plan_timeline

RATE = Fraction(25)
PLAN = np.array([0, 1, 1, 4, 5])


def _sources(seconds: Fraction, mode: AudioMode, plan: np.ndarray = PLAN) -> list[int]:
    return plan_timeline(plan, RATE, seconds, mode).sources.tolist()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (AudioMode.CUT, [0, 1, 1, 4, 5]),
        (AudioMode.LOOP, [0, 1, 1, 4, 5, 0, 1, 1, 4, 5, 0]),
        (AudioMode.BOUNCE, [0, 1, 1, 4, 5, 4, 1, 1, 0, 1, 1]),
        (AudioMode.FREEZE, [0, 1, 1, 4, 5, 5, 5, 5, 5, 5, 5]),
        (AudioMode.SILENCE, [0, 1, 1, 4, 5, 5, 5, 5, 5, 5, 5]),
    ],
)
def test_audio_longer_than_video(mode: AudioMode, expected: list[int]) -> None:
    assert _sources(Fraction(11, 25), mode) == expected


@pytest.mark.parametrize("mode", list(AudioMode))
def test_audio_shorter_than_video_cuts_the_video_except_for_silence(mode: AudioMode) -> None:
    timeline = plan_timeline(PLAN, RATE, Fraction(2, 25), mode)
    if mode is AudioMode.SILENCE:
        assert timeline.sources.tolist() == PLAN.tolist()
    else:
        assert timeline.sources.tolist() == [0, 1]


def test_a_begun_frame_period_gets_a_frame() -> None:
    assert len(_sources(Fraction(1, 25) + Fraction(1, 44100), AudioMode.LOOP)) == 2


def test_cut_ends_with_the_video() -> None:
    assert _sources(Fraction(9), AudioMode.CUT) == PLAN.tolist()


@pytest.mark.parametrize("mode", list(AudioMode))
def test_one_frame_video(mode: AudioMode) -> None:
    expected = [7] if mode is AudioMode.CUT else [7, 7, 7]
    assert _sources(Fraction(3, 25), mode, np.array([7])) == expected


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), Fraction(60000, 1001)])
@pytest.mark.parametrize("samples", [4411, 44100, 220501])
def test_picture_covers_the_sound_by_less_than_one_frame(rate: Fraction, samples: int) -> None:
    seconds = Fraction(samples, 44100)
    timeline = plan_timeline(np.arange(40), rate, seconds, AudioMode.BOUNCE)
    assert 0 <= timeline.frames / rate - seconds < 1 / rate


def test_nothing_to_dub_is_named() -> None:
    with pytest.raises(MediaError, match="0 video frames"):
        plan_timeline(np.array([], np.int64), RATE, Fraction(1), AudioMode.CUT)
    with pytest.raises(UsageError, match="expected one of cut, loop, bounce"):
        parse_audio_mode("repeat")
