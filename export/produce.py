"""One network from weights to a published artifact; nothing takes its final name before it passed."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import torch

from dubstream.engines.artifact import (
    Artifact,
    artifact_paths,
    digest_files,
    open_artifact,
    publish_artifact,
)
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.sidecar import FidelityRow, RangeRow, Sidecar
from dubstream.engines.storage import storage_errors
from dubstream.engines.weights import SEED_SALT, WeightsChoice
from dubstream.export.checkpoint import Weights, load_checkpoint
from dubstream.export.fidelity import fidelity_cases, judge
from dubstream.export.half_check import audit, compare_half, extreme_case, half_cases, levels_runner
from dubstream.export.onnx_export import check_onnx, export_onnx, onnx_runner, torch_runner
from dubstream.export.precision import AS_TRAINED, FP32, PrecisionRecipe
from dubstream.export.recipes import HalfForm, Recipe
from dubstream.export.seeded import seeded_state
from dubstream.export.threads import torch_threads

_TOOLS = ("dubstream", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


def produce(
    recipe: Recipe,
    choice: WeightsChoice,
    folder: Path,
    *,
    precision: str = FP32,
    allow_extra_keys: bool = False,
    threads: int | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Artifact:
    """Load, convert, check, compare and publish one network; the caller holds the folder's lock.

    Args:
        recipe: the network.
        choice: trained or seeded weights.
        folder: where the artifact goes; temporary files of killed runs are swept from it.
        precision: one of `PRECISIONS`.
        allow_extra_keys: see `load_checkpoint`.
        threads: CPU threads; None for PyTorch's own choice.
        on_step: called with each word of `steps_of(precision)` as that step begins.

    Raises:
        CheckpointError: the weights do not fit.
        FidelityError: the export is not the PyTorch network, or leaves the range of its precision; no
            file is left.
        InternalError: conversion failed.
        StorageError: disk full, permission.
    """
    form = None if precision == FP32 else recipe.half(precision)
    spec, numbers = (recipe.spec, AS_TRAINED) if form is None else (form.spec, form.recipe)
    final, _ = artifact_paths(folder, spec.name, precision)
    with torch_threads(threads), storage_errors(folder, "exporting into"), _temporary(final) as tmp:
        try:
            on_step("weights")
            plain = recipe.factory.build()
            weights = _weights(recipe, choice, plain, allow_extra_keys)
            plain.load_state_dict(weights.state, strict=True, assign=True)
            weights.state.clear()
            made = (
                _convert(recipe, plain, tmp, on_step)
                if form is None
                else _convert_half(recipe, form, plain, tmp, on_step)
            )
        finally:
            gc.collect()  # modules sit in reference cycles, half a gigabyte of them for L-Net
        on_step("publish")
        publish_artifact(tmp, folder, _sidecar(spec, numbers, weights, *made, tmp, final))
    return open_artifact(folder, spec, precision)


def _convert(
    recipe: Recipe, plain: torch.nn.Module, tmp: Path, on_step: Callable[[str], None]
) -> tuple[tuple[FidelityRow, ...], tuple[RangeRow, ...]]:
    """The checked float32 file in `tmp`; returns its errors."""
    spec = recipe.spec
    on_step("reference")
    cases = fidelity_cases(spec)
    run = torch_runner(plain, spec)
    # Before the deployable form is made: making it may take the plain one's tensors.
    reference = [run(case.inputs) for case in cases]
    on_step("convert")
    export_onnx(recipe.factory.deployable(plain), spec, tmp)
    gc.collect()
    on_step("check")
    check_onnx(tmp, spec)
    on_step("compare")
    return judge(spec, cases, reference, onnx_runner(tmp, spec, torch.get_num_threads())), ()


def _convert_half(
    recipe: Recipe, form: HalfForm, plain: torch.nn.Module, tmp: Path, on_step: Callable[[str], None]
) -> tuple[tuple[FidelityRow, ...], tuple[RangeRow, ...]]:
    """The checked half-precision file in `tmp`; returns its errors and its largest numbers."""
    spec, threads = form.spec, torch.get_num_threads()
    on_step("reference")
    cases = half_cases(spec, form.real())
    run = levels_runner(form.pictures(plain, torch.float32), spec)
    reference = [run(case.inputs) for case in cases]
    on_step("convert")
    deployable = recipe.factory.deployable(plain)
    form.recipe.apply(deployable)
    export_onnx(form.pictures(deployable, getattr(torch, form.recipe.dtype)), spec, tmp, form.recipe.opset)
    del deployable
    gc.collect()
    on_step("check")
    check_onnx(tmp, spec, form.recipe.opset)
    on_step("audit")
    model = onnx.load(str(tmp))
    ranges = audit(model, form.recipe, [*cases, extreme_case(spec)], threads)
    on_step("compare")
    return compare_half(model, form.recipe, spec, cases, reference, threads), ranges


def _weights(
    recipe: Recipe, choice: WeightsChoice, plain: torch.nn.Module, allow_extra_keys: bool
) -> Weights:
    path = choice.path_of(recipe.spec)
    if path is None:
        state = seeded_state(plain, recipe.factory.seed_rule, salt=SEED_SALT)
        return Weights(state, choice.source_of(recipe.spec))
    return load_checkpoint(path, recipe.container, plain.state_dict(), allow_extra_keys=allow_extra_keys)


def _sidecar(
    spec: NetworkSpec,
    numbers: PrecisionRecipe,
    weights: Weights,
    rows: tuple[FidelityRow, ...],
    ranges: tuple[RangeRow, ...],
    tmp: Path,
    final: Path,
) -> Sidecar:
    files, digest = digest_files([tmp], [final.name])
    return Sidecar(
        network=spec.name,
        precision=numbers.precision,
        recipe=numbers.name,
        recipe_version=numbers.version,
        spec=spec.as_json(),
        files=files,
        sha256=digest,
        source=weights.source,
        ignored_keys=weights.ignored_keys,
        extra_keys=weights.extra_keys,
        opset=numbers.opset,
        tools=_versions(),
        fidelity=rows,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        ranges=ranges,
    )


def _versions() -> dict[str, str]:
    found = {}
    for tool in _TOOLS:
        with suppress(PackageNotFoundError):
            found[tool] = version(tool)
    return found


@contextmanager
def _temporary(final: Path) -> Iterator[Path]:
    """A temporary file name beside `final`, gone afterwards whatever happens, with those killed runs left."""
    folder, name = final.parent, final.stem
    for stale in folder.glob(f".{name}.*.part"):
        stale.unlink(missing_ok=True)
    path = folder / f".{name}.{os.getpid()}.part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
