"""Plain restatements of the pixel operations in float64, written for clarity: no OpenCV, no tricks."""

from __future__ import annotations

import numpy as np


def noise_picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_box(
    rng: np.random.Generator, width: int, height: int, least: int = 1
) -> tuple[int, int, int, int]:
    """A box of at least `least` pixels a side somewhere in the frame, edges included."""
    x1, y1 = int(rng.integers(0, width - least + 1)), int(rng.integers(0, height - least + 1))
    return x1, y1, int(rng.integers(x1 + least, width + 1)), int(rng.integers(y1 + least, height + 1))


def outside(frame: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """bool (H, W): which of the frame's pixels are not in the window."""
    x1, y1, x2, y2 = window
    kept = np.ones(frame.shape[:2], bool)
    kept[y1:y2, x1:x2] = False
    return kept


def bilinear(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Half-pixel centres, edge repeated, no antialias."""
    rows = _interpolate(np.asarray(picture, np.float64), height)
    return _interpolate(rows.swapaxes(0, 1), width).swapaxes(0, 1)


def _interpolate(values: np.ndarray, length: int) -> np.ndarray:
    size = len(values)
    at = (np.arange(length) + 0.5) * size / length - 0.5
    low = np.floor(at).astype(int)
    part = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[np.clip(low, 0, size - 1)] * (1 - part) + values[np.clip(low + 1, 0, size - 1)] * part


def pyr_down(values: np.ndarray) -> np.ndarray:
    """5-tap binomial, border mirrored without repeating the edge pixel, every second sample."""
    return _down(_down(np.asarray(values, np.float64)).swapaxes(0, 1)).swapaxes(0, 1)


def _down(values: np.ndarray) -> np.ndarray:
    size = len(values)
    out = []
    for centre in range(0, size, 2):
        taps = [values[_mirror(centre + offset, size)] for offset in range(-2, 3)]
        out.append((taps[0] + 4 * taps[1] + 6 * taps[2] + 4 * taps[3] + taps[4]) / 16)
    return np.stack(out)


def _mirror(index: int, size: int) -> int:
    if size == 1:
        return 0
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * size - 2 - index
    return index


def pyr_up(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Zeros between the samples, 5-tap binomial times 2; mirrored at the start, edge repeated at the end."""
    return _up(_up(np.asarray(values, np.float64), height).swapaxes(0, 1), width).swapaxes(0, 1)


def _up(values: np.ndarray, length: int) -> np.ndarray:
    size = len(values)
    out = []
    for position in range(length):
        here = position // 2
        after = values[min(here + 1, size - 1)]
        if position % 2:
            out.append((values[here] + after) / 2)
        else:
            before = values[abs(here - 1) if size > 1 else 0]
            out.append((before + 6 * values[here] + after) / 8)
    return np.stack(out)


def classic_blend(
    inside: np.ndarray, outside: np.ndarray, mask: np.ndarray, levels: int, *, rounded: bool
) -> np.ndarray:
    """The textbook Laplacian blend, a pyramid of each picture; `rounded` reduces them in uint8."""
    tops = [np.asarray(picture, np.float64) for picture in (inside, outside)]
    weight = np.asarray(mask, np.float64)[..., None]
    bands = []
    for _ in range(levels - 1):
        lower = [pyr_down(top) for top in tops]
        if rounded:
            lower = [np.floor(top + 0.5) for top in lower]
        fine = [top - pyr_up(low, *top.shape[:2]) for top, low in zip(tops, lower, strict=True)]
        bands.append(fine[0] * weight + fine[1] * (1 - weight))
        tops, weight = lower, pyr_down(weight)
    blended = tops[0] * weight + tops[1] * (1 - weight)
    for band in reversed(bands):
        blended = pyr_up(blended, *band.shape[:2]) + band
    return blended
