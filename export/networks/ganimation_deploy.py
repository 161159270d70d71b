"""GANimation in its deployable form.

Differences from the plain one: biases that the norm after them removes are gone; the action units, constant
planes to the first convolution, are one product with what its kernel sums up to (`UnitPlanes`); transposed
convolutions are four of the small picture; colour and attention are one convolution (`QuadConv`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubstream.export.networks.fixed_blocks import DoublingConv, QuadConv
from dubstream.export.networks.ganimation import GANimation, ResidualBlock, fused
from dubstream.export.networks.rewrite import Rewriter, constant, fixed_conv, twin

PICTURE = 3
SIDE = 128


class DeployableGANimation(nn.Module):
    """`GANimation`, ready for export; same inputs and outputs."""

    def __init__(self, plain: GANimation) -> None:
        super().__init__()
        first, *others = plain.model.children()
        assert isinstance(first, nn.Conv2d)
        rewrite = Rewriter(
            {nn.Conv2d: _without_bias, nn.ConvTranspose2d: TransposedPhases, ResidualBlock: _twin}
        )
        self.picture = fixed_conv(first.weight[:, :PICTURE], padding=first.weight.shape[-1] // 2)
        self.units = UnitPlanes(first.weight[:, PICTURE:], SIDE)
        self.body = nn.Sequential(*[rewrite(layer) for layer in others])
        color, attention = plain.color_top[0], plain.au_top[0]
        weight = torch.cat([color.get_parameter("weight"), attention.get_parameter("weight")])
        self.tops = QuadConv(fixed_conv(weight, weight.new_zeros(len(weight)), padding=weight.shape[-1] // 2))

    def forward(self, image: Tensor, aus: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tops = self.tops(self.body(self.picture(image) + self.units(aus)))
        color, attention = torch.tanh(tops[:, :PICTURE]), torch.sigmoid(tops[:, PICTURE:])
        return color, attention, fused(image, color, attention)


def _twin(block: nn.Module, rewrite: Rewriter) -> nn.Module:
    return twin(block, {"conv_block": rewrite(block.get_submodule("conv_block"))})


def _without_bias(conv: nn.Conv2d, _: Rewriter) -> nn.Module:
    """Rule for a convolution in front of an instance norm."""
    stride = (conv.stride[0], conv.stride[1])
    return fixed_conv(conv.weight, stride=stride, padding=int(conv.padding[0]))


class UnitPlanes(nn.Module):
    """What a padded convolution makes of constant planes: (N, 17) to (N, C, side, side).

    Inside, that is the same everywhere; near an edge, taps that fall outside are missing. So there are 7x7
    kinds of pixels for a 7x7 kernel, of which one product makes the values and two more spread them.

    Args:
        weight: (C, planes, k, k) of the convolution.
        side: height and width of the planes.
    """

    def __init__(self, weight: Tensor, side: int) -> None:
        super().__init__()
        size = weight.shape[-1]
        reach = size // 2
        taps = torch.arange(size)
        # Kind r < reach is r pixels from the first edge, kind reach inside, kind size - 1 at the last edge.
        seen = torch.stack([(taps >= reach - kind) & (taps < size + reach - kind) for kind in range(size)])
        sums = torch.einsum("cuyx,ry,sx->ucrs", weight.double(), seen.double(), seen.double())
        self.shape = (weight.shape[0], size, size)
        self.sums = constant(sums.flatten(1).float())
        kind = torch.arange(side).clamp(max=reach) + (torch.arange(side) - (side - reach - 1)).clamp(min=0)
        self.register_buffer("spread", nn.functional.one_hot(kind, size).float(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        spread = self.get_buffer("spread")
        kinds = torch.matmul(values, self.sums).view(-1, *self.shape)
        return torch.matmul(torch.matmul(spread, kinds), spread.T)


class TransposedPhases(DoublingConv):
    """A transposed 4x4 convolution of stride two, without bias, as four 2x2 convolutions of its input.

    Even rows of the result meet the last and the second row of the kernel, odd ones the third and first.
    """

    def __init__(self, conv: nn.ConvTranspose2d, _: Rewriter) -> None:
        nn.Module.__init__(self)
        weight = conv.weight.transpose(0, 1)
        rows = [weight[:, :, [3, 1]], weight[:, :, [2, 0]]]
        phases = [phase for row in rows for phase in (row[..., [3, 1]], row[..., [2, 0]])]
        self.weights = nn.ParameterList([constant(phase) for phase in phases])
        self.register_parameter("bias", None)


def deployable(plain: GANimation) -> nn.Module:
    """The deployable form of a loaded GANimation."""
    with torch.no_grad():
        return DeployableGANimation(plain).eval()
