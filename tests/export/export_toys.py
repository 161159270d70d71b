"""A network small enough to export in a moment, with everything the real ones have: two inputs,
two outputs, a norm's integer buffer, and a deployable form that differs from the plain one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.export.checkpoint import Container
from dubstream.export.networks import NetworkFactory
from dubstream.export.recipes import Recipe

_TIGHT = Tolerance(1e-5, 0.999999, "a few float32 additions")

TOY = NetworkSpec(
    name="toy",
    title="a toy",
    inputs=(
        TensorSpec("image", "float32", (BATCH, 3, 8, 8), 0.0, 1.0, "planes"),
        TensorSpec("driver", "float32", (BATCH, 4), None, None, "numbers"),
    ),
    outputs=(
        TensorSpec("picture", "float32", (BATCH, 5, 8, 8), None, None, "planes"),
        TensorSpec("code", "float32", (BATCH, 5), None, None, "numbers"),
    ),
    max_batch=4,
    tolerances={"picture": _TIGHT, "code": _TIGHT},
    gmacs=0.1,
    checkpoint="Toy.pth",
    licence="none",
)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.mix = nn.Linear(4, 5)

    def forward(self, image: Tensor, driver: Tensor) -> tuple[Tensor, Tensor]:
        picture = self.norm(self.conv(image)) * self.mix(driver)[:, :, None, None]
        return picture, picture.mean((2, 3))


class Deployed(nn.Module):
    """The toy with its batch norm folded; `error` is what a wrong rewrite would add."""

    def __init__(self, plain: Any, error: float = 0.0) -> None:
        super().__init__()
        self.conv = torch.nn.utils.fuse_conv_bn_eval(plain.conv, plain.norm)
        self.mix = plain.mix
        self.error = error

    def forward(self, image: Tensor, driver: Tensor) -> tuple[Tensor, Tensor]:
        picture = self.conv(image) * self.mix(driver)[:, :, None, None]
        return picture, picture.mean((2, 3)) + self.error


class FixedBatch(Deployed):
    """Right at the traced batch only."""

    def forward(self, image: Tensor, driver: Tensor) -> tuple[Tensor, Tensor]:
        picture, code = super().forward(image, driver)
        return picture, code.reshape(2, 5)


def toy_recipe(
    deployable: Any = Deployed, container: Container | None = None, spec: NetworkSpec = TOY
) -> Recipe:
    return Recipe(spec, NetworkFactory(Toy, deployable), container or Container("state_dict", "module."))


def toy_state(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(Toy().state_dict())
