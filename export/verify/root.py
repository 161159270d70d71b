"""The root of a chain: the plain PyTorch network with the weights its artifacts claim to be made from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dubstream.engines.artifact import artifact_paths
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import ArtifactError, UsageError
from dubstream.engines.sidecar import MAX_BYTES, SidecarError, parse_sidecar
from dubstream.engines.storage import NotPlainFileError, open_plain, storage_errors
from dubstream.engines.weights import SEEDED, WeightsChoice
from dubstream.export.checkpoint import load_checkpoint
from dubstream.export.recipes import Recipe
from dubstream.export.seeded import seeded_state

_log = logging.getLogger("dubstream.verify")


@dataclass(frozen=True)
class Root:
    """A loaded PyTorch network.

    Attributes:
        network: the plain form, eval mode, float32.
        source: where its weights come from, as sidecars say it.
    """

    network: torch.nn.Module
    source: str


def load_root(
    recipe: Recipe, folder: Path, precisions: Sequence[str], choice: WeightsChoice | None
) -> Root | None:
    """The network with its weights; None where they are not given and no artifact says which they are.

    Args:
        recipe: the network.
        folder: the artifacts.
        precisions: those whose sidecars may say where the weights come from.
        choice: checkpoints or seeded weights; None to believe the sidecars, which works for seeded ones.

    Raises:
        UsageError: artifacts of a checkpoint, and no folder of checkpoints.
        ArtifactError: a sidecar that is not well formed.
        CheckpointError, StorageError: see `load_checkpoint`.
    """
    source = stated_source(recipe.spec, folder, precisions) if choice is None else None
    if choice is None and source is None:
        return None
    if choice is None and not str(source).startswith(f"{SEEDED}:"):
        raise UsageError(
            f"{recipe.spec.name}: its artifact was made from {str(source)[:80]}, which was not given",
            hint="add --checkpoints DIR",
        )
    network = recipe.factory.build()
    path = None if choice is None else choice.path_of(recipe.spec)
    if path is not None:
        # Keys that an export accepted with --allow-extra-keys do not change what the network is.
        weights = load_checkpoint(path, recipe.container, network.state_dict(), allow_extra_keys=True)
        state, source = weights.state, weights.source
    else:
        source = source or WeightsChoice(None).source_of(recipe.spec)
        salt = source.partition(":")[2]
        state = seeded_state(network, recipe.factory.seed_rule, salt=salt)
    network.load_state_dict(state, strict=True, assign=True)
    _log.info("%s: weights from %s", recipe.spec.name, source)
    return Root(network, source)


def stated_source(spec: NetworkSpec, folder: Path, precisions: Sequence[str]) -> str | None:
    """What the first sidecar there is says about the weights; None without any."""
    for precision in precisions:
        _, path = artifact_paths(folder, spec.name, precision)
        if not path.exists():
            continue
        try:
            with storage_errors(path, "reading"), open_plain(path) as stream:
                return parse_sidecar(stream.read(MAX_BYTES + 1)).source
        except (SidecarError, NotPlainFileError) as error:
            raise ArtifactError(
                f"{path}: {error}", hint=f"remake it: dubstream export {spec.name}"
            ) from error
    return None
