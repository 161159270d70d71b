"""Deployable forms of the StyleGAN2 blocks that GFPGAN and GPEN share; E-Net's are in `enet_deploy`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.enet import StyledConv, double
from dubstream.export.networks.enet_deploy import FixedStyledConv
from dubstream.export.networks.fixed_blocks import interleave
from dubstream.export.networks.rewrite import constant, fixed_conv

SWAP_FROM = 64
"""Height from which a picture is doubled after its convolution: below, border strips cost more."""


class WholeStyledConv(FixedStyledConv):
    """`FixedStyledConv` of a picture of which nothing is cropped afterwards.

    Args:
        layer: the plain convolution; its `enlarge` says whether the bilinear doubling belongs to it.
        conv: what replaces the convolution, doubling included; None for a padded one.
    """

    def __init__(self, layer: StyledConv, conv: nn.Module | None = None) -> None:
        super().__init__(layer, None)
        self.double_first = layer.enlarge and conv is None
        padded = fixed_conv(layer.modulated_conv.weight[0], padding=1) if conv is None else conv
        self.add_module("conv", padded)  # in place of one that loses a pixel a side


class SpreadConv(nn.Module):
    """Zeros between pixels, a 3x3 convolution, then smoothing with (1, 3, 3, 1) / 4 along both axes.

    (N, C, H, W) to (N, C', 2H, 2W), with zeros outside everywhere. The convolution, over mostly zeros,
    is four convolutions of the small picture with 4, 2, 2 and 1 taps: a quarter of the work of one at the
    doubled size. Taken along both axes, a smoothed picture without the convolution is bilinear
    doubling, but for its edges; `DoubledConv` holds them.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows = [weight[:, :, ::2], weight[:, :, 1:2]]  # what meets odd rows of the doubled picture, even ones
        phases = [taps for row in rows for taps in (row[..., ::2], row[..., 1:2])]
        self.weights = nn.ParameterList([constant(phase) for phase in phases])
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
        smoothing = torch.outer(taps, taps).repeat(weight.shape[0], 1, 1, 1)
        self.register_buffer("smoothing", smoothing, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        phases = []  # rows -1, 1, ... 2H - 1 and 0, 2, ... 2H of the convolved picture; columns likewise
        for index, weight in enumerate(self.weights):
            row, column = divmod(index, 2)
            phases.append(F.conv2d(F.pad(x, (1 - column, 1, 1 - row, 1)), weight))
        smoothing = self.get_buffer("smoothing")
        return F.conv2d(F.pad(interleave(phases), (1, 0, 1, 0)), smoothing, groups=smoothing.shape[0])


class DoubledConv(nn.Module):
    """Bilinear doubling, edges held, then a 3x3 convolution over zeros outside; with the two swapped.

    `SpreadConv` is right but for the two outermost rows and columns, where the doubled picture lacks a
    quarter of the edge pixel, and its surroundings hold one they should not. With W0, W1, W2 the rows of
    the kernel and x the first row of the picture, doubled along its width, what is missing is

        row 0:  (W1 - W0) * x / 4          row 1:  W0 * x / 4

    and so at the other edges. These strips, times ones at their rows and columns, are one product.

    Args:
        weight: (C', C, 3, 3).
        side: height and width of the picture before doubling.
    """

    def __init__(self, weight: Tensor, side: int) -> None:
        super().__init__()
        self.spread = SpreadConv(weight)
        first, middle, last = (weight.double() / 4).unbind(2)
        top, bottom = _strip(first, middle), _strip(last, middle)[::-1]
        self.rows = nn.ParameterList(
            [constant(torch.cat(edge).float()[:, :, None]) for edge in (top, bottom)]
        )
        first, middle, last = (weight.double() / 4).unbind(3)
        left, right = _strip(first, middle), _strip(last, middle)[::-1]
        self.columns = nn.ParameterList(
            [constant(torch.cat(edge).float()[..., None]) for edge in (left, right)]
        )
        places = torch.zeros(2 * side, 4)
        places[[0, 1, -2, -1], [0, 1, 2, 3]] = 1.0
        self.register_buffer("places", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.spread(x)
        places = self.get_buffer("places").expand(*y.shape[:2], -1, -1)
        left = torch.cat([places, self._columns(x)], dim=3)
        right = torch.cat([self._rows(x), places.transpose(2, 3)], dim=2)
        z: Tensor = y + torch.matmul(left, right)
        return z

    def _rows(self, x: Tensor) -> Tensor:
        """What is missing in the rows 0, 1, -2, -1: (N, C', 4, 2W)."""
        edges: list[Tensor] = []
        for edge, weight in zip((x[:, :, :1], x[:, :, -1:]), self.rows, strict=True):
            held = F.interpolate(edge, scale_factor=(1.0, 2.0), mode="bilinear", align_corners=False)
            edges += F.conv2d(held, weight, padding=(0, 1)).chunk(2, dim=1)
        return torch.cat(edges, dim=2)

    def _columns(self, x: Tensor) -> Tensor:
        """What is missing in the columns 0, 1, -2, -1, except in corners: (N, C', 2H, 4)."""
        edges: list[Tensor] = []
        for edge, weight in zip((x[..., :1], x[..., -1:]), self.columns, strict=True):
            padded = F.pad(edge, (0, 0, 1, 1))
            faded = F.interpolate(padded, scale_factor=(2.0, 1.0), mode="bilinear", align_corners=False)
            edges += F.conv2d(faded[:, :, 1:-1], weight).chunk(2, dim=1)
        return torch.cat(edges, dim=3)


def _strip(outer: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels of the outermost row (or column) and of the one next to it."""
    return middle - outer, outer


def doubled_conv(weight: Tensor, side: int, bias: Tensor | None = None) -> nn.Module:
    """Bilinear doubling of pictures of `side` pixels and a padded 3x3 convolution, the cheaper way."""
    if side < SWAP_FROM:
        return nn.Sequential(Double(), fixed_conv(weight, bias, padding=1))
    swapped = DoubledConv(weight, side)
    return swapped if bias is None else nn.Sequential(swapped, Bias(bias))


class Double(nn.Module):
    """Twice the height and width, bilinear, edges held."""

    def forward(self, x: Tensor) -> Tensor:
        return double(x)


class Bias(nn.Module):
    """Adds one number to each channel."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = constant(bias[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias
