"""Deployable forms of the blocks that several networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.blocks import NORM_EPSILON, ConvStage, PictureNorm, SpectralConv2d
from dubstream.export.networks.rewrite import Rewriter, constant, fixed_conv, twin


class FixedPictureNorm(nn.Module):
    """`PictureNorm` by statistics per channel first: the reduction then uses all cores at batch 1.

    Statistics are float32 whatever the input is, and two-pass: the mean, then squared differences.
    """

    def __init__(self, norm: PictureNorm) -> None:
        super().__init__()
        self.weight = constant(norm.weight[None])
        self.bias = constant(norm.bias[None])

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        centred = wide - _mean(wide)
        scale = self.weight * torch.rsqrt(_mean(centred * centred) + NORM_EPSILON)
        return (centred * scale + self.bias).to(x.dtype)


def _mean(x: Tensor) -> Tensor:
    """Mean of each sample, (N, C, H, W) to (N, 1, 1, 1), channel by channel first."""
    return x.mean(dim=(2, 3)).mean(dim=1)[:, None, None, None]


def fixed_picture_norm(norm: PictureNorm, _: Rewriter) -> FixedPictureNorm:
    """Rule for `PictureNorm`."""
    return FixedPictureNorm(norm)


class DoublingConv(nn.Module):
    """Doubling by repetition and a 3x3 convolution, as four 2x2 convolutions of the small picture.

    The 3x3 window of an output pixel covers only 2x2 different source pixels; which ones depends on
    whether its row and column are even or odd. Weights that meet the same source pixel are added up
    beforehand: 4 of 9 multiplications remain.

    Args:
        conv: a 3x3 convolution with zero padding of one.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        rows = [_paired(conv.weight.double(), 2, odd) for odd in (False, True)]
        phases = [_paired(row, 3, odd) for row in rows for odd in (False, True)]
        self.weights = nn.ParameterList([constant(phase.float()) for phase in phases])
        assert conv.bias is not None
        self.bias = constant(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        phases = []
        for index, weight in enumerate(self.weights):
            row, column = divmod(index, 2)
            padded = F.pad(x, (1 - column, column, 1 - row, row))
            phases.append(F.conv2d(padded, weight, self.bias))
        return interleave(phases)


def _paired(weight: Tensor, axis: int, odd: bool) -> Tensor:
    """Three taps on the doubled picture to two on its source."""
    first, second, third = weight.unbind(axis)
    return torch.stack([first + second, third] if odd else [first, second + third], axis)


def interleave(phases: list[Tensor]) -> Tensor:
    """Four pictures (even rows: even, odd columns; then odd rows) to one of twice the size."""
    even, odd = (torch.stack(phases[index : index + 2], dim=-1).flatten(3) for index in (0, 2))
    return torch.stack([even, odd], dim=3).flatten(2, 3)


class QuadConv(nn.Module):
    """A convolution with very few output channels, four pixels at a time.

    Backends compute 8 to 32 output channels at once, so 2 or 3 of them waste most of the work. Here a
    square of 2x2 output pixels is four times as many channels of a convolution with stride 2, whose
    kernel is larger by one row and column and zero where a pixel's own window does not reach.

    Args:
        conv: a convolution of odd kernel size that keeps the size. Pictures need even sizes.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        channels_out, channels_in, kernel, _ = conv.weight.shape
        weight = conv.weight.new_zeros(channels_out, 2, 2, channels_in, kernel + 1, kernel + 1)
        for row in (0, 1):
            for column in (0, 1):
                window = weight[:, row, column, :, row : row + kernel, column : column + kernel]
                window.copy_(conv.weight.detach())
        assert conv.bias is not None
        bias = conv.bias.detach().repeat_interleave(4)
        self.conv = fixed_conv(weight.flatten(0, 2), bias, stride=(2, 2), padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


def fixed_same_conv(conv: nn.Conv2d, _: Rewriter) -> nn.Module:
    """Rule for `nn.Conv2d`: itself, or a `QuadConv` for the large kernels in front of an output."""
    if conv.out_channels <= 4 and conv.kernel_size[0] == 7 and conv.stride[0] == 1:
        return QuadConv(conv)
    return twin(conv, {})


def fixed_spectral_conv(conv: SpectralConv2d, rewrite: Rewriter) -> nn.Module:
    """Rule for `SpectralConv2d`: the division by the spectral norm, done once."""
    weight = conv.effective_weight()
    return rewrite(fixed_conv(weight, conv.bias, padding=weight.shape[-1] // 2))


def fixed_stage(stage: ConvStage, rewrite: Rewriter) -> ConvStage:
    """Rule for `ConvStage`: doubling becomes part of the convolution."""
    conv, *others = (rewrite(layer) for layer in stage.model)
    if stage.enlarge:
        assert isinstance(conv, nn.Conv2d)
        conv = DoublingConv(conv)
    fixed = twin(stage, {"model": nn.Sequential(conv, *others)})
    fixed.enlarge = False
    return fixed


class StyleProducts(nn.Module):
    """Vector (N, F) to the style of every modulated convolution: one matrix product.

    Args:
        weights, biases: one (C, F) and one (C,) for each style.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.sizes = [len(bias) for bias in biases]
        self.weight = constant(torch.cat(list(weights)))
        self.bias = constant(torch.cat(list(biases)))

    def forward(self, code: Tensor) -> list[Tensor]:
        styles = torch.split(F.linear(code, self.weight, self.bias), self.sizes, dim=1)
        return list(styles)
