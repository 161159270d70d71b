"""L-Net in its deployable form.

Differences from the plain one: Fourier transforms are products with constant matrices; spectral and
batch norms are part of their convolutions; scales and shifts of the driven norms come from one
`DriverBank`; doubling by repetition is part of the convolution after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.blocks import AdaIN, ConvStage, PictureNorm, SpectralConv2d
from dubstream.export.networks.dft import Fourier
from dubstream.export.networks.driven import Driven, DriverBank, NormCollector
from dubstream.export.networks.fixed_blocks import (
    fixed_picture_norm,
    fixed_same_conv,
    fixed_spectral_conv,
    fixed_stage,
)
from dubstream.export.networks.fourier import FOURIER_SLOPE, FourierBlock, FourierLayer, SpectralTransform
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
                FourierBlock: lambda block, _: FixedFourierBlock(block, collector, fourier[block.channels]),
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


class FixedFourierBlock(nn.Module):
    """`FourierBlock` that keeps local and global channels in one picture."""

    def __init__(self, block: FourierBlock, collector: NormCollector, fourier: Fourier) -> None:
        super().__init__()
        self.layer1 = FixedFourierLayer(block.conv1, collector, fourier)
        self.layer2 = FixedFourierLayer(block.conv2, collector, fourier)

    def forward(self, x: Tensor, driven: Sequence[Driven]) -> Tensor:
        y: Tensor = self.layer2(self.layer1(x, driven), driven) + x
        return y


class FixedFourierLayer(nn.Module):
    """`FourierLayer` with one norm for both kinds of channels, and one convolution towards the local."""

    def __init__(self, layer: FourierLayer, collector: NormCollector, fourier: Fourier) -> None:
        super().__init__()
        conv = layer.ffc
        self.near = conv.convl2l.out_channels
        self.to_near = fixed_conv(torch.cat([conv.convl2l.weight, conv.convg2l.weight], dim=1))
        self.near_to_wide = fixed_conv(conv.convl2g.weight)
        self.wide_to_wide = FixedSpectralTransform(conv.convg2g, fourier)
        self.norm = collector.joint(layer.bn_l, layer.bn_g)

    def forward(self, x: Tensor, driven: Sequence[Driven]) -> Tensor:
        edged = F.pad(x, (1, 1, 1, 1), mode="reflect")
        near = self.to_near(edged)
        wide = self.near_to_wide(edged[:, : self.near]) + self.wide_to_wide(x[:, self.near :])
        return F.leaky_relu(self.norm(torch.cat([near, wide], dim=1), driven), FOURIER_SLOPE)


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
