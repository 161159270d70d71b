"""Exported toys and their chains, for the tests of `dubstream verify`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import half_toys
import numpy as np
import onnx
from onnx import numpy_helper

from dubstream.engines.artifact import artifact_paths, digest_files, open_artifact, publish_artifact
from dubstream.export.command import export_networks
from dubstream.export.recipes import Recipe
from dubstream.export.verify.chain import NetworkChain, Settings
from dubstream.export.verify.links import links_of
from dubstream.export.verify.root import load_root

NAME = "halftoy"


@dataclass(frozen=True)
class Exported:
    """A folder with the half toy in fp32 and fp16, and the recipe it was made by."""

    folder: Path
    recipe: Recipe

    def chain(
        self, *, quick: bool = False, precisions: tuple[str, ...] = (), **settings: Any
    ) -> NetworkChain:
        """A fresh chain over the folder, on the CPU alone."""
        links = links_of(precisions, ["onnxruntime"])
        root = load_root(self.recipe, self.folder, ("fp32", "fp16"), None)
        assert root is not None
        return NetworkChain(
            self.recipe, root.network, root.source, Settings(self.folder, links, quick, **settings)
        )


def export_toy(folder: Path) -> Exported:
    """Export the half toy in both precisions."""
    recipe = half_toys.toy_recipe()
    for precision in ("fp32", "fp16"):
        export_networks(
            [], checkpoints=None, weights="seeded", artifacts=folder, precision=precision, threads=1,
            recipes={NAME: recipe},
        )  # fmt: skip
    return Exported(folder, recipe)


def alter(exported: Exported, precision: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the first convolution's weights in a published file, digest and all: a fault nobody noticed."""
    spec = exported.recipe.spec if precision == "fp32" else exported.recipe.half(precision).spec
    path, _ = artifact_paths(exported.folder, NAME, precision)
    sidecar = open_artifact(exported.folder, spec, precision).sidecar
    model = onnx.load(str(path))
    weight = next(weight for weight in model.graph.initializer if len(weight.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)), weight.name))
    draft = path.with_suffix(".draft")
    onnx.save(model, str(draft))
    files, digest = digest_files([draft], [path.name])
    publish_artifact(draft, exported.folder, replace(sidecar, files=files, sha256=digest))


@cache
def _exported() -> Exported:
    folder = Path(tempfile.mkdtemp(prefix="dubstream-verify-toys-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return export_toy(folder)


def toy_copy(folder: Path) -> Exported:
    """The exported toy, a copy to do as one likes with; it is exported once for all tests."""
    made = _exported()
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    return Exported(folder, made.recipe)


def flipped(weights: np.ndarray) -> np.ndarray:
    """The weights with the sign of their first filter changed."""
    changed = weights.copy()
    changed[0] *= -1
    return changed
