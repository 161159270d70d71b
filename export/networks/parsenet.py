"""ParseNet in its plain form: which of 19 parts of a face every pixel belongs to."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
CLASSES = 19
FACE = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12)  # skin, nose, glasses, eyes, brows, mouth, lips; no ears, neck, hair
MOUTH = (10, 11, 12)  # mouth, upper lip, lower lip
ENCODER = (64, 128, 256, 256, 256)  # channels at 512, 256, ... 32
BODY_BLOCKS = 10


class ParseNet(nn.Module):
    """Face (N, 3, 512, 512) to masks (N, 2, 512, 512) and classes (N, 512, 512) uint8.

    The masks are the probabilities that a pixel belongs to the face (`FACE`) and to the mouth (`MOUTH`);
    the class is the most probable one. What the original returns is in `logits`.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(ENCODER))
        first = ConvLayer(3, ENCODER[0], bias=True)
        self.encoder = nn.Sequential(first, *[ResidualBlock(*pair, "down") for pair in pairs])
        width = ENCODER[-1]
        self.body = nn.Sequential(*[ResidualBlock(width, width) for _ in range(BODY_BLOCKS)])
        self.decoder = nn.Sequential(*[ResidualBlock(coarse, fine, "up") for fine, coarse in reversed(pairs)])
        self.out_img_conv = ConvLayer(ENCODER[0], 3, bias=True)
        self.out_mask_conv = ConvLayer(ENCODER[0], CLASSES, bias=True)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, _ = self.logits(image)
        probability = logits.softmax(dim=1)
        masks = [probability[:, list(classes)].sum(dim=1) for classes in (FACE, MOUTH)]
        return torch.stack(masks, dim=1), logits.argmax(dim=1).to(torch.uint8)

    def logits(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Face to logits (N, 19, 512, 512) of the classes, and a reconstruction that nobody needs."""
        x = self.encoder(image)
        x = self.decoder(x + self.body(x))
        return self.out_mask_conv(x), self.out_img_conv(x)


class ConvLayer(nn.Module):
    """A 3x3 convolution over a mirrored border, with an optional norm and LeakyReLU.

    Args:
        channels_in, channels_out: of the convolution.
        bias: whether it has one.
        norm, activate: whether a batch norm, a LeakyReLU follows.
        scale: "up" for doubling by repetition before, "down" for a stride of two, "none".
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        scale: str = "none",
        *,
        bias: bool = False,
        norm: bool = False,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.scale, self.activate = scale, activate
        stride = 2 if scale == "down" else 1
        self.conv2d = nn.Conv2d(channels_in, channels_out, 3, stride=stride, bias=bias)
        self.norm = WrappedNorm(channels_out) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == "up":
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        if self.norm is not None:
            x = self.norm(x)
        return F.leaky_relu(x, SLOPE) if self.activate else x


class WrappedNorm(nn.Module):
    """A batch norm one name deeper, as the public file has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, convolved where size or channels change; no activation at the end."""

    def __init__(self, channels_in: int, channels_out: int, scale: str = "none") -> None:
        super().__init__()
        same = scale == "none" and channels_in == channels_out
        self.shortcut_func = nn.Identity() if same else ConvLayer(channels_in, channels_out, scale, bias=True)
        first, second = (scale, "none") if scale == "up" else ("none", scale)
        self.conv1 = ConvLayer(channels_in, channels_out, first, norm=True, activate=True)
        self.conv2 = ConvLayer(channels_out, channels_out, second, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shortcut_func(x) + self.conv2(self.conv1(x))
        return y
