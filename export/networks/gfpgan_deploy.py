"""GFPGAN in its deployable form.

Differences from the plain one:

- What inference never uses is gone: style MLP, intermediate pictures, noise.
- The linear layer that makes the latents and those that make styles of them are one product.
- A styled convolution scales its input and its output, as in `enet_deploy`.
- Halving is 2x2 averaging. From 64 pixels on, convolutions come before the doubling they follow
  (`DoubledConv`), a quarter of the work; 1x1 ones everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.enet import SLOPE, STYLE, HalvingBlock, double
from dubstream.export.networks.enet_deploy import FixedHalvingBlock, FixedToPicture, Scaled
from dubstream.export.networks.fixed_blocks import StyleProducts
from dubstream.export.networks.gfpgan import GFPGAN, LATENTS, START, GrowingBlock, StyleDecoder, conditioned
from dubstream.export.networks.rewrite import Rewriter, constant
from dubstream.export.networks.styled_blocks import WholeStyledConv, doubled_conv


class DeployableGFPGAN(nn.Module):
    """`GFPGAN`, ready for export; same input and output."""

    def __init__(self, plain: GFPGAN) -> None:
        super().__init__()
        rewrite = Rewriter({HalvingBlock: FixedHalvingBlock})
        self.first = rewrite(plain.conv_body_first)
        self.down = rewrite(plain.conv_body_down)
        self.last = rewrite(plain.final_conv)
        self.styles = folded_styles(plain)
        self.up = nn.ModuleList(
            FixedGrowingBlock(block, START << step, rewrite)
            for step, block in enumerate(_all(plain.conv_body_up))
        )
        self.scales = rewrite(plain.condition_scale)
        self.shifts = rewrite(plain.condition_shift)
        self.decoder = FixedStyleDecoder(plain.stylegan_decoder)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(image), SLOPE)
        features = []
        for down in _all(self.down):
            x = down(x)
            features.append(x)
        x = F.leaky_relu(self.last(x), SLOPE)
        styles = self.styles(x.flatten(1))
        conditions = []
        for up, scale, shift in zip(self.up, _all(self.scales), _all(self.shifts), strict=True):
            x = up(x + features.pop())
            conditions.append((scale(x), shift(x)))
        restored: Tensor = self.decoder(styles, conditions)
        return restored


def _all(modules: nn.Module) -> Iterator[Any]:
    return modules.children()


def _latent_layers(decoder: StyleDecoder) -> list[tuple[int, Any]]:
    """Every layer that takes a latent and which one, in the order they run."""
    layers: list[tuple[int, Any]] = [(0, decoder.style_conv1), (1, decoder.to_rgb1)]
    convs, to_pictures = list(decoder.style_convs), list(decoder.to_rgbs)
    for step, to_picture in enumerate(to_pictures):
        both = convs[2 * step : 2 * step + 2]
        layers += [(2 * step + 1 + place, layer) for place, layer in enumerate([*both, to_picture])]
    return layers


def folded_styles(plain: GFPGAN) -> StyleProducts:
    """The U-Net's code (N, 4096) straight to the styles of `_latent_layers`."""
    weights, biases = [], []
    latents = plain.final_linear.weight.double().view(LATENTS, STYLE, -1)
    offsets = plain.final_linear.bias.double().view(LATENTS, STYLE)
    for latent, layer in _latent_layers(plain.stylegan_decoder):
        modulation = layer.modulated_conv.modulation
        weight = modulation.weight.double()
        weights.append((weight @ latents[latent]).float())
        biases.append((weight @ offsets[latent] + modulation.bias.double()).float())
    return StyleProducts(weights, biases)


class FixedGrowingBlock(nn.Module):
    """`GrowingBlock` for pictures of `side` pixels; doubling and a 1x1 convolution change places freely."""

    def __init__(self, block: GrowingBlock, side: int, rewrite: Rewriter) -> None:
        super().__init__()
        self.conv1, self.skip = rewrite(block.conv1), rewrite(block.skip)
        self.conv2 = doubled_conv(block.conv2.weight, side, block.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.leaky_relu(self.conv1(x), SLOPE))
        return F.leaky_relu(y, SLOPE) + double(self.skip(x))


class FixedStyleDecoder(nn.Module):
    """`StyleDecoder`, from styles in the order of `_latent_layers`."""

    def __init__(self, plain: StyleDecoder) -> None:
        super().__init__()
        self.start = constant(plain.constant_input.weight)
        self.first = WholeStyledConv(plain.style_conv1)
        self.to_pictures = nn.ModuleList(
            FixedToPicture(layer) for layer in [plain.to_rgb1, *_all(plain.to_rgbs)]
        )
        self.convs = nn.ModuleList()
        for index, layer in enumerate(_all(plain.style_convs)):
            side = START << (index // 2)
            weight = layer.modulated_conv.weight[0]
            self.convs.append(WholeStyledConv(layer, doubled_conv(weight, side) if layer.enlarge else None))

    def forward(self, styles: list[Tensor], conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        first, *others = styles
        x: Scaled = self.first((self.start, torch.ones_like(first)), first)
        picture: Tensor = self.to_pictures[0](x, others[0])
        for step, (scale, shift) in enumerate(conditions):
            enlarging, sharpening, to_picture = others[3 * step + 1 : 3 * step + 4]
            x = _conditioned(self.convs[2 * step](x, enlarging), scale, shift)
            x = self.convs[2 * step + 1](x, sharpening)
            picture = self.to_pictures[step + 1](x, to_picture) + double(picture)
        return picture


def _conditioned(x: Scaled, scale: Tensor, shift: Tensor) -> Scaled:
    """`conditioned`; the factors of the half that changes are multiplied in."""
    picture, factor = x
    kept, changed = factor.chunk(2, dim=1)
    ones = torch.ones_like(kept)
    ready = conditioned(picture, scale * changed[:, :, None, None], shift)
    return ready, torch.cat([kept, ones], dim=1)


def deployable(plain: GFPGAN) -> nn.Module:
    """The deployable form of a loaded GFPGAN."""
    with torch.no_grad():
        return DeployableGFPGAN(plain).eval()
