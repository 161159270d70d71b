"""GPEN in its deployable form.

Differences from the plain one: equalised weights and the gain of activations are multiplied in; a styled
convolution scales its input and its output, as in `enet_deploy`; the transposed convolution and blur are a
`SpreadConv`; pictures are doubled bilinearly; all styles come from one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.engines.errors import CheckpointError
from dubstream.export.networks import enet
from dubstream.export.networks.enet_deploy import FixedToPicture, Scaled
from dubstream.export.networks.fixed_blocks import StyleProducts
from dubstream.export.networks.gpen import (
    GAIN,
    GPEN,
    SLOPE,
    STEPS,
    Activation,
    Blur,
    EqualConv,
    EqualLinear,
    Generator,
    StyledConv,
    ToPicture,
    UnitScale,
    blur_kernel,
)
from dubstream.export.networks.rewrite import constant, fixed_conv
from dubstream.export.networks.styled_blocks import SpreadConv, WholeStyledConv


class DeployableGPEN(nn.Module):
    """`GPEN`, ready for export; same input and output.

    `CheckpointError`: a blur that is not outer([1, 3, 3, 1]).
    """

    def __init__(self, plain: GPEN) -> None:
        super().__init__()
        for name, blur in plain.named_modules():
            if isinstance(blur, Blur):
                _check_blur(name, blur)
        levels = [plain.get_submodule(f"ecd{index}.0") for index in range(STEPS + 1)]
        self.levels = nn.ModuleList(_fixed_level(*level.children()) for level in levels)
        self.to_code = _fixed_linear(plain.final_linear[0])
        self.generator = FixedGenerator(plain.generator)

    def forward(self, image: Tensor) -> Tensor:
        features, x = [], image
        for level in self.levels:
            x = F.leaky_relu(level(x), SLOPE)
            features.append(x)
        code = F.leaky_relu(self.to_code(x.flatten(1)), SLOPE)
        picture: Tensor = self.generator(code, features[::-1])
        return picture


def _check_blur(name: str, blur: Blur) -> None:
    want = blur_kernel(float(blur.kernel.sum()))
    if not torch.allclose(blur.kernel, want, rtol=1e-5):
        raise CheckpointError(
            f"'{name}.kernel' of GPEN is {blur.kernel.tolist()}, expected a multiple of outer([1, 3, 3, 1])",
            hint="use the public file GPEN-BFR-512.pth",
        )


def _fixed_level(*layers: nn.Module) -> nn.Module:
    """[blur,] convolution and activation, up to the LeakyReLU."""
    *blurs, conv, activation = layers
    assert isinstance(conv, EqualConv)
    assert isinstance(activation, Activation)
    weight, bias = conv.effective_weight() * GAIN, activation.bias * GAIN
    fixed = fixed_conv(weight, bias, stride=(conv.stride, conv.stride))
    return nn.Sequential(*[FixedBlur(blur, weight.shape[1]) for blur in blurs], fixed)


class FixedBlur(nn.Module):
    """`Blur` of a given number of channels."""

    def __init__(self, blur: nn.Module, channels: int) -> None:
        super().__init__()
        assert isinstance(blur, Blur)
        self.pad = blur.pad
        self.register_buffer("weight", blur.kernel.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.get_buffer("weight")
        return F.conv2d(F.pad(x, (*self.pad, *self.pad)), weight, groups=len(weight))


def _fixed_linear(linear: nn.Module) -> nn.Linear:
    """An `EqualLinear` with its constant factors multiplied in, up to its LeakyReLU."""
    assert isinstance(linear, EqualLinear)
    gain = GAIN if linear.activate else 1.0
    with torch.device("meta"):
        fixed = nn.Linear(linear.weight.shape[1], linear.weight.shape[0])
    fixed.weight = constant(linear.effective_weight() * gain)
    fixed.bias = constant(linear.bias * (linear.rate * gain))
    return fixed


class FixedGenerator(nn.Module):
    """`Generator`."""

    def __init__(self, plain: Generator) -> None:
        super().__init__()
        scale, *linears = plain.style.children()
        assert isinstance(scale, UnitScale)
        self.unit = UnitCode()
        self.mlp = nn.ModuleList(_fixed_linear(linear) for linear in linears)
        self.start = constant(plain.input.input)
        convs: list[Any] = [plain.conv1, *plain.convs]
        to_pictures: list[Any] = [plain.to_rgb1, *plain.to_rgbs]
        modulations = [_fixed_linear(layer.conv.modulation) for layer in convs + to_pictures]
        self.styles = StyleProducts([x.weight for x in modulations], [x.bias for x in modulations])
        self.convs = nn.ModuleList(FixedStyledConv(conv) for conv in convs)
        self.to_pictures = nn.ModuleList(FixedToPicture(_as_enet_picture(layer)) for layer in to_pictures)

    def forward(self, code: Tensor, features: Sequence[Tensor]) -> Tensor:
        style = self.unit(code)
        for layer in self.mlp:
            style = F.leaky_relu(layer(style), SLOPE)
        styles = self.styles(style)
        for_convs, for_pictures = styles[: len(self.convs)], styles[len(self.convs) :]
        x: Scaled = self.convs[0]((self.start, torch.ones_like(for_convs[0])), for_convs[0], features[0])
        picture: Tensor = self.to_pictures[0](x, for_pictures[0])
        for step, feature in enumerate(features[1:]):
            for index in (2 * step + 1, 2 * step + 2):
                x = self.convs[index](x, for_convs[index], feature)
            picture = self.to_pictures[step + 1](x, for_pictures[step + 1]) + doubled_to_black(picture)
        return picture


class UnitCode(nn.Module):
    """`UnitScale`, in float32 whatever the code is: a sum of squares with an epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = UnitScale()

    def forward(self, code: Tensor) -> Tensor:
        y: Tensor = self.unit(code.float())
        return y.to(code.dtype)


