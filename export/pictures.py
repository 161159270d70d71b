"""What stands around a network in a half-precision artifact: uint8 pictures in, uint8 pictures out.

Normalisation, the masked lower half, reduction, clamp, rounding and colour order are part of the graph, so
no pixel is converted outside. All pictures are (N, H, W, 3), BGR. TensorRT takes uint8 at a graph's edge
only: the first operation on a picture is the cast from uint8, the last one the cast to it.

A wrapper has two ends. `levels` is the network's result as real numbers, which the original in float32
is compared by; `forward`, what is exported, rounds it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WHITE = 255.0
MIDDLE = WHITE / 2
STEP = 4  # face pixels per lip pixel, on each axis
LIPS_DTYPE = torch.float16  # between L-Net and E-Net, in every half precision: numpy knows no bfloat16


class PictureNetwork(nn.Module):
    """A network with pictures at its edges; takes the inputs of the half-precision spec.

    Args:
        core: the network, plain or deployable, its tensors in the order of its float32 spec.
        dtype: element type of its pictures inside.
    """

    def __init__(self, core: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.core = core
        self.dtype = dtype

    levels: Callable[..., Tensor | tuple[Tensor, ...]]
    """Inputs to the output or outputs before rounding, (N, channels, H, W) where it is a picture."""


class DNetPictures(PictureNetwork):
    """uint8 (N, 256, 256, 3) and float32 (N, 73, 26) to uint8 (N, 256, 256, 3); flow and warp stay inside."""

    def levels(self, image: Tensor, coefficients: Tensor) -> Tensor:
        signed = (planes(image, self.dtype) - MIDDLE) / MIDDLE  # two roundings fewer than x / 255 * 2 - 1
        edited: Tensor = self.core(swapped(signed), coefficients)[0]
        return clamped(swapped(edited) * MIDDLE + MIDDLE)

    def forward(self, image: Tensor, coefficients: Tensor) -> Tensor:
        return shown(self.levels(image, coefficients))


class LNetPictures(PictureNetwork):
    """float32 mel and two uint8 (N, 384, 384, 3) to float16 lips (N, 3, 96, 96).

    The lower half of the face is never read: whether the caller blackened it makes no difference.
    """

    def levels(self, mel: Tensor, face: Tensor, reference: Tensor) -> Tensor:
        masked = upper_half(reduced(planes(face, self.dtype)))
        faces = torch.cat([masked, reduced(planes(reference, self.dtype))], dim=1) / WHITE
        lips: Tensor = self.core(mel.to(self.dtype), faces)
        return lips

    def forward(self, mel: Tensor, face: Tensor, reference: Tensor) -> Tensor:
        return self.levels(mel, face, reference).to(LIPS_DTYPE)


class ENetPictures(PictureNetwork):
    """float16 lips (N, 3, 96, 96) and uint8 (N, 384, 384, 3) to uint8 (N, 384, 384, 3)."""

    def levels(self, lips: Tensor, reference: Tensor) -> Tensor:
        enhanced: Tensor = self.core(lips.to(self.dtype), planes(reference, self.dtype) / WHITE)
        return clamped(enhanced * WHITE)

    def forward(self, lips: Tensor, reference: Tensor) -> Tensor:
        return shown(self.levels(lips, reference))


class ReconPictures(PictureNetwork):
    """uint8 (N, 224, 224, 3) to float32 coefficients (N, 257)."""

    def levels(self, image: Tensor) -> Tensor:
        coeffs: Tensor = self.core(swapped(planes(image, self.dtype) / WHITE))
        return coeffs

    def forward(self, image: Tensor) -> Tensor:
        return self.levels(image).float()


def planes(picture: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (N, H, W, 3) to `dtype` (N, 3, H, W) in 0..255, BGR."""
    return picture.to(dtype).permute(0, 3, 1, 2)


def clamped(levels: Tensor) -> Tensor:
    """Levels (N, 3, H, W) within 0..255."""
    return levels.clamp(0.0, WHITE)


def shown(levels: Tensor) -> Tensor:
    """Clamped levels (N, 3, H, W) to uint8 (N, H, W, 3): the nearest level, halves to even."""
    return torch.round(levels).permute(0, 2, 3, 1).to(torch.uint8)


def swapped(pictures: Tensor) -> Tensor:
    """BGR planes (N, 3, H, W) to RGB planes, or back."""
    return torch.flip(pictures, dims=(1,))


def reduced(pictures: Tensor) -> Tensor:
    """(N, C, 4h, 4w) to (N, C, h, w): the mean of the 2x2 centre of every 4x4 square.

    This is bilinear reduction without antialias: output pixel i lies halfway between samples 4i + 1 and
    4i + 2. Of whole levels the mean has quarters, which float16 still holds exactly.
    """
    return F.avg_pool2d(pictures[:, :, 1:-1, 1:-1], 2, stride=STEP)


def upper_half(pictures: Tensor) -> Tensor:
    """The picture with its lower half zero."""
    rows = pictures.shape[2] // 2
    return F.pad(pictures[:, :, :rows], (0, 0, 0, rows))
