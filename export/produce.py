"""One network from weights to a published artifact; nothing takes its final name before it passed."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dubstream.engines.artifact import Artifact, digest_files, open_artifact, publish_artifact
from dubstream.engines.sidecar import FidelityRow, Sidecar
from dubstream.engines.storage import storage_errors
from dubstream.engines.weights import SEED_SALT, WeightsChoice
from dubstream.export.checkpoint import Weights, load_checkpoint
from dubstream.export.fidelity import fidelity_cases, judge
from dubstream.export.onnx_export import OPSET, check_onnx, export_onnx, onnx_runner, torch_runner
from dubstream.export.recipes import Recipe
from dubstream.export.seeded import seeded_state
from dubstream.export.steps import FP32, RECIPE_NAME, RECIPE_VERSION

_TOOLS = ("dubstream", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


def produce(
    recipe: Recipe,
    choice: WeightsChoice,
    folder: Path,
    *,
    allow_extra_keys: bool = False,
    threads: int | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Artifact:
    """Load, convert, check, compare and publish one network in float32; the caller holds the folder's lock.

    Args:
        recipe: the network.
        choice: trained or seeded weights.
        folder: where the artifact goes; temporary files of killed runs are swept from it.
        allow_extra_keys: see `load_checkpoint`.
        threads: CPU threads; None for PyTorch's own choice.
        on_step: called with each word of `STEPS` as that step begins.

    Raises:
        CheckpointError: the weights do not fit.
        FidelityError: the export is not the PyTorch network; no file is left.
        InternalError: conversion failed.
        StorageError: disk full, permission.
    """
    name = recipe.spec.name
    with _torch_threads(threads), storage_errors(folder, "exporting into"), _temporary(folder, name) as tmp:
        try:
            weights_of, rows = _convert(recipe, choice, tmp, allow_extra_keys, on_step)
        finally:
            gc.collect()  # modules sit in reference cycles, half a gigabyte of them for L-Net
        on_step("publish")
        publish_artifact(tmp, folder, _sidecar(recipe, weights_of, rows, tmp))
    return open_artifact(folder, recipe.spec, FP32)


def _convert(
    recipe: Recipe, choice: WeightsChoice, tmp: Path, allow_extra_keys: bool, on_step: Callable[[str], None]
) -> tuple[Weights, tuple[FidelityRow, ...]]:
    """The checked ONNX file in `tmp`; returns where its weights came from, without them, and its errors."""
    spec = recipe.spec
    on_step("weights")
    plain = recipe.factory.build()
    weights = _weights(recipe, choice, plain, allow_extra_keys)
    plain.load_state_dict(weights.state, strict=True, assign=True)
    weights.state.clear()
    on_step("reference")
    cases = fidelity_cases(spec)
    run = torch_runner(plain, spec)
    # Before the deployable form is made: making it may take the plain one's tensors.
    reference = [run(case.inputs) for case in cases]
    on_step("convert")
    deployable = recipe.factory.deployable(plain)
    del plain, run
    export_onnx(deployable, spec, tmp)
    del deployable
    gc.collect()
    on_step("check")
    check_onnx(tmp, spec)
    on_step("compare")
    return weights, judge(spec, cases, reference, onnx_runner(tmp, spec, torch.get_num_threads()))


def _weights(
    recipe: Recipe, choice: WeightsChoice, plain: torch.nn.Module, allow_extra_keys: bool
) -> Weights:
    path = choice.path_of(recipe.spec)
    if path is None:
        state = seeded_state(plain, recipe.factory.seed_rule, salt=SEED_SALT)
        return Weights(state, choice.source_of(recipe.spec))
    return load_checkpoint(path, recipe.container, plain.state_dict(), allow_extra_keys=allow_extra_keys)


def _sidecar(recipe: Recipe, weights: Weights, rows: tuple[FidelityRow, ...], tmp: Path) -> Sidecar:
    files, digest = digest_files([tmp], [f"{recipe.spec.name}.{FP32}.onnx"])
    return Sidecar(
        network=recipe.spec.name,
        precision=FP32,
        recipe=RECIPE_NAME,
        recipe_version=RECIPE_VERSION,
        spec=recipe.spec.as_json(),
        files=files,
        sha256=digest,
        source=weights.source,
        ignored_keys=weights.ignored_keys,
        extra_keys=weights.extra_keys,
        opset=OPSET,
        tools=_versions(),
        fidelity=rows,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    found = {}
    for tool in _TOOLS:
        with suppress(PackageNotFoundError):
            found[tool] = version(tool)
    return found


@contextmanager
def _temporary(folder: Path, name: str) -> Iterator[Path]:
    """A temporary file name in `folder`, gone afterwards whatever happens, with those killed runs left."""
    for stale in folder.glob(f".{name}.{FP32}.*.part"):
        stale.unlink(missing_ok=True)
    path = folder / f".{name}.{FP32}.{os.getpid()}.part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
