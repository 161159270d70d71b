"""S3FD in its deployable form: one head per map, priors as constants, one decoding for all maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubstream.export.networks.rewrite import Rewriter, fixed_conv
from dubstream.export.networks.s3fd import (
    CENTRE_VARIANCE,
    FIRST_STRIDE,
    NORM_EPSILON,
    PRIOR_STRIDES,
    S3FD,
    SIZE_VARIANCE,
    SOURCES,
    L2Norm,
    background_first,
    features,
)


class DeployableS3FD(nn.Module):
    """`S3FD`, ready for export; same input and outputs, any size (a file has the traced one)."""

    def __init__(self, plain: S3FD) -> None:
        super().__init__()
        copied = Rewriter({})
        self.trunk = nn.ModuleDict(
            {
                name: copied(child)
                for name, child in plain.named_children()
                if isinstance(child, nn.Conv2d) and "mbox" not in name
            }
        )
        self.norm = UnitLength()
        self.heads = nn.ModuleList(_head(plain, name) for name, _ in SOURCES)
        self.decode = Decode()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = self.decode(self.heads_of(image))
        return boxes, scores

    def maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """As `S3FD.maps`."""
        split = [(background_first(found[:, :-4]), found[:, -4:]) for found in self.heads_of(image)]
        return tuple(part for pair in split for part in pair)

    def heads_of(self, image: Tensor) -> list[Tensor]:
        """Class logits and, in the last four channels, regressions of each map."""
        sources = features(self.trunk, image)
        ready = [self.norm(source) for source in sources[:3]] + sources[3:]
        return [head(source) for head, source in zip(self.heads, ready, strict=True)]


class UnitLength(nn.Module):
    """`L2Norm` without its weight, which is in the head behind it; float32 whatever the input is."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        length = wide.square().sum(dim=1, keepdim=True).sqrt()
        return (wide / (length + NORM_EPSILON)).to(x.dtype)


class Decode(nn.Module):
    """The heads' maps to boxes (N, A, 4) and scores (N, A), float32 whatever the maps are."""

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        wide = [found.float() for found in maps]
        change = torch.cat([found[:, -4:].flatten(2) for found in wide], dim=2).transpose(1, 2)
        margin = torch.cat([_margin(found[:, :-4]) for found in wide], dim=1)
        middle, side = priors([tuple(found.shape[2:]) for found in maps], change.device)
        centre = middle + change[..., :2] * (CENTRE_VARIANCE * side)
        half = torch.exp(SIZE_VARIANCE * change[..., 2:]) * (side / 2)
        return torch.cat([centre - half, centre + half], dim=-1), torch.sigmoid(margin)


def priors(sizes: list[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres (A, 2), x y, and sides (A, 1) of the priors of maps of the given heights and widths; pixels."""
    middles, sides = [], []
    for level, (height, width) in enumerate(sizes):
        stride = float(FIRST_STRIDE << level)
        y = ((torch.arange(height, device=device) + 0.5) * stride)[:, None].expand(height, width)
        x = ((torch.arange(width, device=device) + 0.5) * stride)[None].expand(height, width)
        middles.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
        sides.append(torch.full((height * width, 1), PRIOR_STRIDES * stride, device=device))
    return torch.cat(middles), torch.cat(sides)


def _margin(logits: Tensor) -> Tensor:
    """By how much the face's logit exceeds the background's, (N, h * w): a softmax of two is its sigmoid."""
    two = background_first(logits)
    return (two[:, 1] - two[:, 0]).flatten(1)


def _head(plain: S3FD, name: str) -> nn.Conv2d:
    """Class and box head of one map as one convolution, with the weights of the norm before it."""
    parts = [plain.get_submodule(f"{name}_mbox_{kind}") for kind in ("conf", "loc")]
    weight = torch.cat([part.get_parameter("weight") for part in parts])
    bias = torch.cat([part.get_parameter("bias") for part in parts])
    if name.endswith("norm"):
        norm = plain.get_submodule(name)
        assert isinstance(norm, L2Norm)
        weight = (weight.double() * norm.weight.double()[:, None, None]).float()
    return fixed_conv(weight, bias, padding=1)


def deployable(plain: S3FD) -> nn.Module:
    """The deployable form of a loaded S3FD."""
    with torch.no_grad():
        return DeployableS3FD(plain).eval()
