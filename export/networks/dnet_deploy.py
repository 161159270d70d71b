"""D-Net in its deployable form.

Differences from the plain one: the dead half of every editing block is gone; scales and shifts of the
driven norms come from one `DriverBank`; doubling by repetition is part of the convolution after it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubstream.export.networks.blocks import AdaIN, ConvStage, PictureNorm
from dubstream.export.networks.dnet import DNet, EditingBlock, warp
from dubstream.export.networks.driven import Driven, DriverBank, NormCollector
from dubstream.export.networks.fixed_blocks import fixed_picture_norm, fixed_same_conv, fixed_stage
from dubstream.export.networks.rewrite import Rewriter, twin


class DeployableDNet(nn.Module):
    """`DNet`, ready for export; same inputs and outputs."""

    def __init__(self, plain: DNet) -> None:
        super().__init__()
        collector = NormCollector()
        rewrite = Rewriter(
            {
                AdaIN: collector,
                nn.Conv2d: fixed_same_conv,
                nn.ConvTranspose2d: TransposedConv,
                PictureNorm: fixed_picture_norm,
                ConvStage: fixed_stage,
                EditingBlock: LiveEditingBlock,
            }
        )
        self.mapping = rewrite(plain.mapping_net)
        self.warping = rewrite(plain.warpping_net)
        self.warp = Warp()
        self.editing = rewrite(plain.editing_net)
        self.bank = DriverBank(collector.norms)

    def forward(self, image: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # The mapping, a thousandth of the work, is float32 whatever the rest is: so are its inputs.
        driven = self.bank(self.mapping(coefficients).to(image.dtype))
        flow = self.warping(image, driven)
        warped = self.warp(image, flow)
        return self.editing(image, warped, driven), warped, flow


class Warp(nn.Module):
    """`warp`, in float32 whatever its inputs are; the result has the picture's type."""

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        return warp(image.float(), flow.float()).to(image.dtype)


class TransposedConv(nn.Module):
    """A transposed convolution in the type of its weights, whatever the picture's is."""

    def __init__(self, conv: nn.ConvTranspose2d, _: Rewriter) -> None:
        super().__init__()
        self.conv = twin(conv, {})

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.to(self.conv.weight.dtype))
        return y.to(x.dtype)


class LiveEditingBlock(nn.Module):
    """The half of `EditingBlock` that reaches the output."""

    def __init__(self, block: EditingBlock, rewrite: Rewriter) -> None:
        super().__init__()
        self.conv = rewrite(block.conv2)
        self.norm = rewrite(block.norm2)

    def forward(self, x: Tensor, driven: list[Driven]) -> Tensor:
        y: Tensor = self.norm(self.conv(x), driven) + x
        return y


def deployable(plain: DNet) -> nn.Module:
    """The deployable form of a loaded D-Net."""
    with torch.no_grad():
        return DeployableDNet(plain).eval()
