"""Speech, mel spectrogram and window arithmetic against worked numbers and against librosa."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dubstream.engines.errors import MediaError, UsageError
from dubstream.runtime import audio

UNEVEN_FPS = Fraction(22.131147540983605)


def tone(seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(16000 * seconds)) / 16000
    return (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.2).astype(np.float32)


def test_worked_spectrogram_of_a_tone() -> None:
    mel = audio.mel_spectrogram(tone())
    assert mel.shape == (80, 81)
    assert mel.dtype == np.float32
    np.testing.assert_allclose(mel[9:12, 40], [1.654641, 1.989764, 0.490574], atol=1e-6)
    assert np.all(np.delete(mel[:, 40], [9, 10, 11]) == -4)
    np.testing.assert_allclose(mel[:3, 0], [-1.051818, -0.875876, -0.688089], atol=1e-6)
    assert mel.max() == pytest.approx(1.98976, abs=1e-5)


def test_worked_mel_filters() -> None:
    bank = audio.mel_filters()
    assert bank.sum() == pytest.approx(3.999498, abs=1e-6)
    assert np.flatnonzero(bank[0]).tolist() == [3, 4, 5, 6]
    assert np.flatnonzero(bank[79])[[0, -1]].tolist() == [353, 379]


@pytest.mark.filterwarnings("ignore:n_fft=800 is too large")
@pytest.mark.parametrize("samples", [1, 200, 799, 801, 3200, 1024 * 200 + 77])
def test_spectrogram_equals_librosa(samples: int) -> None:
    import librosa

    speech = noise(samples)
    emphasised = speech.astype(np.float64)
    emphasised[1:] -= 0.97 * speech[:-1].astype(np.float64)
    stft = librosa.stft(y=emphasised, n_fft=800, hop_length=200, win_length=800, pad_mode="constant")
    bank = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    decibels = 20 * np.log10(np.maximum(1e-5, bank @ np.abs(stft))) - 20
    expected = np.clip(8 * (decibels + 100) / 100 - 4, -4, 4)
    np.testing.assert_array_equal(bank, audio.mel_filters())
    np.testing.assert_allclose(audio.mel_spectrogram(speech), expected, atol=3e-6)


@pytest.mark.parametrize("columns", [1, 7, 64])
def test_blocks_do_not_change_the_spectrogram(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = noise(30_011)
    whole = audio.mel_spectrogram(speech)
    monkeypatch.setattr(audio, "_BLOCK_COLUMNS", columns)
    # A matrix product's rounding may depend on its width: one unit in the last place of the spectrum.
    np.testing.assert_allclose(audio.mel_spectrogram(speech), whole, atol=1e-6)


def test_silence_is_the_padding_value() -> None:
    assert np.all(audio.mel_spectrogram(np.zeros(8000, np.float32)) == audio.SILENCE)


@pytest.mark.parametrize(
    ("fps", "count", "head", "tail"),
    [
        (Fraction(25), 122, [0, 3, 6, 9, 12], [380, 384, 385]),
        (Fraction(30), 146, [0, 2, 5, 8], [384, 385]),
        (UNEVEN_FPS, 108, [0, 3, 7, 10, 14], [379, 383, 385]),
    ],
)
def test_worked_upstream_starts(fps: Fraction, count: int, head: list[int], tail: list[int]) -> None:
    starts = audio.window_starts(401, fps, rule="upstream")
    assert starts.size == count
    assert starts[: len(head)].tolist() == head
    assert starts[-len(tail) :].tolist() == tail


def test_upstream_rule_equals_its_loop() -> None:
    for columns in (16, 17, 40, 401, 1999):
        for fps in (1.0, 23.976, 25.0, 29.97, 50.0, 80.0, 120.0):
            expected: list[int] = []
            while int(len(expected) * (80 / fps)) + 16 <= columns:
                expected.append(int(len(expected) * (80 / fps)))
            expected.append(columns - 16)
            starts = audio.window_starts(columns, Fraction(fps), rule="upstream")
            assert starts.tolist() == expected


def test_native_rule_gives_every_frame_a_window() -> None:
    frames = audio.frame_count(5 * 16000, Fraction(25))
    starts = audio.window_starts(401, Fraction(25), frames)
    assert frames == starts.size == 125
    assert starts[-4:].tolist() == [387, 390, 393, 396]
    mel = audio.mel_spectrogram(noise(5 * 16000))
    last = audio.mel_window(mel, int(starts[-1]))
    np.testing.assert_array_equal(last[0, :, :5], mel[:, 396:])
    assert np.all(last[0, :, 5:] == audio.SILENCE)


def test_native_starts_are_exact_for_rational_rates() -> None:
    fps = Fraction(30000, 1001)
    assert audio.window_start(30_000, fps) == 80 * 1001
    assert audio.window_start(29_999, fps) == 80 * 1001 - 3
    assert audio.frame_count(16000 * 1001, fps) == 30_000


def test_windows_of_short_and_missing_audio_are_padded() -> None:
    mel = audio.mel_spectrogram(noise(1000))
    window = audio.mel_window(mel, 0)
    assert window.shape == (1, 80, 16)
    assert window.dtype == np.float32
    np.testing.assert_array_equal(window[0, :, :6], mel)
    assert np.all(window[0, :, 6:] == audio.SILENCE)
    assert np.all(audio.mel_window(mel, 500) == audio.SILENCE)
    window[:] = 0
    assert not np.any(mel == 0)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_resampling_is_that_of_the_original(rate: int) -> None:
    resampy = pytest.importorskip("resampy")
    samples = noise(rate // 4 + 137)
    expected = resampy.resample(samples, rate, 16000, filter="kaiser_best")
    speech = audio.speech_from(samples[None], rate)
    assert speech.size == -(-samples.size * 16000 // rate)
    np.testing.assert_allclose(speech[: expected.size], expected, atol=1e-6)
    assert np.all(speech[expected.size :] == 0)


def test_a_tone_survives_resampling() -> None:
    time = np.arange(48000) / 48000
    source = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    speech = audio.speech_from(source[None], 48000)
    # The original reads its kernel table with a truncated stride, here 2730 for 2730.67: a gain of 1.0002.
    np.testing.assert_allclose(speech[200:-200], tone()[200:-200] * 1.00017, atol=1e-5)


def test_channels_are_averaged_before_resampling() -> None:
    stereo = np.stack([tone(), np.zeros(16000, np.float32)])
    np.testing.assert_array_equal(audio.speech_from(stereo, 16000), tone() / 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_unusable_samples_are_refused(value: float) -> None:
    samples = np.zeros((2, 16000), np.float32)
    samples[1, 77] = value
    with pytest.raises(MediaError, match=r"1 samples of 32000 that are NaN or infinite"):
        audio.speech_from(samples, 16000)
    with pytest.raises(MediaError, match="NaN or infinite"):
        audio.mel_spectrogram(samples[1])


@pytest.mark.parametrize(
    ("shape", "rate", "message"),
    [
        ((1, 3199), 16000, r"lasts 0\.200 s|lasts 0\.199"),
        ((1, 0), 16000, r"lasts 0\.000 s"),
        ((1, 16000), 0, r"lasts 0\.000 s"),
        ((0, 16000), 16000, "shape"),
        ((1, 16000), 3000, "sample rate of 3000 Hz"),
    ],
)
def test_unusable_audio_is_refused(shape: tuple[int, int], rate: int, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        audio.speech_from(np.zeros(shape, np.float32), rate)


def test_window_rules_are_checked() -> None:
    with pytest.raises(MediaError, match="15 mel columns"):
        audio.window_starts(15, Fraction(25), rule="upstream")
    with pytest.raises(UsageError, match="frames=None"):
        audio.window_starts(401, Fraction(25))
    with pytest.raises(UsageError, match="frames=10"):
        audio.window_starts(401, Fraction(25), 10, rule="upstream")
    with pytest.raises(UsageError, match="frame rate is 0"):
        audio.window_starts(401, Fraction(0), 10)
