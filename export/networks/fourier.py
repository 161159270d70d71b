"""Fast Fourier convolution in its plain form (Chi et al. 2020), as L-Net's decoder uses it.

A picture's channels are split: a quarter is "local", three quarters are "global". Three 3x3
convolutions exchange between them; the global part also goes through a convolution in the frequency
domain, which sees the whole picture at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.blocks import AdaIN

GLOBAL_SHARE = 0.75
FOURIER_SLOPE = 0.01  # not 0.1: the trained blocks run with LeakyReLU's default


class FourierUnit(nn.Module):
    """A 1x1 convolution, batch norm and ReLU over the real and imaginary parts of the spectrum.

    Real and imaginary part of channel c are channels 2c and 2c + 1 of the convolution. Any height and
    width; the spectrum is orthonormal.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        spectrum = torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))
        planes = spectrum.permute(0, 1, 4, 2, 3).flatten(1, 2)
        planes = F.relu(self.bn(self.conv_layer(planes)))
        spectrum = torch.unflatten(planes, 1, (-1, 2)).permute(0, 1, 3, 4, 2).contiguous()
        y: Tensor = torch.fft.irfft2(torch.view_as_complex(spectrum), s=size, norm="ortho")
        return y


class SpectralTransform(nn.Module):
    """Global to global: down to half the channels, a `FourierUnit` with a shortcut, up again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        squeeze = nn.Conv2d(channels, half, 1, bias=False)
        self.conv1 = nn.Sequential(squeeze, nn.BatchNorm2d(half), nn.ReLU())
        self.fu = FourierUnit(half)
        self.conv2 = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        y: Tensor = self.conv2(x + self.fu(x))
        return y


class FourierConv(nn.Module):
    """The exchange between local and global channels; the names say from where to where."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = int(channels * GLOBAL_SHARE)
        near = channels - wide
        self.convl2l = _reflecting_conv(near, near)
        self.convl2g = _reflecting_conv(near, wide)
        self.convg2l = _reflecting_conv(wide, near)
        self.convg2g = SpectralTransform(wide)

    def forward(self, near: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
        return self.convl2l(near) + self.convg2l(wide), self.convl2g(near) + self.convg2g(wide)


def _reflecting_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False, padding_mode="reflect")


class FourierLayer(nn.Module):
    """`FourierConv`, then a driven norm and LeakyReLU on each of the two parts."""

    def __init__(self, channels: int, driver: int) -> None:
        super().__init__()
        self.ffc = FourierConv(channels)
        wide = int(channels * GLOBAL_SHARE)
        self.bn_l = AdaIN(channels - wide, driver)
        self.bn_g = AdaIN(wide, driver)

    def forward(self, near: Tensor, wide: Tensor, driver: Tensor) -> tuple[Tensor, Tensor]:
        near, wide = self.ffc(near, wide)
        near = F.leaky_relu(self.bn_l(near, driver), FOURIER_SLOPE)
        wide = F.leaky_relu(self.bn_g(wide, driver), FOURIER_SLOPE)
        return near, wide


class FourierBlock(nn.Module):
    """Two `FourierLayer` and a shortcut; the global channels are the last three quarters."""

    def __init__(self, channels: int, driver: int) -> None:
        super().__init__()
        self.channels = channels
        self.wide = int(channels * GLOBAL_SHARE)
        self.conv1 = FourierLayer(channels, driver)
        self.conv2 = FourierLayer(channels, driver)

    def forward(self, x: Tensor, driver: Tensor) -> Tensor:
        near, wide = x[:, : -self.wide], x[:, -self.wide :]
        near, wide = self.conv1(near, wide, driver)
        near, wide = self.conv2(near, wide, driver)
        return torch.cat([near, wide], dim=1) + x
