"""FAN-4 in its plain form: heat maps of 68 face landmarks (Bulat and Tzimiropoulos 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STACKS = 4  # hourglasses, each corrects the one before
DEPTH = 4  # halvings inside an hourglass
WIDTH = 256
POINTS = 68


class FAN(nn.Module):
    """Image (N, 3, 256, 256) to heat maps (N, 68, 64, 64), as `engines.face_specs.FAN4` says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = PreActivation(64, 128)
        self.conv3 = PreActivation(128, 128)
        self.conv4 = PreActivation(128, WIDTH)
        for stack in range(STACKS):
            self.add_module(f"m{stack}", Hourglass())
            self.add_module(f"top_m_{stack}", PreActivation(WIDTH, WIDTH))
            self.add_module(f"conv_last{stack}", nn.Conv2d(WIDTH, WIDTH, 1))
            self.add_module(f"bn_end{stack}", nn.BatchNorm2d(WIDTH))
            self.add_module(f"l{stack}", nn.Conv2d(WIDTH, POINTS, 1))
            if stack < STACKS - 1:
                self.add_module(f"bl{stack}", nn.Conv2d(WIDTH, WIDTH, 1))
                self.add_module(f"al{stack}", nn.Conv2d(POINTS, WIDTH, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(image)))
        x = self.conv4(self.conv3(F.avg_pool2d(self.conv2(x), 2)))
        for stack in range(STACKS):

            def part(name: str, value: Tensor, stack: int = stack) -> Tensor:
                out: Tensor = self.get_submodule(f"{name}{stack}")(value)
                return out

            y = F.relu(part("bn_end", part("conv_last", part("top_m_", part("m", x)))))
            heatmaps = part("l", y)
            if stack < STACKS - 1:
                x = x + part("bl", y) + part("al", heatmaps)
        return heatmaps


class Hourglass(nn.Module):
    """(N, 256, h, w) to the same: four times halved and doubled, with a way around each."""

    def __init__(self) -> None:
        super().__init__()
        for level in range(DEPTH, 0, -1):
            self.add_module(f"b1_{level}", PreActivation(WIDTH, WIDTH))
            self.add_module(f"b2_{level}", PreActivation(WIDTH, WIDTH))
        self.b2_plus_1 = PreActivation(WIDTH, WIDTH)
        for level in range(1, DEPTH + 1):
            self.add_module(f"b3_{level}", PreActivation(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.level(DEPTH, x)

    def level(self, level: int, x: Tensor) -> Tensor:
        """The hourglass from the `level`-th halving on."""
        around = self.get_submodule(f"b1_{level}")(x)
        low = self.get_submodule(f"b2_{level}")(F.avg_pool2d(x, 2))
        low = self.level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        low = self.get_submodule(f"b3_{level}")(low)
        up: Tensor = around + F.interpolate(low, scale_factor=2, mode="nearest")
        return up


class PreActivation(nn.Module):
    """Three 3x3 convolutions in a row, norms before them; their results side by side, plus the input."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        half, quarter = leaving // 2, leaving // 4
        self.bn1 = nn.BatchNorm2d(entering)
        self.conv1 = nn.Conv2d(entering, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample: nn.Module | None = None
        if entering != leaving:
            conv = nn.Conv2d(entering, leaving, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(entering), nn.ReLU(), conv)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.cat([first, second, third], dim=1) + shortcut
