"""D-Net in its plain form: neutralises a face's expression (paper section 3.1).

A window of 3DMM coefficients becomes a descriptor; the descriptor drives an hourglass that predicts a
flow field; the picture is warped by it; an editing network repairs what warping cannot do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.engines.errors import UsageError
from dubstream.engines.specs import DRIVING_ROWS
from dubstream.export.networks.blocks import (
    SLOPE,
    AdaIN,
    ConvStage,
    PictureNorm,
    PyramidDecoder,
    ResidualChain,
    same_conv,
)

DESCRIPTOR = 256
SHORTEST_WINDOW = 25  # one kernel of 7 and three of 3 with dilation 3, none of them padded


class DNet(nn.Module):
    """Image and driving window to (edited, warped, flow), shapes as `engines.specs.DNET` says.

    `coefficients` may have any length from `SHORTEST_WINDOW` on (`UsageError` below): the descriptor
    is an average over time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mapping_net = Mapping()
        self.warpping_net = Warping()
        self.editing_net = Editing()

    def forward(self, image: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        descriptor = self.mapping_net(coefficients)
        flow = self.warpping_net(image, descriptor)
        warped = warp(image, flow)
        return self.editing_net(image, warped, descriptor), warped, flow


class Mapping(nn.Module):
    """Driving window (N, 73, T) to descriptor (N, 256): dilated residual convolutions, then the mean."""

    LAYERS = 3

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(DRIVING_ROWS, DESCRIPTOR, 7))
        for index in range(self.LAYERS):
            conv = nn.Conv1d(DESCRIPTOR, DESCRIPTOR, 3, dilation=3)
            self.add_module(f"encoder{index}", nn.Sequential(nn.LeakyReLU(SLOPE), conv))

    def forward(self, coefficients: Tensor) -> Tensor:
        if coefficients.shape[-1] < SHORTEST_WINDOW:
            raise UsageError(
                f"driving window of {coefficients.shape[-1]} frames, expected {SHORTEST_WINDOW} or more",
                hint="the pipeline's window is 26 frames",
            )
        x = self.first(coefficients)
        for index in range(self.LAYERS):
            x = self.get_submodule(f"encoder{index}")(x) + x[:, :, 3:-3]
        return torch.mean(x, dim=2)


class Shrink(nn.Module):
    """Halves the picture: two driven norms, a 4x4 convolution of stride 2 and a 3x3 one."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1)
        self.conv_1 = same_conv(channels_out, channels_out, 3)
        self.norm_0 = AdaIN(channels_in, DESCRIPTOR)
        self.norm_1 = AdaIN(channels_out, DESCRIPTOR)

    def forward(self, x: Tensor, descriptor: Tensor) -> Tensor:
        x = self.conv_0(F.leaky_relu(self.norm_0(x, descriptor), SLOPE))
        y: Tensor = self.conv_1(F.leaky_relu(self.norm_1(x, descriptor), SLOPE))
        return y


class Grow(nn.Module):
    """Doubles the picture by transposed convolutions, with a convolved shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv_0 = same_conv(channels_in, channels_out, 3)
        self.conv_1 = _doubling_conv(channels_out, channels_out)
        self.conv_s = _doubling_conv(channels_in, channels_out)
        self.norm_0 = AdaIN(channels_in, DESCRIPTOR)
        self.norm_1 = AdaIN(channels_out, DESCRIPTOR)
        self.norm_s = AdaIN(channels_in, DESCRIPTOR)

    def forward(self, x: Tensor, descriptor: Tensor) -> Tensor:
        shortcut = self.conv_s(F.leaky_relu(self.norm_s(x, descriptor), SLOPE))
        y = self.conv_0(F.leaky_relu(self.norm_0(x, descriptor), SLOPE))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, descriptor), SLOPE))
        grown: Tensor = shortcut + y
        return grown


def _doubling_conv(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)


class HourglassEncoder(nn.Module):
    """Five halvings from 256 to 8 pixels; all six levels are returned, largest first."""

    WIDTHS = (32, 64, 128, 256, 256, 256)

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = same_conv(3, self.WIDTHS[0], 7)
        for index, (entering, leaving) in enumerate(zip(self.WIDTHS, self.WIDTHS[1:], strict=False)):
            self.add_module(f"encoder{index}", Shrink(entering, leaving))

    def forward(self, image: Tensor, descriptor: Tensor) -> list[Tensor]:
        levels: list[Tensor] = [self.input_layer(image)]
        for index in range(len(self.WIDTHS) - 1):
            levels.append(self.get_submodule(f"encoder{index}")(levels[-1], descriptor))
        return levels


