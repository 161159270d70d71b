"""Building blocks that several networks share, in their plain form.

Attribute names are those of the public checkpoints, which is why a norm may live at ``model.1``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPSILON = 1e-5
SLOPE = 0.1  # negative slope of LeakyReLU in D-Net and L-Net, Fourier blocks excepted

ConvFactory = Callable[[int, int, int], nn.Module]
"""(channels in, channels out, odd kernel size) to a convolution that keeps the picture's size."""


def same_conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    """A convolution with zero padding that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)


class SpectralConv2d(nn.Module):
    """`same_conv` under spectral normalisation, with the three tensors that training stores.

    The effective weight is ``weight_orig / sigma`` with sigma = u . (W v), W being the weight as a
    matrix of one row per output channel. The division happens at every call here; the deployable
    forms do it once.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(channels_out))
        self.weight_orig = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel))
        self.register_buffer("weight_u", torch.empty(channels_out))
        self.register_buffer("weight_v", torch.empty(channels_in * kernel * kernel))

    def effective_weight(self) -> Tensor:
        """The weight the convolution uses, (out, in, k, k)."""
        sigma = torch.dot(self.weight_u, torch.mv(self.weight_orig.flatten(1), self.weight_v))
        return self.weight_orig / sigma

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.effective_weight(), self.bias, padding=self.weight_orig.shape[-1] // 2)


class PictureNorm(nn.Module):
    """Normalises each sample over channels, height and width together; scale and shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[1:]
        return F.layer_norm(x, shape, self.weight.expand(shape), self.bias.expand(shape), NORM_EPSILON)


class ConvStage(nn.Module):
    """Convolution, `PictureNorm`, LeakyReLU, with an optional doubling before or halving after.

    Args:
        conv: the convolution.
        channels: its output channels.
        enlarge: double height and width before, by repetition.
        halve: average 2x2 squares afterwards.
    """

    def __init__(self, conv: nn.Module, channels: int, *, enlarge: bool = False, halve: bool = False) -> None:
        super().__init__()
        self.enlarge = enlarge
        layers = [conv, PictureNorm(channels), nn.LeakyReLU(SLOPE)]
        self.model = nn.Sequential(*layers, *([nn.AvgPool2d(2)] if halve else []))

    def forward(self, x: Tensor) -> Tensor:
        if self.enlarge:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        y: Tensor = self.model(x)
        return y


class OutputStage(nn.Module):
    """The last convolution and the squashing to the picture's range."""

    def __init__(self, conv: nn.Module, squash: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(conv, squash)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class AdaIN(nn.Module):
    """Instance norm whose scale and shift come from a driving vector (descriptor or sound).

    Args:
        channels: channels of the picture.
        driver: length of the driving vector.
    """

    HIDDEN = 128

    def __init__(self, channels: int, driver: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Linear(driver, self.HIDDEN), nn.ReLU())
        self.mlp_gamma = nn.Linear(self.HIDDEN, channels)
        self.mlp_beta = nn.Linear(self.HIDDEN, channels)

    def forward(self, x: Tensor, driver: Tensor) -> Tensor:
        hidden = self.mlp_shared(driver.flatten(1))
        gamma = self.mlp_gamma(hidden)[:, :, None, None]
        beta = self.mlp_beta(hidden)[:, :, None, None]
        normal = F.instance_norm(x, eps=NORM_EPSILON)
        y: Tensor = normal * (1 + gamma) + beta
        return y


class ResidualChain(nn.Module):
    """Blocks `res0`, `res1`, ... applied one after another, each driven by the same vector."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        for index, block in enumerate(blocks):
            self.add_module(f"res{index}", block)

    def forward(self, x: Tensor, driver: Tensor) -> Tensor:
        for block in self.children():
            x = block(x, driver)
        return x


class PyramidDecoder(nn.Module):
    """Climbs a feature pyramid: driven residual blocks, doubling, and a jump connection per level.

    Level `i` holds ``res{i}``, ``up{i}`` and ``jump{i}``; the coarsest level runs first.

    Args:
        widths: (channels entering, channels leaving) of each level, finest level first.
        chain: channels to that level's residual blocks.
        conv: makes the 3x3 and 7x7 convolutions.
        squash: maps the result to the picture's range.
    """

    def __init__(
        self,
        widths: list[tuple[int, int]],
        chain: Callable[[int], ResidualChain],
        conv: ConvFactory,
        squash: nn.Module,
    ) -> None:
        super().__init__()
        self.levels = len(widths)
        self.widths = [entering for entering, _ in widths]
        for level, (entering, leaving) in enumerate(widths):
            self.add_module(f"res{level}", chain(entering))
            self.add_module(f"up{level}", ConvStage(conv(entering, leaving, 3), leaving, enlarge=True))
            self.add_module(f"jump{level}", ConvStage(conv(leaving, leaving, 3), leaving))
        self.final = OutputStage(conv(widths[0][1], 3, 7), squash)

    def forward(self, pyramid: list[Tensor], driver: Tensor) -> Tensor:
        """`pyramid`: features from full size to the coarsest, `levels + 1` of them."""
        x = pyramid[-1]
        for level in reversed(range(self.levels)):
            x = self.get_submodule(f"res{level}")(x, driver)
            x = self.get_submodule(f"up{level}")(x)
            x = self.get_submodule(f"jump{level}")(pyramid[level]) + x
        y: Tensor = self.final(x)
        return y
