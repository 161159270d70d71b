"""`dubstream export`: networks to verified artifacts. torch is imported only when there is work to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dubstream.engines.artifact import Artifact, open_artifact
from dubstream.engines.cache import folder_lock
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import ArtifactError, DubError, UsageError
from dubstream.engines.specs import CORE, SPECS, spec_of
from dubstream.engines.storage import storage_errors
from dubstream.engines.weights import WeightsChoice
from dubstream.export.display import EventDisplay, JsonDisplay
from dubstream.export.precision import AS_TRAINED, FP32, PRECISIONS, PrecisionRecipe, recipe_of
from dubstream.export.steps import ExportEvent, steps_of

if TYPE_CHECKING:
    from dubstream.export.recipes import Recipe

OnProgress = Callable[[ExportEvent], None]

ALL = "all"
"""In place of names: every network of the complete system."""


def export_networks(
    names: Sequence[str],
    *,
    checkpoints: Path | None,
    weights: str | None,
    artifacts: Path,
    precision: str = FP32,
    allow_extra_keys: bool = False,
    threads: int | None = None,
    force: bool = False,
    on_progress: OnProgress = lambda event: None,
    recipes: Mapping[str, Recipe] | None = None,
) -> list[Artifact]:
    """Make artifacts of the networks; valid ones from the same weights are kept.

    Networks are made one after another, so that memory holds one at a time. Of two processes that
    export into one folder the second waits and then finds the work done.

    Args:
        names: networks, `ALL` among them for every one; none means the four that a dub always needs, or
            all of `recipes`.
        checkpoints: folder with the public checkpoint files, or None.
        weights: ``"seeded"``, or None; exactly one of the two is to be given.
        artifacts: the folder, created if missing.
        precision: ``fp32``, or ``fp16`` or ``bf16`` for artifacts with pictures at their edges.
        allow_extra_keys: accept names in the checkpoint that the network does not have.
        threads: CPU threads, None for PyTorch's choice.
        force: make valid artifacts anew, too.
        on_progress: called at every `ExportEvent`.
        recipes: how networks are made; the project's own by default.

    Raises:
        UsageError: an unknown network or precision, or not exactly one source of weights.
        CheckpointError: weights missing, unusable or misfitting.
        FidelityError, InternalError: an export that is not its original; nothing of it is published.
        StorageError: disk full, permission.
        RetryError: another process held the folder for too long.
    """
    wanted = _wanted(names, precision, recipes)
    specs = [spec for spec, _ in wanted]
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}, expected 1 or more")
    choice = WeightsChoice.from_options(checkpoints, weights)
    choice.require_files(specs)
    on_progress(ExportEvent("start", message=_announcement(choice)))
    keep = _Keeper(choice, artifacts, allow_extra_keys, force)
    found = {spec.name: keep(spec, numbers) for spec, numbers in wanted}
    if None in found.values():
        with storage_errors(artifacts, "creating"):
            artifacts.mkdir(parents=True, exist_ok=True)
        wait = ExportEvent("waiting", message=f"another process is exporting into {artifacts}")
        with folder_lock(artifacts, on_wait=lambda: on_progress(wait)):
            if not force:
                found = {spec.name: found[spec.name] or keep(spec, numbers) for spec, numbers in wanted}
            _make_missing(
                found, choice, artifacts, precision, allow_extra_keys, threads, on_progress, recipes
            )
    else:
        _report_kept(found, on_progress)
    return [artifact for artifact in found.values() if artifact is not None]


def export_command(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Networks to export: {', '.join(SPECS)}, or {ALL}. Default: {', '.join(CORE)}. "
            "Detectors also for another size of picture: s3fd_1280x720, retinaface_1280x720."
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder with the public checkpoint files.", metavar="DIR")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="'seeded': reproducible untrained weights.", metavar="seeded")
    ] = None,
    artifacts: Annotated[Path | None, typer.Option(help="Folder for the artifacts.", metavar="DIR")] = None,
    precision: Annotated[str, typer.Option(help=f"One of {', '.join(PRECISIONS)}.")] = FP32,
    allow_extra_keys: Annotated[
        bool, typer.Option("--allow-extra-keys", help="Accept unexpected keys; the sidecar records them.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make valid artifacts anew, too.")] = False,
    json_progress: Annotated[
        bool, typer.Option("--json-progress", help="One JSON line per step on standard output.")
    ] = False,
) -> None:
    """Export networks to ONNX files that were checked against PyTorch."""
    if artifacts is None:
        raise UsageError("no folder for the artifacts", hint="give --artifacts DIR")
    with JsonDisplay() if json_progress else EventDisplay() as display:
        try:
            made = export_networks(
                networks or [],
                checkpoints=checkpoints,
                weights=weights,
                artifacts=artifacts,
                precision=precision,
                allow_extra_keys=allow_extra_keys,
                threads=threads,
                force=force,
                on_progress=display.show,
            )
        except DubError as error:
            display.show(ExportEvent("error", message=str(error), exit_code=error.exit_code))
            raise
        display.finish(made)


class _Keeper:
    """Decides whether an artifact that is already there will do."""

    def __init__(self, choice: WeightsChoice, folder: Path, allow_extra_keys: bool, force: bool) -> None:
        self._choice, self._folder = choice, folder
        self._allow_extra_keys, self._force = allow_extra_keys, force

    def __call__(self, spec: NetworkSpec, numbers: PrecisionRecipe) -> Artifact | None:
        if self._force:
            return None
        try:
            artifact = open_artifact(self._folder, spec, numbers.precision)
        except ArtifactError:
            return None
        sidecar = artifact.sidecar
        current = (sidecar.recipe, sidecar.recipe_version) == (numbers.name, numbers.version)
        allowed = self._allow_extra_keys or not sidecar.extra_keys
        same = artifact.source == self._choice.source_of(spec)
        return artifact if current and allowed and same else None


def _make_missing(
    found: dict[str, Artifact | None],
    choice: WeightsChoice,
    folder: Path,
    precision: str,
    allow_extra_keys: bool,
    threads: int | None,
    on_progress: OnProgress,
    recipes: Mapping[str, Recipe] | None,
) -> None:
    """Fill the gaps of `found`; the caller holds the folder's lock."""
    _report_kept(found, on_progress)
    missing = [name for name, artifact in found.items() if artifact is None]
    if not missing:
        return
    produce, own_recipe = _torch_side()
    steps = steps_of(precision)
    total = len(missing) * len(steps)
    for index, name in enumerate(missing):

        def on_step(step: str, name: str = name, before: int = index * len(steps)) -> None:
            position = before + steps.index(step)
            on_progress(ExportEvent("step", name, step, position, total))

        artifact = produce(
            own_recipe(name) if recipes is None else recipes[name],
            choice,
            folder,
            precision=precision,
            allow_extra_keys=allow_extra_keys,
            threads=threads,
            on_step=on_step,
        )
        found[name] = artifact
        done = (index + 1) * len(steps)
        on_progress(ExportEvent("done", name, "", done, total, str(artifact.path)))


