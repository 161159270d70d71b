"""ReconNet in its plain form: 3DMM coefficients from an aligned face (Deng et al. 2019).

A ResNet-50 with the stride on the 3x3 convolutions, without its classifier; seven linear heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = (80, 64, 80, 3, 27, 2, 1)  # id, exp, tex, angle, gamma, tx ty, tz
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, channels inside a block
EXPANSION = 4


class ReconNet(nn.Module):
    """Image (N, 3, 224, 224) to coefficients (N, 257), as `engines.specs.RECON` says."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        width = STAGES[-1][1] * EXPANSION
        self.final_layers = nn.ModuleList(nn.Conv2d(width, head, 1) for head in HEADS)

    def forward(self, image: Tensor) -> Tensor:
        features = self.backbone(image).mean(dim=(2, 3), keepdim=True)
        return torch.cat([head(features) for head in self.final_layers], dim=1).flatten(1)


class Backbone(nn.Module):
    """Image to features (N, 2048, 7, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        entering = 64
        for index, (blocks, inside) in enumerate(STAGES, start=1):
            stride = 1 if index == 1 else 2
            stage = [Bottleneck(entering, inside, stride)]
            entering = inside * EXPANSION
            stage += [Bottleneck(entering, inside, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{index}", nn.Sequential(*stage))

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        for index in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{index}")(x)
        return x


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norms; the shortcut is convolved when shapes differ."""

    def __init__(self, entering: int, inside: int, stride: int) -> None:
        super().__init__()
        leaving = inside * EXPANSION
        self.conv1 = nn.Conv2d(entering, inside, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, leaving, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(leaving)
        self.downsample: nn.Module | None = None
        if stride != 1 or entering != leaving:
            conv = nn.Conv2d(entering, leaving, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))
