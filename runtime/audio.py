"""Speech as the lip network hears it: mono 16 kHz, a mel spectrogram of 80 columns per second, windows of 16.

The numbers are those of the original program (librosa 0.9: zero-padded centred STFT, Slaney mel bands),
computed here with numpy alone: importing librosa costs over a second and compiles for 17 s where it has no
writable cache. The tests hold every step against librosa.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import MediaError, UsageError
from dubstream.runtime.resampling import resample

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
    mono = samples[0] if samples.shape[0] == 1 else samples.mean(axis=0, dtype=np.float32)
    return resample(mono, rate, SPEECH_RATE)


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
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    bank = mel_filters()
    mel = np.empty((BANDS, columns), dtype=np.float32)
    for first in range(0, columns, _BLOCK_COLUMNS):
        last = min(first + _BLOCK_COLUMNS, columns)
        magnitude = np.abs(np.fft.rfft(_frames(speech, first, last) * window, axis=1))
        mel[:, first:last] = _normalised(_band_sums(magnitude, bank)).T
    return mel


def mel_filters() -> NDArray[np.float32]:
    """The Slaney mel filter bank, area-normalised: float32 (80, 401), sum 3.9995."""
    edges = _slaney_hz(np.linspace(_slaney_mel(LOWEST_HZ), _slaney_mel(HIGHEST_HZ), BANDS + 2))
    bins = np.arange(FFT_SIZE // 2 + 1) * (SPEECH_RATE / FFT_SIZE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return np.asarray(triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None], dtype=np.float32)


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


def _frames(speech: NDArray[np.float32], first: int, last: int) -> NDArray[np.float64]:
    """Pre-emphasised windows of columns first..last-1, float64 (last - first, 800), zeros outside."""
    low = first * HOP - FFT_SIZE // 2
    high = (last - 1) * HOP + FFT_SIZE // 2
    # One sample more on the left: pre-emphasis looks one back, and beyond both ends it is silent.
    begin, end = max(low - 1, 0), min(high, speech.size)
    raw = speech[begin:end].astype(np.float64)
    raw[1:] -= PRE_EMPHASIS * speech[begin : end - 1]
    emphasised = raw[max(low, 0) - begin :]
    padded = np.pad(emphasised, (max(-low, 0), high - end))
    return np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP]


def _band_sums(magnitude: NDArray[np.float64], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    # Row by row, not one matrix product: a product's rounding depends on the number of rows, and a
    # spectrogram must not depend on how it was cut into blocks. A band spans 27 bins at most.
    sums = np.empty((magnitude.shape[0], bank.shape[0]))
    for band, weights in enumerate(bank):
        used = np.flatnonzero(weights)
        span = slice(used[0], used[-1] + 1)
        sums[:, band] = (magnitude[:, span] * weights[span]).sum(axis=1)
    return sums


def _normalised(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    decibels = 20.0 * np.log10(np.maximum(FLOOR_AMPLITUDE, mel)) - REFERENCE_DB
    return np.clip(2.0 * RANGE * (decibels + 100.0) / 100.0 - RANGE, -RANGE, RANGE)


# Slaney's scale: linear below 1 kHz (200/3 Hz per mel), then 27 steps per factor of 6.4.
_HZ_PER_MEL = 200.0 / 3.0
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def _slaney_mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _KNEE_HZ else _KNEE_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP


def _slaney_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)


def _require_finite(samples: NDArray[np.float32]) -> None:
    wrong = int(np.count_nonzero(~np.isfinite(samples)))
    if wrong:
        raise MediaError(
            f"audio holds {wrong} samples of {samples.size} that are NaN or infinite; expected numbers",
            hint="re-encode the audio to 16-bit PCM and look at what made it",
        )
