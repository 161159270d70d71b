"""L-Net in its deployable form.

Differences from the plain one: Fourier transforms are products with constant matrices; spectral and
batch norms are part of their convolutions; scales and shifts of the driven norms come from one
`DriverBank`; doubling by repetition is part of the convolution after it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.blocks import AdaIN, ConvStage, PictureNorm, SpectralConv2d
from dubstream.export.networks.dft import Fourier
from dubstream.export.networks.driven import DriverBank, NormCollector
from dubstream.export.networks.fixed_blocks import (
    fixed_picture_norm,
    fixed_same_conv,
    fixed_spectral_conv,
    fixed_stage,
)
from dubstream.export.networks.fourier import FourierConv, SpectralTransform
from dubstream.export.networks.lnet import LNet, SoundConv
from dubstream.export.networks.rewrite import Rewriter, fixed_conv, merged_batch_norm

FACE = 96  # height and width of L-Net's pictures


class DeployableLNet(nn.Module):
    """`LNet`, ready for export; same inputs and outputs."""

    def __init__(self, plain: LNet) -> None:
        super().__init__()
        collector = NormCollector()
        widths = [(level, width) for level, width in enumerate(plain.decoder.widths)]
        fourier = {width: Fourier(FACE >> level + 1, FACE >> level + 1) for level, width in widths}
        rewrite = Rewriter(
            {
                AdaIN: collector,
                nn.Conv2d: fixed_same_conv,
                SpectralConv2d: fixed_spectral_conv,
                PictureNorm: fixed_picture_norm,
                ConvStage: fixed_stage,
                FourierConv: lambda conv, _: FixedFourierConv(conv, fourier[conv.channels]),
                SoundConv: FixedSoundConv,
            }
        )
        self.encoder = rewrite(plain.encoder)
        self.decoder = rewrite(plain.decoder)
        self.sound = rewrite(plain.audio_encoder)
        self.bank = DriverBank(collector.norms)

    def forward(self, mel: Tensor, faces: Tensor) -> Tensor:
        driven = self.bank(self.sound(mel).flatten(1))
        lips: Tensor = self.decoder(self.encoder(faces[:, :3], faces[:, 3:]), driven)
        return lips


class FixedSoundConv(nn.Module):
    """`SoundConv` with its batch norm inside the convolution."""

    def __init__(self, block: SoundConv, _: Rewriter) -> None:
        super().__init__()
        conv, norm = block.conv_block
        assert isinstance(conv, nn.Conv2d)
        self.conv = merged_batch_norm(conv, norm)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return F.relu(y + x if self.residual else y)


class FixedFourierConv(nn.Module):
    """`FourierConv` with every picture mirrored at its edges once, and `FixedSpectralTransform`."""

    def __init__(self, conv: FourierConv, fourier: Fourier) -> None:
        super().__init__()
        self.near_to_near = fixed_conv(conv.convl2l.weight)
        self.near_to_wide = fixed_conv(conv.convl2g.weight)
        self.wide_to_near = fixed_conv(conv.convg2l.weight)
        self.spectral = FixedSpectralTransform(conv.convg2g, fourier)

    def forward(self, near: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
        edged = F.pad(near, (1, 1, 1, 1), mode="reflect")
        edged_wide = F.pad(wide, (1, 1, 1, 1), mode="reflect")
        return (
            self.near_to_near(edged) + self.wide_to_near(edged_wide),
            self.near_to_wide(edged) + self.spectral(wide),
        )


class FixedSpectralTransform(nn.Module):
    """`SpectralTransform` with batch norms inside the 1x1 convolutions and constant transforms."""

    def __init__(self, transform: SpectralTransform, fourier: Fourier) -> None:
        super().__init__()
        squeeze, norm, _ = transform.conv1
        assert isinstance(squeeze, nn.Conv2d)
        self.squeeze = merged_batch_norm(squeeze, norm)
        self.mix = merged_batch_norm(transform.fu.conv_layer, transform.fu.bn)
        self.expand = fixed_conv(transform.conv2.weight)
        self.fourier = fourier

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        mixed = F.relu(self.mix(self.fourier(x)))
        y: Tensor = self.expand(x + self.fourier.inverse(mixed))
        return y


def deployable(plain: LNet) -> nn.Module:
    """The deployable form of a loaded L-Net."""
    with torch.no_grad():
        return DeployableLNet(plain).eval()
