"""GPEN-BFR-512 in its plain form: restores a degraded face (Yang et al. 2021, section 3.2).

An encoder's code drives a StyleGAN2 generator, and its features take the place of the generator's noise:
they are appended to the channels of every styled convolution.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.seeded import AUXILIARY

SLOPE = 0.2
GAIN = 2**0.5  # after every activation
EPSILON = 1e-8
STYLE = 512
MLP_LAYERS = 8
MLP_RATE = 0.01  # learning-rate factor of the style's layers: weights are stored that much larger
STEPS = 7  # between 512 and 4
CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64)  # at 4, 8, ... 512
START = 4
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the blur along one axis


class GPEN(nn.Module):
    """Face (N, 3, 512, 512) to restored face, shapes and ranges as `engines.face_specs.GPEN` says."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()
        widths = CHANNELS[::-1]
        self.ecd0 = _nested(EqualConv(3, widths[0], 1), Activation(widths[0]))
        for index, (fine, coarse) in enumerate(itertools.pairwise(widths), start=1):
            halving = _nested(Blur(pad=(2, 2)), EqualConv(fine, coarse, 3, stride=2), Activation(coarse))
            self.add_module(f"ecd{index}", halving)
        self.final_linear = nn.Sequential(EqualLinear(CHANNELS[0] * START * START, STYLE, activate=True))

    def forward(self, image: Tensor) -> Tensor:
        features, x = [], image
        for index in range(STEPS + 1):
            x = self.get_submodule(f"ecd{index}")(x)
            features.append(x)
        picture: Tensor = self.generator(self.final_linear(x.flatten(1)), features[::-1])
        return picture


def _nested(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Sequential(*layers))


class Generator(nn.Module):
    """Code (N, 512) and encoder features at 4, 8, ... 512 to the picture."""

    def __init__(self) -> None:
        super().__init__()
        mlp = [EqualLinear(STYLE, STYLE, rate=MLP_RATE, activate=True) for _ in range(MLP_LAYERS)]
        self.style = nn.Sequential(UnitScale(), *mlp)
        self.input = StartPicture(CHANNELS[0])
        self.conv1 = StyledConv(CHANNELS[0], CHANNELS[0])
        self.to_rgb1 = ToPicture(2 * CHANNELS[0], enlarge=False)
        self.convs = nn.ModuleList()
        for coarse, fine in itertools.pairwise(CHANNELS):
            self.convs.extend([StyledConv(2 * coarse, fine, enlarge=True), StyledConv(2 * fine, fine)])
        self.to_rgbs = nn.ModuleList(ToPicture(2 * width) for width in CHANNELS[1:])

    def forward(self, code: Tensor, features: list[Tensor]) -> Tensor:
        style = self.style(code)
        x = self.conv1(self.input.input.expand(len(code), -1, -1, -1), style, features[0])
        picture: Tensor = self.to_rgb1(x, style, None)
        for step, feature in enumerate(features[1:]):
            x = self.convs[2 * step](x, style, feature)
            x = self.convs[2 * step + 1](x, style, feature)
            picture = self.to_rgbs[step](x, style, picture)
        return picture


class UnitScale(nn.Module):
    """Divides each vector by the root of its mean square."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


class StartPicture(nn.Module):
    """The learned (1, C, 4, 4) features the generator starts from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.zeros(1, channels, START, START))


class EqualConv(nn.Module):
    """A convolution without bias whose weight is divided by the root of its fan-in; 3x3 ones do not pad."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel))

    def effective_weight(self) -> Tensor:
        """The weight the convolution uses."""
        return self.weight / math.sqrt(self.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.effective_weight(), stride=self.stride)


class EqualLinear(nn.Module):
    """A linear layer whose weight is divided by the root of its fan-in.

    Args:
        rate: factor on weight and bias.
        activate: whether an activation follows.
    """

    def __init__(self, width_in: int, width_out: int, *, rate: float = 1.0, activate: bool = False) -> None:
        super().__init__()
        self.rate, self.activate = rate, activate
        self.weight = nn.Parameter(torch.empty(width_out, width_in))
        self.bias = nn.Parameter(torch.empty(width_out))

    def effective_weight(self) -> Tensor:
        """The weight the product uses."""
        return self.weight * (self.rate / math.sqrt(self.weight.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.effective_weight(), self.bias * self.rate)
        return GAIN * F.leaky_relu(y, SLOPE) if self.activate else y


class Activation(nn.Module):
    """Bias, LeakyReLU, gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return GAIN * F.leaky_relu(x + self.bias[:, None, None], SLOPE)