def _torch_side() -> tuple[Callable[..., Artifact], Callable[[str], Recipe]]:
    """`produce` and a recipe by its name; UsageError where the extra `export` is not installed."""
    try:
        from dubstream.export.produce import produce
        from dubstream.export.recipes import recipe_named
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, export needs it", hint='pip install "dubstream[export]"'
        ) from error
    return produce, recipe_named


def _wanted(
    names: Sequence[str], precision: str, recipes: Mapping[str, Recipe] | None
) -> list[tuple[NetworkSpec, PrecisionRecipe]]:
    """Spec and precision recipe of the names, each once, in the order given."""
    if recipes is None:
        given = names or CORE
        unique = dict.fromkeys((*SPECS, *(one for one in given if one != ALL)) if ALL in given else given)
        return [(spec_of(name, precision), recipe_of(name, precision)) for name in unique]
    chosen = [recipes[name] for name in dict.fromkeys(names or recipes)]
    if precision == FP32:
        return [(recipe.spec, AS_TRAINED) for recipe in chosen]
    return [(recipe.half(precision).spec, recipe.half(precision).recipe) for recipe in chosen]


def _announcement(choice: WeightsChoice) -> str:
    if choice.checkpoints is not None:
        return f"weights: checkpoints in {os.fspath(choice.checkpoints)}"
    return "weights: seeded:retalk, NOT trained - results show speed and correctness, not a dubbed face"


def _report_kept(found: Mapping[str, Artifact | None], on_progress: OnProgress) -> None:
    for name, artifact in found.items():
        if artifact is not None:
            on_progress(ExportEvent("kept", name, message=str(artifact.path)))
