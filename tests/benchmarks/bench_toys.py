"""A small real network in PyTorch and as an artifact, and peaks that take no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dubstream.benchmarks.bench.method.rounds import Stop
from dubstream.benchmarks.bench.networks.options import BenchOptions
from dubstream.benchmarks.bench.networks.peaks import PeakSizes
from dubstream.engines.artifact import Artifact
from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.specs import RECON
from dubstream.export.checkpoint import Container
from dubstream.export.command import export_networks
from dubstream.export.networks import NetworkFactory
from dubstream.export.recipes import Recipe
from dubstream.export.seeded import AUXILIARY

TINY = PeakSizes(channels=8, side=16, matmul=32, copy=1 << 12, batch=1)

SPEC = NetworkSpec(
    name="recon",  # options know the project's names only
    title="a toy",
    inputs=(TensorSpec("image", "float32", (BATCH, 3, 16, 16), 0.0, 1.0, "planes"),),
    outputs=(TensorSpec("coeffs", "float32", (BATCH, 7), None, None, "numbers"),),
    max_batch=4,
    tolerances={"coeffs": Tolerance(1e-5, 0.999999, "a few float32 additions")},
    gmacs=0.001,
    checkpoint=RECON.checkpoint,
    licence="none",
)


class Toy(nn.Module):
    """A convolution, its norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 7)

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.norm(self.first(image))).mean((2, 3)))
        return y


class Deployed(nn.Module):
    """The same with its norm folded."""

    def __init__(self, plain: Toy) -> None:
        super().__init__()
        self.first = torch.nn.utils.fuse_conv_bn_eval(plain.first, plain.norm)
        self.last = plain.last

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.first(image)).mean((2, 3)))
        return y


RECIPE = Recipe(SPEC, NetworkFactory(Toy, Deployed, AUXILIARY), Container("net_recon"))


def export_toy(folder: Path) -> Artifact:
    """The toy with seeded weights, exported and verified."""
    (made,) = export_networks(
        [], checkpoints=None, weights="seeded", artifacts=folder, threads=1, recipes={"recon": RECIPE}
    )
    return made


def options(**changed: object) -> BenchOptions:
    """One thread, few rounds, no processes."""
    plain = BenchOptions(networks=("recon",), batches=(1, 3), threads=1, stop=Stop(5), first_calls=False)
    return replace(plain, **changed)  # type: ignore[arg-type]
