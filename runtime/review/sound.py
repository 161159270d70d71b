"""Sound against picture: where the streams start and end, and by how much one sound comes after another."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dubstream.runtime.media.audio import AudioFile
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import opened

ENVELOPE_HZ = 200
"""Values of an envelope per second: 5 ms is far below what anyone notices between sound and lips."""

LARGEST_LAG_S = 1.0
_ALIKE = 0.5  # correlation of envelopes from which two sounds count as the same
_SHORTEST_S = 0.2
_SILENCE = 1e-3  # root mean square, -60 dB; quieter sounds are equal

Envelope = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sound:
    """The sound of one file.

    Attributes:
        start_s: when it starts after the picture, seconds; negative before.
        length_s: seconds that decode.
        envelope: float32 (n,), loudness at `ENVELOPE_HZ`, root mean square of all channels.
    """

    start_s: float
    length_s: float
    envelope: Envelope


def read_sound(path: Path, limits: MediaLimits) -> Sound | None:
    """Decode a file's first audio stream in blocks, keeping its envelope; None without audio.

    Memory grows by 3 MB per hour.

    Raises:
        DubError: as `dubstream.runtime.media.audio.AudioFile`.
    """
    start_s = _start_after_picture(path, limits)
    if start_s is None:
        return None
    # However short it is, it is to be compared.
    source = AudioFile(path, replace(limits, min_audio_s=1e-9))
    loudness = _Loudness(source.rate)
    for block in source.blocks():
        loudness.add(block)
    return Sound(start_s, loudness.samples / source.rate, loudness.envelope())


class _Loudness:
    """Root mean squares of consecutive stretches of sound, from blocks of any length."""

    def __init__(self, rate: int) -> None:
        self.samples = 0
        self._step = rate / ENVELOPE_HZ
        self._powers = array("f")
        self._pending = np.zeros(0)
        self._pending_from = 0

    def add(self, block: npt.NDArray[np.float32]) -> None:
        squares = (block.astype(np.float64) ** 2).mean(axis=0)
        self._pending = np.concatenate([self._pending, squares])
        self.samples += block.shape[1]
        # Edges by absolute position: a sample rate that is no multiple of 200 must not drift.
        whole = int(self.samples / self._step)
        edges = np.rint(np.arange(len(self._powers), whole + 1) * self._step).astype(np.int64)
        edges -= self._pending_from
        if len(edges) > 1:
            sums = np.add.reduceat(self._pending[: edges[-1]], edges[:-1])
            self._powers.extend((sums / np.diff(edges)).tolist())
            self._pending = self._pending[edges[-1] :]
            self._pending_from += int(edges[-1])

    def envelope(self) -> Envelope:
        return np.sqrt(np.array(self._powers, dtype=np.float32))


def sound_lag_s(first: Sound, second: Sound) -> float | None:
    """Seconds by which the content of the second sound comes later in its stream than that of the first.

    The lag at which the envelopes correlate best, within `LARGEST_LAG_S`, in steps of 5 ms.

    Returns:
        None where no lag makes them alike: another speech, silence, or less than 0.2 s.
    """
    reach = round(LARGEST_LAG_S * ENVELOPE_HZ)
    shortest = round(_SHORTEST_S * ENVELOPE_HZ)
    best, found = _ALIKE, None
    for lag in sorted(range(-reach, reach + 1), key=abs):
        x, y = first.envelope[max(-lag, 0) :], second.envelope[max(lag, 0) :]
        count = min(len(x), len(y))
        if count < shortest or count < 0.5 * min(len(first.envelope), len(second.envelope)):
            continue
        correlation = _correlation(x[:count], y[:count])
        if correlation > best:
            best, found = correlation, lag
    return None if found is None else found / ENVELOPE_HZ


def sound_difference(first: Sound, second: Sound, lag_s: float) -> float:
    """How unlike two sounds are once the lag is taken out.

    Returns:
        Norm of the difference of the envelopes over that of the first, where both sound: 0 for equal ones (or
        silence in both), about 1 for two speeches.
    """
    lag = round(lag_s * ENVELOPE_HZ)
    x, y = first.envelope[max(-lag, 0) :], second.envelope[max(lag, 0) :]
    count = min(len(x), len(y))
    scale = max(float(np.linalg.norm(x[:count])), _SILENCE * count**0.5)
    return float(np.linalg.norm(y[:count] - x[:count])) / scale if count else 1.0


def _correlation(x: Envelope, y: Envelope) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum(dtype=np.float64) * (y * y).sum(dtype=np.float64)))
    return float((x * y).sum(dtype=np.float64)) / scale if scale > 1e-9 else 0.0


def _start_after_picture(path: Path, limits: MediaLimits) -> float | None:
    """Start of the first audio stream less that of the picture, in seconds; None without audio."""
    with opened(path, limits, "read") as container:
        audio, video = container.streams.audio, container.streams.video
        if not audio:
            return None
        starts = [float((stream.start_time or 0) * stream.time_base) for stream in (audio[0], video[0])]
        return starts[0] - starts[1]
