"""S3FD in its plain form: face boxes at six scales (Zhang et al. 2017, as python-fan distributes it).

A VGG-16 whose last maps go on shrinking; every one of six maps has a class head and a box head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, channels of conv1_* to conv5_*
NORMED = (("conv3_3_norm", 256), ("conv4_3_norm", 512), ("conv5_3_norm", 512))
SOURCES = (*NORMED, ("fc7", 1024), ("conv6_2", 512), ("conv7_2", 256))  # of the heads, with channels
LOGITS = (4, 2, 2, 2, 2, 2)  # channels of the class heads, the finest map first
FIRST_STRIDE = 4  # pixels; doubles from map to map
PRIOR_STRIDES = 4  # a prior is a square this many strides wide
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
NORM_EPSILON = 1e-10


class S3FD(nn.Module):
    """Image (N, 3, H, W) to boxes (N, A, 4) and scores (N, A), as `engines.face_specs.s3fd_spec` says."""

    def __init__(self) -> None:
        super().__init__()
        entering = 3
        for stage, (convs, channels) in enumerate(STAGES, start=1):
            for index in range(1, convs + 1):
                self.add_module(f"conv{stage}_{index}", nn.Conv2d(entering, channels, 3, padding=1))
                entering = channels
        # Padding 3 where 1 would keep the size: this map and those after it are larger than their strides
        # suggest. The trained weights expect priors that are not shifted for it.
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=3)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.conv6_1 = nn.Conv2d(1024, 256, 1)
        self.conv6_2 = nn.Conv2d(256, 512, 3, stride=2, padding=1)
        self.conv7_1 = nn.Conv2d(512, 128, 1)
        self.conv7_2 = nn.Conv2d(128, 256, 3, stride=2, padding=1)
        for name, channels in NORMED:
            self.add_module(name, L2Norm(channels))
        for (name, channels), logits in zip(SOURCES, LOGITS, strict=True):
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels, logits, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(image)
        levels = [decoded(maps[at], maps[at + 1], FIRST_STRIDE << at // 2) for at in range(0, len(maps), 2)]
        return torch.cat([boxes for boxes, _ in levels], 1), torch.cat([scores for _, scores in levels], 1)

    def maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """Class logits (N, 2, h, w) and regressions (N, 4, h, w) by turns, the finest map first."""
        found: list[Tensor] = []
        for (name, _), source in zip(SOURCES, features(self, image), strict=True):
            normed = self.get_submodule(name)(source) if name.endswith("norm") else source
            logits = self.get_submodule(f"{name}_mbox_conf")(normed)
            found += [background_first(logits), self.get_submodule(f"{name}_mbox_loc")(normed)]
        return tuple(found)


class L2Norm(nn.Module):
    """Every pixel's channels scaled to length 1, then by a weight per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().sum(dim=1, keepdim=True).sqrt() + NORM_EPSILON) * self.weight[:, None, None]


def features(network: nn.Module, image: Tensor) -> list[Tensor]:
    """The six maps the heads look at, before any norm, by the convolutions of `network`."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.relu(network.get_submodule(name)(x))

    kept, x = [], image
    for stage, (convs, _) in enumerate(STAGES, start=1):
        for index in range(1, convs + 1):
            x = conv(f"conv{stage}_{index}", x)
        if stage >= 3:
            kept.append(x)
        x = F.max_pool2d(x, 2)
    kept.append(conv("fc7", conv("fc6", x)))
    kept.append(conv("conv6_2", conv("conv6_1", kept[-1])))
    kept.append(conv("conv7_2", conv("conv7_1", kept[-1])))
    return kept


def background_first(logits: Tensor) -> Tensor:
    """Class logits (N, 2, h, w); of four channels the first three are backgrounds, the largest counts."""
    if logits.shape[1] == 2:
        return logits
    return torch.cat([logits[:, :3].amax(dim=1, keepdim=True), logits[:, 3:]], dim=1)


def decoded(logits: Tensor, regressions: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """One level's boxes (N, h * w, 4), x1 y1 x2 y2 in pixels, and face probabilities (N, h * w)."""
    scores = torch.softmax(logits, dim=1)[:, 1].flatten(1)
    sides = (torch.arange(side, device=logits.device) for side in logits.shape[2:])
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    middle = torch.stack([columns, rows], dim=-1).reshape(-1, 2) * float(stride) + stride / 2
    change = regressions.flatten(2).transpose(1, 2)
    prior = float(PRIOR_STRIDES * stride)
    centre = middle + CENTRE_VARIANCE * change[..., :2] * prior
    size = prior * torch.exp(SIZE_VARIANCE * change[..., 2:])
    corner = centre - size / 2
    return torch.cat([corner, corner + size], dim=-1), scores
