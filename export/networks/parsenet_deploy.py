"""ParseNet in its deployable form: batch norms inside convolutions, no reconstruction, masks at the end.

Doubling by repetition is part of the convolution after it (`fixed_blocks.DoublingConv`). What the
pipeline needs of 19 logits per pixel (20 MB a face) is computed behind them: two probabilities, the class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.fixed_blocks import DoublingConv, interleave
from dubstream.export.networks.parsenet import (
    CLASSES,
    FACE,
    MOUTH,
    SLOPE,
    ConvLayer,
    ParseNet,
    ResidualBlock,
)
from dubstream.export.networks.rewrite import Rewriter, fixed_conv, folded_batch_norm, twin


class DeployableParseNet(nn.Module):
    """`ParseNet`, ready for export; same input and outputs."""

    def __init__(self, plain: ParseNet) -> None:
        super().__init__()
        rewrite = Rewriter({ConvLayer: FixedConvLayer, ResidualBlock: _twin})
        self.encoder = rewrite(plain.encoder)
        self.body = Body(rewrite(plain.body))
        self.decoder = rewrite(plain.decoder)
        self.head = rewrite(plain.out_mask_conv)
        self.masks = Masks()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(image)
        return self.masks(logits), logits.argmax(dim=1).to(torch.uint8)

    def logits(self, image: Tensor) -> Tensor:
        """Logits (N, 19, 512, 512) of the classes."""
        y: Tensor = self.head(self.decoder(self.body(self.encoder(image))))
        return y


def _twin(block: nn.Module, rewrite: Rewriter) -> nn.Module:
    return twin(block, {name: rewrite(child) for name, child in block.named_children()})


class Body(nn.Module):
    """The residual blocks between encoder and decoder, and what passes them by; in float32 in any case.

    (N, 256, 32, 32) to the same, in the type of the input.
    """

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        y: Tensor = wide + self.blocks(wide)
        return y.to(x.dtype)


class Masks(nn.Module):
    """Logits (N, 19, H, W) to the probabilities of face and mouth (N, 2, H, W), in float32 in any case."""

    def __init__(self) -> None:
        super().__init__()
        members = torch.ones(3, CLASSES, 1, 1)
        for row, classes in enumerate((FACE, MOUTH)):
            members[row] = 0.0
            members[row, list(classes)] = 1.0
        self.sums = fixed_conv(members)

    def forward(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        # The largest is taken off first: the sum of all is between 1 and 19.
        weights = torch.exp(logits - logits.amax(dim=1, keepdim=True))
        sums = self.sums(weights)
        y: Tensor = sums[:, :2] / sums[:, 2:]
        return y


class FixedConvLayer(nn.Module):
    """`ConvLayer` as one convolution."""

    def __init__(self, layer: ConvLayer, _: Rewriter) -> None:
        super().__init__()
        self.enlarge, self.activate = layer.scale == "up", layer.activate
        weight, bias = layer.conv2d.weight, layer.conv2d.bias
        if layer.norm is not None:
            weight, bias = folded_batch_norm(weight, bias, layer.norm.norm)
        stride = layer.conv2d.stride[0]
        conv = fixed_conv(weight, bias, stride=(stride, stride))
        self.conv = MirroredDoublingConv(conv) if self.enlarge else conv

    def forward(self, x: Tensor) -> Tensor:
        if not self.enlarge:
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        x = self.conv(x)
        return F.leaky_relu(x, SLOPE) if self.activate else x


class MirroredDoublingConv(DoublingConv):
    """`DoublingConv` over a mirrored border: the doubled picture's second row is its first pixel again."""

    def forward(self, x: Tensor) -> Tensor:
        phases = []
        for index, weight in enumerate(self.weights):
            row, column = divmod(index, 2)
            padded = F.pad(x, (1 - column, column, 1 - row, row), mode="replicate")
            phases.append(F.conv2d(padded, weight, self.bias))
        return interleave(phases)


def deployable(plain: ParseNet) -> nn.Module:
    """The deployable form of a loaded ParseNet."""
    with torch.no_grad():
        return DeployableParseNet(plain).eval()
