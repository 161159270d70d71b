"""E-Net in its plain form: sharpens L-Net's lips with the identity of a reference (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.engines.errors import UsageError

STYLE = 512  # length of the identity code
SLOPE = 0.2  # negative slope of LeakyReLU here
GAIN = 2**0.5  # applied after every demodulated convolution
DEMODULATION_EPSILON = 1e-8
LIPS_SIZE = 96
REFERENCE_SIZE = 256  # the identity is read from the reference at this height and width
MARGIN = 2  # pixels the lips are extended by, mirrored
FACTOR = 4  # output size over lips size


class ENet(nn.Module):
    """Lips and reference to the enhanced face, shapes as `engines.specs.ENET` says.

    The trained generator adds fresh noise to every styled convolution. Here the noise is an argument,
    and none is its expected value: with None the output is reproducible.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_body_first = nn.Conv2d(3, 256, 1)
        widths = [(256, 256), (256, 512), (512, 512), (512, 512), (512, 512), (512, 512)]
        self.conv_body_down = nn.ModuleList(HalvingBlock(*pair) for pair in widths)
        self.final_conv = nn.Conv2d(512, 512, 3, padding=1)
        self.final_linear = nn.Linear(512 * 4 * 4, STYLE)
        self.style_convs = nn.ModuleList(
            [
                StyledConv(3, 256, enlarge=True),
                StyledConv(256, 256),
                StyledConv(256, 128, enlarge=True),
                StyledConv(128, 128),
            ]
        )
        self.to_rgbs = nn.ModuleList([ToPicture(256), ToPicture(128)])

    def forward(self, lips: Tensor, reference: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """`noise`: None, or one (1, 1, H, W) picture for each of the four styled convolutions."""
        noises = [None] * len(self.style_convs) if noise is None else list(noise)
        style = self.identity(reference)
        picture = x = F.pad(lips, [MARGIN] * 4, mode="reflect")
        for step, to_picture in enumerate(self.to_rgbs):
            for index in (2 * step, 2 * step + 1):
                x = self.style_convs[index](x, style, noises[index])
            picture = to_picture(x, style, picture)
        margin = MARGIN * FACTOR
        return picture[:, :, margin:-margin, margin:-margin]

    def identity(self, reference: Tensor) -> Tensor:
        """Reference (N, 3, H, W) to identity code (N, 512)."""
        size = (REFERENCE_SIZE, REFERENCE_SIZE)
        x = F.interpolate(reference, size=size, mode="bilinear", align_corners=False)
        x = F.leaky_relu(self.conv_body_first(x), SLOPE)
        for block in self.conv_body_down:
            x = block(x)
        code: Tensor = self.final_linear(F.leaky_relu(self.final_conv(x), SLOPE).flatten(1))
        return code


def fixed_noise(seed: int) -> list[Tensor]:
    """Reproducible noise for `ENet.forward`: one standard normal (1, 1, H, W) picture per convolution.

    `UsageError` for a negative seed.
    """
    if seed < 0:
        raise UsageError(f"noise seed {seed}, expected zero or more")
    generator = np.random.Generator(np.random.Philox(key=seed))
    sizes = [(LIPS_SIZE + 2 * MARGIN) * scale for scale in (2, 2, 4, 4)]
    drawn = [generator.standard_normal((1, 1, size, size), dtype=np.float32) for size in sizes]
    return [torch.from_numpy(noise) for noise in drawn]


class ResizingBlock(nn.Module):
    """Residual block that changes the picture's size between its convolutions; a subclass says how."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.resized(F.leaky_relu(self.conv1(x), SLOPE))
        y = F.leaky_relu(self.conv2(y), SLOPE)
        z: Tensor = y + self.skip(self.resized(x))
        return z

    def resized(self, x: Tensor) -> Tensor:
        """The picture in its new size."""
        raise NotImplementedError


class HalvingBlock(ResizingBlock):
    """Of the identity encoder; bilinear reduction to half the size."""

    def resized(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def double(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear, edges held."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class ModulatedConv(nn.Module):
    """A convolution whose weight is scaled per sample by a style (StyleGAN2, Karras et al. 2020).

    The batch becomes groups of one big convolution, as in the paper.

    Args:
        channels_in, channels_out, kernel: of the convolution, which keeps the size.
        demodulate: scale every output channel's weights to unit norm.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, demodulate: bool) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.empty(1, channels_out, channels_in, kernel, kernel))
        self.modulation = nn.Linear(STYLE, channels_in)

    def forward(self, x: Tensor, style: Tensor, *, enlarge: bool = False) -> Tensor:
        weight = self.weight * self.modulation(style)[:, None, :, None, None]
        if self.demodulate:
            energy = weight.square().sum(dim=(2, 3, 4), keepdim=True)
            weight = weight * torch.rsqrt(energy + DEMODULATION_EPSILON)
        if enlarge:
            x = double(x)
        batch, kernel = x.shape[0], weight.shape[-1]
        grouped = F.conv2d(x.flatten(0, 1)[None], weight.flatten(0, 1), padding=kernel // 2, groups=batch)
        return grouped.view(batch, -1, *grouped.shape[2:])


class StyledConv(nn.Module):
    """`ModulatedConv`, optional noise, bias, LeakyReLU; `weight` is the strength of the noise."""

    def __init__(self, channels_in: int, channels_out: int, *, enlarge: bool = False) -> None:
        super().__init__()
        self.enlarge = enlarge
        self.modulated_conv = ModulatedConv(channels_in, channels_out, 3, demodulate=True)
        self.weight = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, channels_out, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        y = self.modulated_conv(x, style, enlarge=self.enlarge) * GAIN
        if noise is not None:
            y = y + self.weight * noise
        return F.leaky_relu(y + self.bias, SLOPE)


class ToPicture(nn.Module):
    """A modulated 1x1 convolution to three channels, added to the doubled picture so far."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(channels, 3, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor, picture: Tensor) -> Tensor:
        y: Tensor = self.modulated_conv(x, style) + self.bias + double(picture)
        return y
