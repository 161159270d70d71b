"""GANimation's generator in its plain form: moves action units (Pumarola et al. 2018, section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.blocks import NORM_EPSILON

AUS = 17  # AU01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26 45
WIDTH = 64
BLOCKS = 6


class GANimation(nn.Module):
    """Face (N, 3, 128, 128) and action units (N, 17) to colour, attention and the edited face.

    Shapes and ranges as `engines.face_specs.GANIMATION` says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *_normed(nn.Conv2d(3 + AUS, WIDTH, 7, padding=3)),
            *_normed(nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1)),
            *_normed(nn.Conv2d(2 * WIDTH, 4 * WIDTH, 4, stride=2, padding=1)),
            *[ResidualBlock(4 * WIDTH) for _ in range(BLOCKS)],
            *_normed(nn.ConvTranspose2d(4 * WIDTH, 2 * WIDTH, 4, stride=2, padding=1)),
            *_normed(nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1)),
        )
        self.color_top = nn.Sequential(nn.Conv2d(WIDTH, 3, 7, padding=3, bias=False), nn.Tanh())
        self.au_top = nn.Sequential(nn.Conv2d(WIDTH, 1, 7, padding=3, bias=False), nn.Sigmoid())

    def forward(self, image: Tensor, aus: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embed = self.embed(image, aus)
        color, attention = self.color_top(embed), self.au_top(embed)
        return color, attention, fused(image, color, attention)

    def embed(self, image: Tensor, aus: Tensor) -> Tensor:
        """The features (N, 64, 128, 128) that colour and attention are read from."""
        planes = aus[:, :, None, None].expand(-1, -1, *image.shape[2:])
        embed: Tensor = self.model(torch.cat([image, planes], dim=1))
        return embed


def fused(image: Tensor, color: Tensor, attention: Tensor) -> Tensor:
    """The edited face: what attention keeps of the image, and colour elsewhere (equation 1)."""
    return attention * image + (1 - attention) * color


def _normed(conv: nn.Module) -> list[nn.Module]:
    return [conv, InstanceNorm(), nn.ReLU()]


class InstanceNorm(nn.Module):
    """Zero mean, unit variance, for each sample and channel; nothing learned."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, eps=NORM_EPSILON)


class ResidualBlock(nn.Module):
    """Two convolutions with norms, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.conv_block = nn.Sequential(first, InstanceNorm(), nn.ReLU(), second, InstanceNorm())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv_block(x)
        return y
