"""GFPGAN v1.3 "clean" in its plain form: restores a degraded face (Wang et al. 2021, sections 3.2 to 3.4).

A U-Net reads the degraded face; its code drives a StyleGAN2 decoder, whose features it scales and shifts at
every resolution.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.enet import (
    SLOPE,
    STYLE,
    HalvingBlock,
    ResizingBlock,
    StyledConv,
    ToPicture,
    double,
)
from dubstream.export.seeded import AUXILIARY

STEPS = 7  # from 512 down to 4 and back
ENCODER = (32, 64, 128, 256, 256, 256, 256, 256)  # channels at 512, 256, ... 4
DECODER = (512, 512, 512, 512, 512, 256, 128, 64)  # channels at 4, 8, ... 512
START = 4  # height and width of the coarsest features
LATENTS = 2 * STEPS + 2  # style vectors of 512, not all of them for one layer alone
MLP_LAYERS = 8

SEED_RULE = replace(AUXILIARY, zero_buffers=(r"\.noises\.noise\d+$",))
"""Stored noises are zero: nothing reads them."""


class GFPGAN(nn.Module):
    """Face (N, 3, 512, 512) to restored face, shapes and ranges as `engines.face_specs.GFPGAN` says.

    The original adds fresh noise to every styled convolution. Here is none, its expected value. Parts that
    the public file holds and inference never uses are kept for their keys.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_body_first = nn.Conv2d(3, ENCODER[0], 1)
        pairs = list(itertools.pairwise(ENCODER))
        self.conv_body_down = nn.ModuleList(HalvingBlock(*pair) for pair in pairs)
        self.final_conv = nn.Conv2d(ENCODER[-1], ENCODER[-1], 3, padding=1)
        self.final_linear = nn.Linear(ENCODER[-1] * START * START, LATENTS * STYLE)
        self.conv_body_up = nn.ModuleList(GrowingBlock(coarse, fine) for fine, coarse in reversed(pairs))
        widths = ENCODER[-2::-1]
        self.toRGB = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in widths)  # training only
        self.stylegan_decoder = StyleDecoder()
        self.condition_scale = nn.ModuleList(_condition(width) for width in widths)
        self.condition_shift = nn.ModuleList(_condition(width) for width in widths)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv_body_first(image), SLOPE)
        features = []
        for down in self.conv_body_down:
            x = down(x)
            features.append(x)
        x = F.leaky_relu(self.final_conv(x), SLOPE)
        latents = self.final_linear(x.flatten(1)).view(-1, LATENTS, STYLE)
        conditions = []
        for step, up in enumerate(self.conv_body_up):
            x = up(x + features.pop())
            conditions.append((self.condition_scale[step](x), self.condition_shift[step](x)))
        restored: Tensor = self.stylegan_decoder(latents, conditions)
        return restored


class GrowingBlock(ResizingBlock):
    """`HalvingBlock` with bilinear doubling in place of halving."""

    def resized(self, x: Tensor) -> Tensor:
        return double(x)


def _condition(channels: int) -> nn.Sequential:
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.LeakyReLU(SLOPE), second)


class StyleDecoder(nn.Module):
    """StyleGAN2's decoder (Karras et al. 2020); the second half of the channels is conditioned."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Identity()]
        for _ in range(MLP_LAYERS):
            layers += [nn.Linear(STYLE, STYLE), nn.LeakyReLU(SLOPE)]
        self.style_mlp = nn.Sequential(*layers)  # for sampling without a face; not used
        self.constant_input = StartPicture(DECODER[0])
        self.style_conv1 = StyledConv(DECODER[0], DECODER[0])
        self.to_rgb1 = ToPicture(DECODER[0])
        self.style_convs = nn.ModuleList()
        for coarse, fine in itertools.pairwise(DECODER):
            self.style_convs.extend([StyledConv(coarse, fine, enlarge=True), StyledConv(fine, fine)])
        self.to_rgbs = nn.ModuleList(ToPicture(width) for width in DECODER[1:])
        self.noises = StoredNoises()

    def forward(self, latents: Tensor, conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Latents (N, 16, 512) and seven pairs of scales and shifts to the picture."""
        x = self.constant_input.weight.expand(len(latents), -1, -1, -1)
        x = self.style_conv1(x, latents[:, 0], None)
        picture: Tensor = self.to_rgb1.modulated_conv(x, latents[:, 1]) + self.to_rgb1.bias
        for step, (scale, shift) in enumerate(conditions):
            x = self.style_convs[2 * step](x, latents[:, 2 * step + 1], None)
            x = conditioned(x, scale, shift)
            x = self.style_convs[2 * step + 1](x, latents[:, 2 * step + 2], None)
            picture = self.to_rgbs[step](x, latents[:, 2 * step + 3], picture)
        return picture


def conditioned(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scales and shifts the second half of the channels, pixel by pixel."""
    kept, changed = x.chunk(2, dim=1)
    return torch.cat([kept, changed * scale + shift], dim=1)


class StartPicture(nn.Module):
    """The learned (1, C, 4, 4) features the decoder starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, START, START))


class StoredNoises(nn.Module):
    """Noise pictures of the public file, one per styled convolution, which nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        for index in range(2 * STEPS + 1):
            side = START << ((index + 1) // 2)
            self.register_buffer(f"noise{index}", torch.zeros(1, 1, side, side))
