"""Sample rate conversion with the band-limited kernel "kaiser_best".

The original loads speech with that kernel (a sinc of 50 zero crossings under a Kaiser window, read from a
finely sampled table), so lips depend on it. The usual implementation compiles itself with numba at
first use, which costs seconds and needs a writable cache; here a rational rate makes the kernel one
short filter per output phase, applied as matrix products, with the same table look-up.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import MediaError

ZERO_CROSSINGS = 50
TABLE_STEP = 1 << 13  # table entries per zero crossing
KAISER_BETA = 12.984585247040012
ROLLOFF = 0.9173473712608761  # pass band as a fraction of the lower Nyquist frequency

LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000  # Hz; outside, a header is wrong rather than audio unusual
_BLOCK_SAMPLES = 1 << 15  # input samples per block: its float64 copy stays in the cache over all phases


def resample(samples: NDArray[np.float32], rate: int, target: int) -> NDArray[np.float32]:
    """Convert mono audio to another sample rate.

    Args:
        samples: float32 (n,), any range.
        rate: its rate in Hz, 4 kHz to 768 kHz.
        target: the wanted rate in Hz.

    Returns:
        float32 (ceil(n * target / rate),). Where the length is not whole, the last sample is 0, as in
        the original. At equal rates the input itself.

    Raises:
        MediaError: a rate outside the limits.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise MediaError(
            f"audio has a sample rate of {rate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE} Hz",
            hint="re-encode the audio, e.g. to 48000 Hz",
        )
    if rate == target:
        return samples
    shared = math.gcd(rate, target)
    up, down = target // shared, rate // shared
    whole = samples.size * up // down
    out = np.zeros(-(-samples.size * up // down), dtype=np.float32)
    filters = _phase_filters(up, down)
    cycles = max(1, _BLOCK_SAMPLES // down)
    for first in range(0, whole, cycles * up):
        last = min(first + cycles * up, whole)
        _convert_block(samples, out[first:last], first // up * down, filters, down)
    return out


def _kernel_table() -> NDArray[np.float64]:
    """One wing of the windowed sinc, `TABLE_STEP` entries per zero crossing, float64."""
    position = np.linspace(0.0, ZERO_CROSSINGS, ZERO_CROSSINGS * TABLE_STEP + 1)
    window = np.i0(KAISER_BETA * np.sqrt(1.0 - (position / ZERO_CROSSINGS) ** 2)) / np.i0(KAISER_BETA)
    return np.asarray(ROLLOFF * np.sinc(ROLLOFF * position) * window)


def _phase_filters(up: int, down: int) -> NDArray[np.float64]:
    """Row p weighs the samples around output p: float64 (up, 2 * wing).

    Column wing - 1 belongs to the last sample at or before the output, column wing to the next one.
    """
    scale = min(1.0, up / down)
    table = _kernel_table() * scale
    # The stride is truncated to whole table entries, as in the original: a gain of 1.0002.
    stride = int(scale * TABLE_STEP)
    wing = (table.size - 1) // stride + 1
    filters = np.zeros((up, 2 * wing))
    for phase in range(up):
        left = scale * ((phase * down % up) / up)
        before, after = _wing(table, left, stride), _wing(table, scale - left, stride)
        filters[phase, wing - before.size : wing] = before[::-1]
        filters[phase, wing : wing + after.size] = after
    return filters


def _wing(table: NDArray[np.float64], start: float, stride: int) -> NDArray[np.float64]:
    """Every stride-th entry from `start` (zero crossings) on, linearly interpolated."""
    offset = int(start * TABLE_STEP)
    fraction = start * TABLE_STEP - offset
    index = offset + stride * np.arange((table.size - offset) // stride)
    following = table[np.minimum(index + 1, table.size - 1)]
    return np.asarray(table[index] + fraction * (following - table[index]))


def _convert_block(
    samples: NDArray[np.float32],
    out: NDArray[np.float32],
    begin: int,
    filters: NDArray[np.float64],
    down: int,
) -> None:
    """Fill `out`, whose first element stands at input sample `begin`; the signal is silent outside."""
    up, taps = filters.shape
    low = begin - taps // 2 + 1
    high = begin + -(-out.size // up) * down + taps
    inside = samples[max(low, 0) : high].astype(np.float64)
    before = max(-low, 0)
    padded = np.pad(inside, (before, high - low - before - inside.size))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    for phase in range(min(up, out.size)):
        target = out[phase::up]
        target[:] = windows[phase * down // up :: down][: target.size] @ filters[phase]