def doubled_to_black(picture: Tensor) -> Tensor:
    """Twice the height and width, bilinear, with zeros outside the picture."""
    return enet.double(F.pad(picture, (1, 1, 1, 1)))[:, :, 2:-2, 2:-2]


class FixedStyledConv(nn.Module):
    """`StyledConv`: the convolved channels carry factors, the appended feature's are ones."""

    def __init__(self, layer: StyledConv) -> None:
        super().__init__()
        weight = layer.conv.effective_weight()
        channels = weight.shape[1]
        same = _as_enet_conv(weight, layer.activate.bias[:channels] * GAIN)
        # A transposed convolution turns the kernel round.
        self.convolved = WholeStyledConv(
            same, SpreadConv(weight[0].flip(2, 3)) if layer.conv.enlarge else None
        )
        self.scale = constant(layer.noise.weight * GAIN)
        self.bias = constant(layer.activate.bias[channels:, None, None] * GAIN)

    def forward(self, x: Scaled, style: Tensor, feature: Tensor) -> Scaled:
        y, factor = self.convolved(x, style)
        appended = F.leaky_relu(feature * self.scale + self.bias, SLOPE)
        ones = factor.new_ones(appended.shape[1]).expand(factor.shape[0], -1)
        return torch.cat([y, appended], dim=1), torch.cat([factor, ones], dim=1)


def _as_enet_conv(weight: Tensor, bias: Tensor) -> enet.StyledConv:
    """E-Net's styled convolution with these constants; its gain stands where GPEN's activation has one."""
    with torch.device("meta"):
        layer = enet.StyledConv(weight.shape[2], weight.shape[1])
    layer.modulated_conv.weight = constant(weight)
    layer.bias = constant(bias[None, :, None, None])
    return layer


def _as_enet_picture(layer: ToPicture) -> enet.ToPicture:
    weight = layer.conv.effective_weight()
    with torch.device("meta"):
        same = enet.ToPicture(weight.shape[2])
    same.modulated_conv.weight = constant(weight)
    same.bias = constant(layer.bias)
    return same


def deployable(plain: GPEN) -> nn.Module:
    """The deployable form of a loaded GPEN."""
    with torch.no_grad():
        return DeployableGPEN(plain).eval()
