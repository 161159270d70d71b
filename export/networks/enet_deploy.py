"""E-Net in its deployable form.

Differences from the plain one:

- A styled convolution scales its input and its output instead of building weights per sample.
- Halving is 2x2 averaging.
- Bilinear doubling and the convolution after it change places (`EnlargingConv`): a quarter of the work.
- Only pixels that the final crop keeps are computed. Each 3x3 convolution runs without padding, so the
  picture loses a pixel per side; what the plain form computes from zeros outside the picture is
  always cropped. Rows and columns of the plain form's pictures that are held after each step:

      lips and margin      0..99  of 100      doubled, step 2      6..394 of 400
      doubled, step 0      1..198 of 200      step 3               7..393 of 400
      step 1               2..197 of 200      output               8..391 of 400

- Noise is none, or constant pictures made from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.enet import (
    DEMODULATION_EPSILON,
    FACTOR,
    GAIN,
    MARGIN,
    REFERENCE_SIZE,
    SLOPE,
    ENet,
    HalvingBlock,
    ModulatedConv,
    StyledConv,
    ToPicture,
    double,
    fixed_noise,
)
from dubstream.export.networks.fixed_blocks import StyleProducts, interleave
from dubstream.export.networks.rewrite import Rewriter, constant, fixed_conv

Scaled = tuple[Tensor, Tensor]
"""A picture (N, C, H, W) and factors (N, C) still to be multiplied in; later steps take them along."""

HELD = ((1, 198), (2, 196), (6, 389), (7, 387))
"""First row held after each styled convolution and how many, from the table above."""


class DeployableENet(nn.Module):
    """`ENet`, ready for export; same inputs and output."""

    def __init__(self, plain: ENet, noise_seed: int | None) -> None:
        super().__init__()
        self.identity = FixedIdentity(plain)
        convs = [layer.modulated_conv for layer in _modules(plain.style_convs) + _modules(plain.to_rgbs)]
        self.styles = StyleProducts(
            [conv.modulation.weight for conv in convs], [conv.modulation.bias for conv in convs]
        )
        noises: Sequence[Tensor | None] = [None] * len(HELD)
        if noise_seed is not None:
            noises = [_held(noise, *held) for noise, held in zip(fixed_noise(noise_seed), HELD, strict=True)]
        self.steps = nn.ModuleList(
            FixedStyledConv(step, noise)
            for step, noise in zip(_modules(plain.style_convs), noises, strict=True)
        )
        self.to_pictures = nn.ModuleList(FixedToPicture(layer) for layer in _modules(plain.to_rgbs))

    def forward(self, lips: Tensor, reference: Tensor) -> Tensor:
        styles = self.styles(self.identity(reference))
        lips = F.pad(lips, [MARGIN] * 4, mode="reflect")
        x: Scaled = (lips, torch.ones_like(styles[0]))
        for step in (0, 1):
            x = self.steps[step](x, styles[step])
        picture = self.to_pictures[0](x, styles[4]) + _held(double(lips), *HELD[1])
        for step in (2, 3):
            x = self.steps[step](x, styles[step])
        first, size = MARGIN * FACTOR, lips.shape[-1] * FACTOR - 2 * MARGIN * FACTOR
        sharp = _held(self.to_pictures[1](x, styles[5]), first - HELD[3][0], size)
        return sharp + _held(double(picture), first - 2 * HELD[1][0], size)


def _modules(modules: nn.ModuleList) -> list[Any]:
    return list(modules)


def _held(x: Tensor, first: int, size: int) -> Tensor:
    return x[:, :, first : first + size, first : first + size]


class FixedIdentity(nn.Module):
    """Reference to identity code."""

    def __init__(self, plain: ENet) -> None:
        super().__init__()
        rewrite = Rewriter({HalvingBlock: FixedHalvingBlock})
        self.first = rewrite(plain.conv_body_first)
        self.blocks = nn.Sequential(*[rewrite(block) for block in plain.conv_body_down])
        self.last = rewrite(plain.final_conv)
        self.code = rewrite(plain.final_linear)

    def forward(self, reference: Tensor) -> Tensor:
        size = (REFERENCE_SIZE, REFERENCE_SIZE)
        x = F.interpolate(reference, size=size, mode="bilinear", align_corners=False)
        x = self.blocks(F.leaky_relu(self.first(x), SLOPE))
        code: Tensor = self.code(F.leaky_relu(self.last(x), SLOPE).flatten(1))
        return code


class FixedHalvingBlock(nn.Module):
    """`HalvingBlock`; at exactly half the size, bilinear reduction is the mean of 2x2 squares."""

    def __init__(self, block: HalvingBlock, rewrite: Rewriter) -> None:
        super().__init__()
        self.conv1, self.conv2, self.skip = map(rewrite, (block.conv1, block.conv2, block.skip))

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.leaky_relu(self.conv1(x), SLOPE), 2)
        y = F.leaky_relu(self.conv2(y), SLOPE)
        z: Tensor = y + self.skip(F.avg_pool2d(x, 2))
        return z


class FixedStyledConv(nn.Module):
    """`StyledConv` as conv(x * s, W) * d, with d = 1 / sqrt(s² @ sum over the kernel of W²).

    LeakyReLU lets positive factors pass, so d is not multiplied in here: the bias is divided by it, and
    the next step's own scaling takes it along.
    """

    def __init__(self, layer: StyledConv, noise: Tensor | None) -> None:
        super().__init__()
        weight = layer.modulated_conv.weight[0]
        self.modulation = Modulation(weight)
        self.bias = constant(layer.bias.flatten())
        self.noise = None if noise is None else constant(noise * layer.weight)
        wide = weight.shape[1] > 4
        self.conv = EnlargingConv(weight) if layer.enlarge and wide else fixed_conv(weight)
        self.double_first = layer.enlarge and not wide

    def forward(self, x: Scaled, style: Tensor) -> Scaled:
        picture, factor = x
        picture = picture * (factor * style)[:, :, None, None]
        inner = self.conv(double(picture) if self.double_first else picture)
        growth, undo = self.modulation(style)
        offset = (self.bias * growth)[:, :, None, None]
        if self.noise is not None:
            offset = offset + self.noise * growth[:, :, None, None]
        return F.leaky_relu(inner + offset, SLOPE), undo


class Modulation(nn.Module):
    """By how much a style enlarges each output channel of its convolution, and the inverse of that.

    Style (N, in) to two factors (N, out). Float32 inside, whatever the style is: it sums squares, and
    float16 rounds the epsilon to zero.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.energy = constant(weight.double().square().sum(dim=(2, 3)).T.float())

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        energy = style.float().square() @ self.energy
        growth = torch.sqrt(energy + DEMODULATION_EPSILON) / GAIN
        return growth.to(style.dtype), (1 / growth).to(style.dtype)


