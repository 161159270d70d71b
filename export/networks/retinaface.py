"""RetinaFace with a ResNet-50 in its plain form: face boxes with five points (Deng et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.recon import Backbone

STRIDES = (8, 16, 32)  # pixels per cell of the three maps
SIDES = ((16, 32), (64, 128), (256, 512))  # pixels, the priors of a cell, by map
CHANNELS = (512, 1024, 2048)  # of the backbone's last three stages
INSIDE = 256
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


class RetinaFace(nn.Module):
    """Image (N, 3, H, W) to boxes, scores and points, as `engines.face_specs.retinaface_spec` says."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.fpn = Pyramid()
        for level in (1, 2, 3):
            self.add_module(f"ssh{level}", Context())
        self.ClassHead = nn.ModuleList(Head(2) for _ in STRIDES)
        self.BboxHead = nn.ModuleList(Head(4) for _ in STRIDES)
        self.LandmarkHead = nn.ModuleList(Head(10) for _ in STRIDES)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        changes, probabilities, shifts = self.regressions(image)
        middle, side = priors(image.shape[2], image.shape[3], image.device)
        centre = middle + CENTRE_VARIANCE * changes[..., :2] * side
        size = side * torch.exp(SIZE_VARIANCE * changes[..., 2:])
        corner = centre - size / 2
        points = middle[:, None] + CENTRE_VARIANCE * torch.unflatten(shifts, 2, (5, 2)) * side[:, None]
        return torch.cat([corner, corner + size], dim=-1), probabilities[..., 1], points

    def regressions(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Box changes (N, A, 4), probabilities of background and face (N, A, 2), point shifts (N, A, 10)."""
        maps = self.fpn(self.body(image))
        maps = [self.get_submodule(f"ssh{level}")(found) for level, found in enumerate(maps, start=1)]
        boxes, logits, points = (
            torch.cat([head(found) for head, found in zip(heads, maps, strict=True)], dim=1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return boxes, torch.softmax(logits, dim=-1), points


class Body(Backbone):
    """Image to the maps of the last three stages of a ResNet-50, at strides 8, 16 and 32."""

    def forward(self, image: Tensor) -> list[Tensor]:  # type: ignore[override]  # all maps, not the last one
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        x = self.get_submodule("layer1")(x)
        maps = []
        for index in (2, 3, 4):
            x = self.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Three maps to three of 256 channels, each with what the coarser ones know."""

    def __init__(self) -> None:
        super().__init__()
        for level, channels in enumerate(CHANNELS, start=1):
            self.add_module(f"output{level}", conv_norm_relu(channels, INSIDE, 1))
        self.merge1 = conv_norm_relu(INSIDE, INSIDE, 3)
        self.merge2 = conv_norm_relu(INSIDE, INSIDE, 3)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (
            self.get_submodule(f"output{level}")(x) for level, x in enumerate(maps, start=1)
        )
        middle = self.merge2(middle + enlarged(coarse, middle))
        fine = self.merge1(fine + enlarged(middle, fine))
        return [fine, middle, coarse]


def enlarged(coarse: Tensor, fine: Tensor) -> Tensor:
    """`coarse` at the height and width of `fine`, by repetition."""
    rows, columns = fine.shape[2:]
    if (rows, columns) == (2 * coarse.shape[2], 2 * coarse.shape[3]):
        return F.interpolate(coarse, scale_factor=2, mode="nearest")  # no sizes to compute in the graph
    return F.interpolate(coarse, size=(rows, columns), mode="nearest")


class Context(nn.Module):
    """Three receptive fields side by side (Najibi et al. 2017); the names are the checkpoint's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3X3 = conv_norm(INSIDE, INSIDE // 2, 3)
        self.conv5X5_1 = conv_norm_relu(INSIDE, INSIDE // 4, 3)
        self.conv5X5_2 = conv_norm(INSIDE // 4, INSIDE // 4, 3)
        self.conv7X7_2 = conv_norm_relu(INSIDE // 4, INSIDE // 4, 3)
        self.conv7x7_3 = conv_norm(INSIDE // 4, INSIDE // 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        near = self.conv5X5_1(x)
        fields = (self.conv3X3(x), self.conv5X5_2(near), self.conv7x7_3(self.conv7X7_2(near)))
        return F.relu(torch.cat(fields, dim=1))


class Head(nn.Module):
    """A map (N, 256, h, w) to `numbers` per prior, (N, h * w * 2, numbers): rows, columns, then sides."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(INSIDE, 2 * numbers, 1)

    def forward(self, x: Tensor) -> Tensor:
        return by_prior(self.conv1x1(x))


def by_prior(maps: Tensor) -> Tensor:
    """Maps (N, 2 * numbers, h, w) to (N, h * w * 2, numbers), the two sides of a cell one after the other."""
    return torch.unflatten(maps.permute(0, 2, 3, 1), 3, (2, -1)).flatten(1, 3)


def conv_norm(entering: int, leaving: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the size, and its batch norm."""
    conv = nn.Conv2d(entering, leaving, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(leaving))


def conv_norm_relu(entering: int, leaving: int, kernel: int) -> nn.Sequential:
    """`conv_norm` and a ReLU (a leaky one in the original, of slope 0 at these widths)."""
    return nn.Sequential(*conv_norm(entering, leaving, kernel), nn.ReLU())


def priors(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres (A, 2), x y, and sides (A, 1) of the priors of a picture; pixels.

    The original divides both by the picture's size and multiplies the result with it again.
    """
    middles, sides = [], []
    for stride, pair in zip(STRIDES, SIDES, strict=True):
        rows, columns = -(-height // stride), -(-width // stride)
        y = ((torch.arange(rows, device=device) + 0.5) * stride)[:, None, None].expand(rows, columns, 2)
        x = ((torch.arange(columns, device=device) + 0.5) * stride)[None, :, None].expand(rows, columns, 2)
        middles.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
        both = torch.tensor(pair, dtype=torch.float32, device=device)
        sides.append(both.repeat(rows * columns)[:, None])
    return torch.cat(middles), torch.cat(sides)
