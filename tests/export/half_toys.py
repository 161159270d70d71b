"""A picture network small enough to export in a moment: a convolution and a norm that sums squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.export.checkpoint import Container
from dubstream.export.networks import NetworkFactory
from dubstream.export.pictures import PictureNetwork, clamped, planes, shown
from dubstream.export.precision import Island, PrecisionRecipe
from dubstream.export.recipes import HalfForm, Recipe

SIDE = 8
LOUD = 100.0  # squares of numbers up to this, summed over a picture, leave float16


def spec(dtype: str) -> NetworkSpec:
    shape: tuple[int | str, ...] = (BATCH, SIDE, SIDE, 3) if dtype == "uint8" else (BATCH, 3, SIDE, SIDE)
    high = 255.0 if dtype == "uint8" else 1.0
    tolerance = Tolerance(2.0, 0.9999, "a toy", relative_l2=1e-2, psnr=50.0)
    return NetworkSpec(
        name="halftoy", title="a toy",
        inputs=(TensorSpec("image", dtype, shape, 0.0, high, "pixels"),),
        outputs=(TensorSpec("shown", dtype, shape, 0.0, high, "pixels"),),
        max_batch=4, tolerances={"shown": tolerance}, gmacs=0.1, checkpoint="HalfToy.pth", licence="none",
    )  # fmt: skip


class Norm(nn.Module):
    """Scales a picture to a norm of 300 times `gain`, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (normalised(wide) * self.gain[:, None, None]).to(x.dtype)


class BareNorm(Norm):
    """The same without its casts: what a recipe with a forgotten island looks like."""

    def forward(self, x: Tensor) -> Tensor:
        return normalised(x) * self.gain[:, None, None]


class Shaky(nn.Module):
    """Loses digits in half precision, without large numbers: adds 200 and takes it away again."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 200.0) - 200.0


def normalised(x: Tensor) -> Tensor:
    loud = x * LOUD
    energy = (loud * loud).sum((1, 2, 3), keepdim=True)
    return loud * torch.rsqrt(energy) * 300.0


class HalfToy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = Norm()
        self.last = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.conv(image)))
        return y


class ToyPictures(PictureNetwork):
    def levels(self, image: Tensor) -> Tensor:
        return clamped(self.core(planes(image, self.dtype) / 255) * 255)

    def forward(self, image: Tensor) -> Tensor:
        return shown(self.levels(image))


RECIPE = PrecisionRecipe("toy-fp16", 3, "fp16", "float16", 3e4, 20, (Island("Norm", "sums squares"),))


def unchanged(plain: Any) -> nn.Module:
    """Deployable form: a twin with tensors of its own."""
    twin = HalfToy().eval().requires_grad_(False)
    twin.load_state_dict(plain.state_dict())
    return twin


def with_bare_norm(plain: Any) -> nn.Module:
    """Deployable form whose norm does not cast."""
    twin = unchanged(plain)
    twin.norm.__class__ = BareNorm
    return twin


def with_shaky_end(plain: Any) -> nn.Module:
    """Deployable form with a module that loses digits."""
    twin: Any = unchanged(plain)
    twin.last.insert(1, Shaky())
    return twin


def real() -> dict[str, Any]:
    draw = np.random.default_rng(5)
    return {"image": draw.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)}


def toy_recipe(
    deployable: Callable[[Any], nn.Module] = unchanged, numbers: PrecisionRecipe = RECIPE
) -> Recipe:
    form = HalfForm(spec("uint8"), numbers, ToyPictures, real)
    brief = replace(numbers, precision="bf16", dtype="bfloat16", opset=22)
    return Recipe(
        spec("float32"),
        NetworkFactory(HalfToy, deployable),
        Container("state_dict"),
        {"fp16": form, "bf16": replace(form, recipe=brief)},
    )
