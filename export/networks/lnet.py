"""L-Net in its plain form: draws the mouth that the sound asks for (paper section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.attention import CrossTransformer
from dubstream.export.networks.blocks import ConvStage, PyramidDecoder, ResidualChain, SpectralConv2d
from dubstream.export.networks.fourier import FourierBlock

SOUND = 512  # length of the vector that drives the decoder
BLOCKS = 9  # Fourier blocks per level


class LNet(nn.Module):
    """Mel window and faces to lips, shapes as `engines.specs.LNET` says."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = FaceEncoder()
        widths = [(128, 64), (256, 128), (1024, 256)]
        self.decoder = PyramidDecoder(widths, _chain, SpectralConv2d, nn.Sigmoid())
        self.audio_encoder = sound_encoder()

    def forward(self, mel: Tensor, faces: Tensor) -> Tensor:
        pyramid = self.encoder(faces[:, :3], faces[:, 3:])
        lips: Tensor = self.decoder(pyramid, self.audio_encoder(mel))
        return lips


def _chain(channels: int) -> ResidualChain:
    return ResidualChain([FourierBlock(channels, SOUND) for _ in range(BLOCKS)])


class FaceEncoder(nn.Module):
    """Two parallel pyramids, target face and reference; the face attends to the reference at 12 pixels.

    Returns the face's features at 96, 48 and 24 pixels and, at 12, face and reference together.
    """

    WIDTHS = (64, 128, 256, 512)

    def __init__(self) -> None:
        super().__init__()
        first = self.WIDTHS[0]
        self.first_inp = ConvStage(SpectralConv2d(3, first, 7), first)
        self.first_ref = ConvStage(SpectralConv2d(3, first, 7), first)
        for level, (entering, leaving) in enumerate(zip(self.WIDTHS, self.WIDTHS[1:], strict=False)):
            for side in ("inp", "ref"):
                stage = ConvStage(SpectralConv2d(entering, leaving, 3), leaving, halve=True)
                self.add_module(f"{side}_down{level}", stage)
        self.ca2 = CrossTransformer(self.WIDTHS[-1], depth=2, heads=4, head_width=64, hidden=256)

    def forward(self, face: Tensor, reference: Tensor) -> list[Tensor]:
        face, reference = self.first_inp(face), self.first_ref(reference)
        pyramid = [face]
        for level in range(len(self.WIDTHS) - 1):
            face = self.get_submodule(f"inp_down{level}")(face)
            reference = self.get_submodule(f"ref_down{level}")(reference)
            pyramid.append(face)
        pyramid[-1] = torch.cat([self.ca2(face, reference), reference], dim=1)
        return pyramid


class SoundConv(nn.Module):
    """Convolution and batch norm, optionally with a shortcut, then ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(channels_out))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_block(x)
        return F.relu(y + x if self.residual else y)


def sound_encoder() -> nn.Sequential:
    """Mel window (N, 1, 80, 16) to sound vector (N, 512, 1, 1)."""
    return nn.Sequential(
        SoundConv(1, 32),
        SoundConv(32, 32, residual=True),
        SoundConv(32, 32, residual=True),
        SoundConv(32, 64, stride=(3, 1)),
        SoundConv(64, 64, residual=True),
        SoundConv(64, 64, residual=True),
        SoundConv(64, 128, stride=3),
        SoundConv(128, 128, residual=True),
        SoundConv(128, 128, residual=True),
        SoundConv(128, 256, stride=(3, 2)),
        SoundConv(256, 256, residual=True),
        SoundConv(256, 512, padding=0),
        SoundConv(512, SOUND, kernel=1, padding=0),
    )
