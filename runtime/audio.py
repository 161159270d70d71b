"""Speech as the lip network hears it: mono 16 kHz, a mel spectrogram of 80 columns per second, windows of 16.

The numbers are those of the original program (librosa 0.9: kaiser_best resampling, zero-padded centred
STFT, Slaney mel bands). librosa is imported when sound is first needed: it takes seconds to load.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.cache import cache_root
from dubstream.engines.errors import MediaError, UsageError

SPEECH_RATE = 16_000  # Hz
HOP = 200  # samples
FFT_SIZE = 800  # samples, also the window's length
BANDS = 80
MEL_RATE = SPEECH_RATE // HOP  # columns per second
WINDOW_COLUMNS = 16  # 0.2 s, looking ahead from its frame
LOWEST_HZ, HIGHEST_HZ = 55.0, 7600.0
PRE_EMPHASIS = 0.97
FLOOR_AMPLITUDE = 1e-5  # -100 dB
REFERENCE_DB = 20.0
RANGE = 4.0  # the spectrogram lies in -RANGE..RANGE
SILENCE = -RANGE
SHORTEST_SPEECH = 0.2  # seconds
LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000  # Hz; outside, a header is wrong rather than audio unusual

_BLOCK_COLUMNS = 1024  # about 20 MB of windows and spectra at a time, whatever the length

WindowRule = Literal["native", "upstream"]


def speech_from(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Mix decoded audio down to the network's rate.

    Args:
        samples: float32 (channels, n), usually within -1..1.
        rate: sample rate in Hz.

    Returns:
        float32 (m,), mono at 16 kHz: the channels' mean, resampled with the kernel of the original.

    Raises:
        MediaError: NaN or infinity, less than 0.2 s, or a rate outside the limits.
    """
    if samples.ndim != 2 or samples.shape[0] < 1:
        raise MediaError(
            f"audio has shape {samples.shape}; expected (channels, samples), one channel or more"
        )
    seconds = samples.shape[1] / rate if rate > 0 else 0.0
    if seconds < SHORTEST_SPEECH:
        raise MediaError(
            f"audio lasts {seconds:.3f} s; expected {SHORTEST_SPEECH} s or more",
            hint="check that the file holds speech and is not cut off",
        )
    _require_finite(samples)
    mono: NDArray[np.float32] = samples[0]
    if samples.shape[0] > 1:
        mono = samples.mean(axis=0, dtype=np.float32)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise MediaError(
            f"audio has a sample rate of {rate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE} Hz",
            hint="re-encode the audio, e.g. to 48000 Hz",
        )
    if rate == SPEECH_RATE:
        return mono
    resampled = _librosa().resample(mono, orig_sr=rate, target_sr=SPEECH_RATE, res_type="kaiser_best")
    return np.asarray(resampled, dtype=np.float32)


def mel_spectrogram(speech: NDArray[np.float32]) -> NDArray[np.float32]:
    """The normalised log-mel spectrogram of the original (paper section 3.2, upstream behaviour).

    Args:
        speech: float32 (n,), mono, 16 kHz, at least one sample.

    Returns:
        float32 (80, 1 + n // 200), -4 (silence) to 4; column c is centred on sample 200 c.

    Raises:
        MediaError: no samples, NaN or infinity.
    """
    if speech.ndim != 1 or speech.size == 0:
        raise MediaError(f"speech has shape {speech.shape}; expected (samples,), not empty")
    _require_finite(speech)
    columns = 1 + speech.size // HOP
    bank = mel_filters()
    mel = np.empty((BANDS, columns), dtype=np.float32)
    for first in range(0, columns, _BLOCK_COLUMNS):
        last = min(first + _BLOCK_COLUMNS, columns)
        spectrum = _librosa().stft(
            _stretch(speech, first, last), n_fft=FFT_SIZE, hop_length=HOP, center=False
        )
        mel[:, first:last] = _normalised(bank @ np.abs(spectrum))
    return mel


def mel_filters() -> NDArray[np.float32]:
    """The Slaney mel filter bank, area-normalised: float32 (80, 401), sum 3.9995."""
    bank = _librosa().filters.mel(
        sr=SPEECH_RATE, n_fft=FFT_SIZE, n_mels=BANDS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ
    )
    return np.asarray(bank, dtype=np.float32)


