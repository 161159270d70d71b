"""The 2-D Fourier transform of small pictures as products with constant matrices.

Up to `DENSE_LIMIT` pixels the whole transform is one product of the flattened picture with one matrix:
no axis ever moves. Above, the matrix would grow too large, and width and height are transformed one
after the other. Real and imaginary part of channel c come out as channels 2c and 2c + 1, which is the
order the checkpoints use. All tables carry the orthonormal scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

DENSE_LIMIT = 16 * 16


def half_width(width: int) -> int:
    """Columns of the half spectrum of a real picture."""
    return width // 2 + 1


class Fourier(nn.Module):
    """Forward and inverse transform for one height and width, as `torch.fft.rfft2` and `irfft2`."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.dense = height * width <= DENSE_LIMIT
        tables = _dense_tables(height, width) if self.dense else _separate_tables(height, width)
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Picture (N, C, H, W) to spectrum (N, 2C, H, W // 2 + 1)."""
        shape = (x.shape[0], 2 * x.shape[1], self.height, half_width(self.width))
        if self.dense:
            return (x.flatten(2) @ self.get_buffer("analysis")).reshape(shape)
        parts = [x @ self.get_buffer("cosines"), x @ self.get_buffer("sines")]
        return (self.get_buffer("columns") @ torch.cat(parts, dim=2)).reshape(shape)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Spectrum (N, 2C, H, W // 2 + 1) to picture (N, C, H, W)."""
        shape = (spectrum.shape[0], spectrum.shape[1] // 2, self.height, self.width)
        if self.dense:
            return (spectrum.reshape(*shape[:2], -1) @ self.get_buffer("synthesis")).reshape(shape)
        stacked = spectrum.reshape(*shape[:2], 2 * self.height, -1)
        real, imaginary = torch.split(self.get_buffer("rows") @ stacked, self.height, dim=2)
        y: Tensor = real @ self.get_buffer("real_width") + imaginary @ self.get_buffer("imaginary_width")
        return y


def _angles(size: int, frequencies: int) -> Tensor:
    """2 pi k n / size for every sample n (rows) and frequency k (columns), float64."""
    product = torch.outer(torch.arange(size), torch.arange(frequencies)) % size
    return product.double() * (2 * math.pi / size)


def _multiplicity(width: int) -> Tensor:
    """How often each column of the half spectrum stands in the whole one: 1, 2, ..., 2 and 1 or 2."""
    counts = torch.full((half_width(width),), 2.0, dtype=torch.float64)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def _separate_tables(height: int, width: int) -> dict[str, Tensor]:
    """Tables for width, then height; the imaginary parts are stacked below the real ones."""
    across, down = _angles(width, half_width(width)), _angles(height, height)
    cosine, sine = torch.cos(down) / math.sqrt(height), torch.sin(down) / math.sqrt(height)
    columns = torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)])
    forward = 1 / math.sqrt(width)
    back = (_multiplicity(width) * forward)[:, None]
    return {
        "cosines": torch.cos(across) * forward,
        "sines": -torch.sin(across) * forward,
        "columns": columns,
        "rows": columns.T.contiguous(),
        "real_width": torch.cos(across).T * back,
        "imaginary_width": -torch.sin(across).T * back,
    }


def _dense_tables(height: int, width: int) -> dict[str, Tensor]:
    """One table per direction: (H * W, 2 * H * half) and back, by the separate tables' definition."""
    down = _angles(height, height)[:, None, :, None]
    across = _angles(width, half_width(width))[None, :, None, :]
    angle = (down + across).reshape(height * width, -1)
    scale = 1 / math.sqrt(height * width)
    analysis = torch.cat([torch.cos(angle), -torch.sin(angle)], dim=1) * scale
    counts = _multiplicity(width).repeat(2 * height)
    return {"analysis": analysis, "synthesis": (analysis * counts).T.contiguous()}
