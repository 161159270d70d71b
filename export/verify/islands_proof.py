"""The proof of a proposal: the network exported again with these islands, by the rules of every export."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from dubstream.engines.errors import InternalError
from dubstream.engines.weights import WeightsChoice
from dubstream.export.onnx_export import export_onnx
from dubstream.export.produce import produce
from dubstream.export.recipes import HalfForm, Recipe
from dubstream.export.verify.islands import EXPORT, IslandProposal

_PREFIX = "core."


def module_classes(network: nn.Module, prefix: str = _PREFIX) -> dict[str, str]:
    """Class names of all modules by their paths in the exported graph.

    Args:
        network: the deployable network.
        prefix: where it stands in what is exported; as `PictureNetwork` puts it.
    """
    modules = network.named_modules(remove_duplicate=False)
    return {prefix + path: type(module).__name__ for path, module in modules if path}


def exact_twin(network: nn.Module, form: HalfForm) -> onnx.ModelProto:
    """A deployable network, still in float32, exported with the pictures of its half-precision form."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exact.onnx"
        export_onnx(form.pictures(network, torch.float32), form.spec, path, form.recipe.opset)
        return onnx.load(str(path))


def prove_by_export(
    proposal: IslandProposal,
    recipe: Recipe,
    precision: str,
    choice: WeightsChoice,
    *,
    threads: int | None = None,
    allow_extra_keys: bool = False,
) -> IslandProposal:
    """Export the network with the proposed islands into a folder that is thrown away.

    A proposed module gets casts where it is entered and left, as the islands of this project have them in
    their own code, and its weights stay float32.

    Returns:
        The proposal with the classes of its modules, proven by export with the errors that publication
        measured; or with the reason why it was not published as its doubt.

    Raises:
        CheckpointError, StorageError: see `produce`.
    """
    classes: set[str] = set()
    made = _with_islands(recipe, precision, proposal, classes)
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifact = produce(
                made,
                choice,
                Path(folder),
                precision=precision,
                threads=threads,
                allow_extra_keys=allow_extra_keys,
            )
        except InternalError as error:
            return replace(proposal, classes=tuple(sorted(classes)), doubt=error.message)
    after = max(row.relative_l2 for row in artifact.sidecar.fidelity)
    return replace(proposal, classes=tuple(sorted(classes)), after=after, proven_by=EXPORT, doubt="")


def _with_islands(recipe: Recipe, precision: str, proposal: IslandProposal, classes: set[str]) -> Recipe:
    form = recipe.half(precision)
    numbers = replace(form.recipe, islands=(*form.recipe.islands, *proposal.islands()))
    paths = [path.removeprefix(_PREFIX) for path in proposal.modules]
    dtype = getattr(torch, numbers.dtype)

    def deployable(plain: Any) -> nn.Module:
        network = recipe.factory.deployable(plain)
        for path in paths:
            module = network.get_submodule(path)
            classes.add(type(module).__name__)
            _cast_around(module, dtype)
        return network

    factory = replace(recipe.factory, deployable=deployable)
    return replace(recipe, factory=factory, halves={precision: replace(form, recipe=numbers)})


def _cast_around(module: nn.Module, dtype: torch.dtype) -> None:
    """Float32 for what enters, `dtype` for what leaves."""

    def enter(_: nn.Module, arguments: Any, options: Any) -> Any:
        return _cast(arguments, torch.float32), _cast(options, torch.float32)

    def leave(_: nn.Module, __: Any, result: Any) -> Any:
        return _cast(result, dtype)

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in `value`, and in tuples, lists and dictionaries of it, in another type."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(entry, dtype) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(entry, dtype) for entry in value)
    return value