def frame_count(samples: int, fps: Fraction) -> int:
    """Output frames that start before the speech ends: ceil(samples / 16000 * fps)."""
    return math.ceil(Fraction(samples, SPEECH_RATE) * fps)


def window_start(index: int, fps: Fraction) -> int:
    """First mel column of frame `index` under the native rule: floor(80 * index / fps), exact."""
    return int(index * MEL_RATE / fps)


def window_starts(
    columns: int, fps: Fraction, frames: int | None = None, *, rule: WindowRule = "native"
) -> NDArray[np.int64]:
    """First mel columns of all output frames.

    native: every one of `frames` frames has a window; `mel_window` pads with silence what
    lies beyond the spectrogram, so the last 0.12 s and speech shorter than a window are dubbed too.
    upstream: in floating point; the list ends with the first window that would not fit, replaced by the
    last one that does. It is about 0.12 s shorter than the audio, and decides the number of frames.

    Args:
        columns: columns of the spectrogram.
        fps: frame rate of the output.
        frames: number of output frames (`frame_count`); required by native, not taken by upstream.

    Returns:
        int64 (frames,), not decreasing.

    Raises:
        UsageError: a frame rate that is not positive, or frames given or missing against the rule.
        MediaError: upstream, with fewer than 16 columns.
    """
    if fps <= 0:
        raise UsageError(f"frame rate is {fps}; expected more than 0")
    if (rule == "native") == (frames is None):
        raise UsageError(f"window rule '{rule}' with frames={frames}; expected frames with native only")
    if frames is not None:
        return np.array([window_start(index, fps) for index in range(frames)], dtype=np.int64)
    return _upstream_starts(columns, float(fps))


def mel_window(mel: NDArray[np.float32], start: int) -> NDArray[np.float32]:
    """Cut one window, padded with silence beyond the spectrogram.

    Args:
        mel: float32 (80, T).
        start: first column, 0 or more; may lie beyond T.

    Returns:
        float32 (1, 80, 16), own memory.
    """
    window = np.full((1, BANDS, WINDOW_COLUMNS), SILENCE, dtype=np.float32)
    inside = mel[:, start : start + WINDOW_COLUMNS]
    window[0, :, : inside.shape[1]] = inside
    return window


def _upstream_starts(columns: int, fps: float) -> NDArray[np.int64]:
    if columns < WINDOW_COLUMNS:
        raise MediaError(
            f"speech has {columns} mel columns; the upstream rule expects {WINDOW_COLUMNS} or more",
            hint="use --mode native, which pads with silence",
        )
    last = columns - WINDOW_COLUMNS
    step = MEL_RATE / fps
    starts = (np.arange(int(last / step) + 2) * step).astype(np.int64)
    return np.append(starts[starts <= last], last)


def _stretch(speech: NDArray[np.float32], first: int, last: int) -> NDArray[np.float64]:
    """Pre-emphasised samples under columns first..last-1, float64, zeros beyond both ends."""
    low = first * HOP - FFT_SIZE // 2
    high = (last - 1) * HOP + FFT_SIZE // 2
    # One sample more on the left: pre-emphasis looks one back, and beyond both ends it is silent.
    begin, end = max(low - 1, 0), min(high, speech.size)
    raw = speech[begin:end].astype(np.float64)
    raw[1:] -= PRE_EMPHASIS * speech[begin : end - 1]
    emphasised = raw[max(low, 0) - begin :]
    return np.pad(emphasised, (max(-low, 0), high - end))


def _normalised(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    decibels = 20.0 * np.log10(np.maximum(FLOOR_AMPLITUDE, mel)) - REFERENCE_DB
    return np.clip(2.0 * RANGE * (decibels + 100.0) / 100.0 - RANGE, -RANGE, RANGE)


def _require_finite(samples: NDArray[np.float32]) -> None:
    wrong = int(np.count_nonzero(~np.isfinite(samples)))
    if wrong:
        raise MediaError(
            f"audio holds {wrong} samples of {samples.size} that are NaN or infinite; expected numbers",
            hint="re-encode the audio to 16-bit PCM and look at what made it",
        )


@cache
def _librosa() -> Any:
    # numba compiles the resampler once; without a writable home it would do so at every start.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_root() / "numba"))
    import librosa

    return librosa