class EnlargingConv(nn.Module):
    """Bilinear doubling, then a 3x3 convolution without padding, with the two in swapped order.

    Bilinear doubling is: put zeros between pixels, then smooth with (1, 3, 3, 1) / 4 along both axes.
    Smoothing and convolution commute. Convolving first, over mostly zeros, takes four convolutions of
    the small picture with 1, 2, 2 and 4 taps, 9 multiplications in place of 36; the smoothing
    afterwards works channel by channel. Edges are not held: the result is right from 4 pixels of the
    doubled picture inwards.

    For input rows a..b, rows 2a + 2 .. 2b of the doubled picture come out (the last one is not right).
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows = [weight[:, :, 1:2], weight[:, :, ::2]]
        phases = [taps for row in rows for taps in (row[..., 1:2], row[..., ::2])]
        self.weights = nn.ParameterList([constant(phase) for phase in phases])
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        self.register_buffer(
            "smoothing", torch.outer(taps, taps).repeat(weight.shape[0], 1, 1, 1), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        phases = []
        for index, weight in enumerate(self.weights):
            row, column = divmod(index, 2)
            phases.append(F.conv2d(F.pad(x, (0, column, 0, row)), weight))
        smoothing = self.get_buffer("smoothing")
        return F.conv2d(interleave(phases), smoothing, groups=smoothing.shape[0])


class FixedToPicture(nn.Module):
    """`ToPicture` without the addition: three weighted sums over the channels of each pixel."""

    def __init__(self, layer: ToPicture) -> None:
        super().__init__()
        conv: ModulatedConv = layer.modulated_conv
        self.weight = constant(conv.weight.flatten(2))
        self.bias = constant(layer.bias)

    def forward(self, x: Scaled, style: Tensor) -> Tensor:
        picture, factor = x
        weight = self.weight * (factor * style)[:, None, :]
        summed = torch.matmul(weight, picture.flatten(2))
        return summed.reshape(-1, 3, *picture.shape[2:]) + self.bias


def deployable(plain: ENet, *, noise_seed: int | None = None) -> nn.Module:
    """The deployable form of a loaded E-Net.

    Args:
        noise_seed: None for no style noise (its expected value); an integer for noise that is part of
            the network: the same at every call and for every sample.
    """
    with torch.no_grad():
        return DeployableENet(plain, noise_seed).eval()