class Blur(nn.Module):
    """Smooths every channel by the stored 4x4 kernel, over zeros outside.

    Args:
        pad: rows and columns of zeros before and behind.
        strength: sum of the kernel: 1, or 4 after zeros were put between pixels.
    """

    kernel: Tensor

    def __init__(self, *, pad: tuple[int, int], strength: float = 1.0) -> None:
        super().__init__()
        self.pad = pad
        self.register_buffer("kernel", blur_kernel(strength))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = F.pad(x, (*self.pad, *self.pad))
        return F.conv2d(x, self.kernel.expand(channels, 1, -1, -1), groups=channels)


def blur_kernel(strength: float) -> Tensor:
    """The 4x4 kernel, its sum being `strength`."""
    taps = torch.tensor(TAPS)
    return torch.outer(taps, taps) * (strength / sum(TAPS) ** 2)


def _kernel_rows(strength: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in blur_kernel(strength).tolist())


SEED_RULE = replace(
    AUXILIARY,
    gain=60.0,
    gain_overrides=(
        (r"^generator\.style\.", 2000.0),
        (r"^generator\.to_rgb.*\.conv\.weight$", 3.0),
        (r"^generator\.to_rgb.*\.bias$", 0.2),
        (r"^ecd0\.", 3.0),
    ),
    fixed_buffers=((r"^ecd\d\..*\.kernel$", _kernel_rows(1.0)), (r"\.kernel$", _kernel_rows(4.0))),
)
"""Layers divide by the root of their fan-in, and seeded weights are divided already: hence gains."""


class Upsample(Blur):
    """Twice the height and width: zeros between pixels, then smoothing."""

    def __init__(self) -> None:
        super().__init__(pad=(2, 1), strength=4.0)

    def forward(self, x: Tensor) -> Tensor:
        spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        spread[:, :, ::2, ::2] = x
        return super().forward(spread)


class ModulatedConv(nn.Module):
    """A convolution whose weight is scaled per sample by a style; one group per sample.

    Args:
        channels_in, channels_out, kernel: of the convolution.
        demodulate: scale every output channel's weights to unit norm.
        enlarge: double height and width by a transposed convolution and a blur.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, *, demodulate: bool, enlarge: bool = False
    ) -> None:
        super().__init__()
        self.demodulate, self.enlarge = demodulate, enlarge
        self.weight = nn.Parameter(torch.empty(1, channels_out, channels_in, kernel, kernel))
        self.modulation = EqualLinear(STYLE, channels_in)
        if enlarge:
            self.blur = Blur(pad=(1, 1), strength=4.0)

    def effective_weight(self) -> Tensor:
        """The weight before modulation, (1, out, in, k, k)."""
        return self.weight / math.sqrt(self.weight[0, 0].numel())

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.effective_weight() * self.modulation(style)[:, None, :, None, None]
        if self.demodulate:
            energy = weight.square().sum(dim=(2, 3, 4), keepdim=True)
            weight = weight * torch.rsqrt(energy + EPSILON)
        batch, kernel = len(x), weight.shape[-1]
        groups = x.flatten(0, 1)[None]
        if self.enlarge:
            turned = weight.transpose(1, 2).flatten(0, 1)
            y = F.conv_transpose2d(groups, turned, stride=2, groups=batch)
            enlarged: Tensor = self.blur(y.view(batch, -1, *y.shape[2:]))
            return enlarged
        y = F.conv2d(groups, weight.flatten(0, 1), padding=kernel // 2, groups=batch)
        return y.view(batch, -1, *y.shape[2:])


class StyledConv(nn.Module):
    """`ModulatedConv`, an encoder feature appended to its channels, activation of both."""

    def __init__(self, channels_in: int, channels_out: int, *, enlarge: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(channels_in, channels_out, 3, demodulate=True, enlarge=enlarge)
        self.noise = FeatureScale()
        self.activate = Activation(2 * channels_out)

    def forward(self, x: Tensor, style: Tensor, feature: Tensor) -> Tensor:
        y: Tensor = self.activate(torch.cat([self.conv(x, style), self.noise.weight * feature], dim=1))
        return y


class FeatureScale(nn.Module):
    """One factor on the feature that takes the noise's place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class ToPicture(nn.Module):
    """A modulated 1x1 convolution to three channels, added to the doubled picture so far."""

    def __init__(self, channels: int, *, enlarge: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv(channels, 3, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if enlarge:
            self.upsample = Upsample()

    def forward(self, x: Tensor, style: Tensor, picture: Tensor | None) -> Tensor:
        y: Tensor = self.conv(x, style) + self.bias
        return y if picture is None else y + self.upsample(picture)