class HourglassDecoder(nn.Module):
    """Three doublings from 8 to 64 pixels; each result is joined by the encoder's level of its size."""

    WIDTHS = ((4, 256, 256), (3, 512, 256), (2, 512, 128))  # level, channels in, channels out

    def __init__(self) -> None:
        super().__init__()
        for level, entering, leaving in self.WIDTHS:
            self.add_module(f"decoder{level}", Grow(entering, leaving))

    def forward(self, levels: list[Tensor], descriptor: Tensor) -> Tensor:
        x = levels[-1]
        for level, _, _ in self.WIDTHS:
            x = torch.cat([self.get_submodule(f"decoder{level}")(x, descriptor), levels[level]], dim=1)
        return x


class Hourglass(nn.Module):
    """Picture and descriptor to features at a quarter of the size, (N, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = HourglassEncoder()
        self.decoder = HourglassDecoder()

    def forward(self, image: Tensor, descriptor: Tensor) -> Tensor:
        x: Tensor = self.decoder(self.encoder(image, descriptor), descriptor)
        return x


class Warping(nn.Module):
    """Picture and descriptor to a flow field (N, 2, 64, 64): x then y, in pixels of that grid."""

    def __init__(self) -> None:
        super().__init__()
        self.hourglass = Hourglass()
        self.flow_out = nn.Sequential(PictureNorm(256), nn.LeakyReLU(SLOPE), same_conv(256, 2, 7))

    def forward(self, image: Tensor, descriptor: Tensor) -> Tensor:
        flow: Tensor = self.flow_out(self.hourglass(image, descriptor))
        return flow


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Samples `image` where `flow` points.

    The trained network expects a mismatch that has to be kept: the grid is laid out with its corners
    on the corner pixels' centres, but enlarged and sampled as if they were on the picture's edges.

    Args:
        image: (N, C, H, W).
        flow: (N, 2, h, w) offsets in pixels of its own grid, x first.

    Returns:
        (N, C, H, W) float32; zero where the flow points outside.
    """
    flow = flow.float()
    height, width = flow.shape[2:]
    x = torch.arange(width, dtype=torch.float32, device=flow.device) * (2 / (width - 1)) - 1
    y = torch.arange(height, dtype=torch.float32, device=flow.device) * (2 / (height - 1)) - 1
    grid = torch.stack(
        [
            x[None, None, :] + flow[:, 0] * (2 / (width - 1)),
            y[None, :, None] + flow[:, 1] * (2 / (height - 1)),
        ],
        dim=1,
    )
    grid = F.interpolate(grid, size=image.shape[2:], mode="bilinear", align_corners=False)
    return F.grid_sample(image.float(), grid.permute(0, 2, 3, 1), align_corners=False)


class EditingBlock(nn.Module):
    """Residual block of the editing network.

    The checkpoint holds two convolutions and two norms, but the first pair's result never reaches the
    output. It is computed here all the same: this form is the yardstick for speed, too.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = same_conv(channels, channels, 3)
        self.conv2 = same_conv(channels, channels, 3)
        self.norm1 = AdaIN(channels, DESCRIPTOR)
        self.norm2 = AdaIN(channels, DESCRIPTOR)

    def forward(self, x: Tensor, descriptor: Tensor) -> Tensor:
        F.leaky_relu(self.norm1(self.conv1(x), descriptor), SLOPE)
        y: Tensor = self.norm2(self.conv2(x), descriptor) + x
        return y


class EditingEncoder(nn.Module):
    """Picture and warped picture to a pyramid: 64 channels at 256 pixels down to 256 at 32."""

    WIDTHS = (64, 128, 256, 256)

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvStage(same_conv(6, self.WIDTHS[0], 7), self.WIDTHS[0])
        for level, (entering, leaving) in enumerate(zip(self.WIDTHS, self.WIDTHS[1:], strict=False)):
            stage = ConvStage(same_conv(entering, leaving, 3), leaving, halve=True)
            self.add_module(f"down{level}", stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        pyramid = []
        for stage in self.children():
            x = stage(x)
            pyramid.append(x)
        return pyramid


class Editing(nn.Module):
    """Picture, warped picture and descriptor to the edited picture (N, 3, 256, 256) in -1..1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EditingEncoder()
        widths = [(128, 64), (256, 128), (256, 256)]
        self.decoder = PyramidDecoder(widths, self._chain, same_conv, nn.Tanh())

    @staticmethod
    def _chain(channels: int) -> ResidualChain:
        return ResidualChain([EditingBlock(channels) for _ in range(2)])

    def forward(self, image: Tensor, warped: Tensor, descriptor: Tensor) -> Tensor:
        y: Tensor = self.decoder(self.encoder(torch.cat([image, warped], dim=1)), descriptor)
        return y
