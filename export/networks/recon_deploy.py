"""ReconNet in its deployable form: batch norms inside the convolutions, seven heads as one product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.recon import Backbone, Bottleneck, ReconNet
from dubstream.export.networks.rewrite import Rewriter, constant, merged_batch_norm, twin


class DeployableReconNet(nn.Module):
    """`ReconNet`, ready for export; same input and output."""

    def __init__(self, plain: ReconNet) -> None:
        super().__init__()
        rewrite = Rewriter({Backbone: merged_block, Bottleneck: merged_block, nn.Sequential: merged_pair})
        self.backbone = rewrite(plain.backbone)
        self.heads = Heads(plain.final_layers)

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.heads(self.backbone(image).mean(dim=(2, 3)))
        return y


class Heads(nn.Module):
    """The linear heads as one product, in float32 whatever the features are: (N, 2048) to (N, 257)."""

    def __init__(self, heads: nn.ModuleList) -> None:
        super().__init__()
        self.weight = constant(torch.cat([head.get_parameter("weight") for head in heads]).flatten(1))
        self.bias = constant(torch.cat([head.get_parameter("bias") for head in heads]))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features.float(), self.weight, self.bias)


def merged_block(block: nn.Module, rewrite: Rewriter) -> nn.Module:
    """Rule: every child `bnX` goes into the child `convX`."""
    children = {name: rewrite(child) for name, child in block.named_children()}
    for name, norm in block.named_children():
        if name.startswith("bn"):
            conv = block.get_submodule(name.replace("bn", "conv"))
            assert isinstance(conv, nn.Conv2d)
            children[name.replace("bn", "conv")] = merged_batch_norm(conv, norm)
            children[name] = nn.Identity()
    return twin(block, children)


def merged_pair(layers: nn.Sequential, rewrite: Rewriter) -> nn.Module:
    """Rule: a convolution and a batch norm become one; other sequences stay."""
    if len(layers) == 2 and isinstance(layers[0], nn.Conv2d):
        return merged_batch_norm(layers[0], layers[1])
    return nn.Sequential(*[rewrite(layer) for layer in layers])


def deployable(plain: ReconNet) -> nn.Module:
    """The deployable form of a loaded ReconNet."""
    with torch.no_grad():
        return DeployableReconNet(plain).eval()
