"""`dubstream build`, `dubstream engines` and `dubstream inspect`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from dubstream.engines.cache import cache_root
from dubstream.engines.errors import UsageError
from dubstream.engines.storage import open_plain, storage_errors
from dubstream.engines.store import PLAN, PlanStore, StoredPlan
from dubstream.engines.store_upkeep import Entry, entries, prune
from dubstream.engines.tensorrt.options import BuildOptions
from dubstream.engines.weights import WeightsChoice
from dubstream.runtime.artifacts import Artifacts, cached_artifacts, open_all
from dubstream.runtime.cli.show import log, progress, table

_default = BuildOptions()
_Engines = Annotated[Path | None, typer.Option("--engines", help="Folder of built plans.", metavar="DIR")]
_Key = Annotated[
    Path | None,
    typer.Option(
        "--hmac-key", help="This installation's key file, for a store others can write.", metavar="FILE"
    ),
]

engines = typer.Typer(help="Look after the built plans.", no_args_is_help=True)


def open_store(folder: Path | None, key: Path | None) -> PlanStore:
    """The store in `folder`, or in the cache; errors as in `PlanStore`."""
    return PlanStore(folder or cache_root() / "engines", secret=key)


def build(
    networks: Annotated[
        list[str] | None,
        typer.Argument(help="Networks to build; the four every dub needs without.", metavar="[NETWORK]..."),
    ] = None,
    artifacts: Annotated[
        Path | None, typer.Option(help="Folder of exported artifacts.", metavar="DIR")
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Public checkpoints the cached artifacts were made from.", metavar="DIR"),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="'seeded': the cached artifacts of seeded weights.", metavar="seeded")
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision of the artifacts: fp16, bf16 or fp32.")] = "fp16",
    engines: _Engines = None,
    hmac_key: _Key = None,
    optimum_batch: Annotated[
        int, typer.Option(help="Batch the kernels are timed at.")
    ] = _default.optimum_batch,
    max_batch: Annotated[int | None, typer.Option(help="Largest batch; the network's own without.")] = None,
    level: Annotated[
        int, typer.Option(help="0 builds quickly, 5 tries everything.")
    ] = _default.optimisation_level,
    workspace_mib: Annotated[
        int, typer.Option(help="Most scratch memory of one kernel, MiB.")
    ] = _default.workspace_bytes >> 20,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Let float32 matmuls round their inputs to TF32.")
    ] = False,
    hardware_compatibility: Annotated[
        str, typer.Option(help="none, ampere_plus or same_compute_capability.")
    ] = _default.hardware_compatibility,
    device: Annotated[int, typer.Option(help="CUDA device to build for.", metavar="N")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Turn artifacts into TensorRT plans for this GPU; those that are built already are left as they are."""
    from dubstream.engines.tensorrt.provision import obtain_plan  # the builder, only where it is used

    options = BuildOptions(
        optimum_batch=optimum_batch,
        max_batch=max_batch,
        optimisation_level=level,
        workspace_bytes=workspace_mib << 20,
        tf32=tf32,
        hardware_compatibility=hardware_compatibility,
    )
    opened = _artifacts(networks or [], artifacts, checkpoints, weights, precision)
    store = open_store(engines, hmac_key)
    plans = []
    for artifact in opened.values():
        with progress(quiet) as report:
            plans.append(
                obtain_plan(artifact, options, store, device=device, progress=report, on_wait=_announce_wait)
            )
    table("plans", ("network", "digest", "MB", "built in", "why"), [_plan_row(plan) for plan in plans])


def _artifacts(
    networks: list[str], folder: Path | None, checkpoints: Path | None, weights: str | None, precision: str
) -> Artifacts:
    if folder is not None:
        return open_all(folder, precision, names=networks)
    choice = WeightsChoice.from_options(checkpoints, weights)
    return cached_artifacts(choice, precision, names=networks)


def _announce_wait() -> None:
    log.print("another process is building this plan, waiting for it")


def _plan_row(plan: StoredPlan) -> tuple[str, ...]:
    return (
        plan.key.network,
        plan.key.digest()[:12],
        f"{len(plan.content) / 1e6:.1f}",
        f"{plan.manifest.build_seconds:.1f} s",
        plan.built_because or "was in the store",
    )


@engines.command("list")
def list_plans(engines: _Engines = None, hmac_key: _Key = None) -> None:
    """List the stored plans without reading them."""
    _show(list(entries(open_store(engines, hmac_key), verify=False)))


@engines.command()
def verify(engines: _Engines = None, hmac_key: _Key = None) -> None:
    """Read every stored plan and compare it with its manifest; exit 2 when one is not what it should be."""
    found = list(entries(open_store(engines, hmac_key), verify=True))
    _show(found)
    if any(entry.problem for entry in found):
        raise typer.Exit(2)


@engines.command("prune")
def prune_plans(
    engines: _Engines = None,
    hmac_key: _Key = None,
    older_than: Annotated[
        float | None, typer.Option(help="Also plans built before, days.", metavar="DAYS")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All plans.")] = False,
) -> None:
    """Delete broken and unfinished plans, and those asked for; entries another process holds are kept."""
    if older_than is not None and older_than < 0:
        raise UsageError(f"--older-than {older_than}, expected 0 or more days")
    deleted, busy = prune(
        open_store(engines, hmac_key), lambda entry: everything or _older(entry, older_than)
    )
    _show(deleted, title="deleted")
    for entry in busy:
        log.print(f"kept {entry.digest[:12]}: another process holds it")


def _older(entry: Entry, days: float | None) -> bool:
    if days is None or entry.manifest is None:
        return False
    return datetime.fromisoformat(entry.manifest.built) < datetime.now(UTC) - timedelta(days=days)


def _show(found: list[Entry], title: str = "plans") -> None:
    columns = ("network", "digest", "recipe", "device", "TensorRT", "MB", "built", "state")
    table(title, columns, [_entry_row(entry) for entry in found])


def _entry_row(entry: Entry) -> tuple[str, ...]:
    if entry.manifest is None:
        return ("?", entry.digest[:12], "", "", "", "", "", str(entry.problem))
    key, environment = entry.manifest.key, entry.manifest.key["environment"]
    return (
        key["network"],
        entry.digest[:12],
        key["recipe"],
        environment["device"],
        environment["tensorrt"],
        f"{entry.manifest.size / 1e6:.1f}",
        entry.manifest.built,
        entry.problem or "good",
    )


def inspect(
    target: Annotated[
        str, typer.Argument(help="An .onnx file, a plan file, or the digest of a stored plan.")
    ],
    engines: _Engines = None,
    limit: Annotated[int, typer.Option(help="Rows per table.")] = 40,
) -> None:
    """Show what a network computes and in which precision: operators, casts, FP32 islands, fused kernels."""
    path = Path(target)
    if path.suffix == ".onnx":
        _inspect_model(path, limit)
    else:
        _inspect_plan(path if path.exists() else _stored(target, engines), limit)


def _stored(digest: str, folder: Path | None) -> Path:
    root = open_store(folder, None).root
    found = [path for path in root.iterdir() if re.fullmatch(r"[0-9a-f]{64}", path.name)]
    found = [path for path in found if path.name.startswith(digest)]
    if len(found) != 1:
        raise UsageError(
            f"'{digest}' is neither a file nor the digest of one stored plan ({len(found)} match)",
            hint="dubstream engines list",
        )
    return found[0] / PLAN


def _read(path: Path) -> bytes:
    with storage_errors(path, "reading"), open_plain(path) as stream:
        return stream.read()


def _inspect_model(path: Path, limit: int) -> None:
    from dubstream.engines.inspect_model import inspect_model

    census = inspect_model(_read(path))
    facts = [
        ("opset", str(census.opset)),
        ("size", f"{census.nbytes / 1e6:.1f} MB"),
        ("casts", str(len(census.casts))),
    ]
    facts += [(f"{dtype} nodes", str(count)) for dtype, count in sorted(census.dtypes().items())]
    facts += [(f"{dtype} weights", f"{size / 1e6:.1f} MB") for dtype, size in sorted(census.weights.items())]
    table(path.name, ("fact", "value"), facts)
    for line in census.tensors:
        print(line)
    by_count = sorted(census.operators.items(), key=lambda item: (-item[1], item[0]))[:limit]
    table("operators", ("operator", "type", "nodes"), [(*names, str(count)) for names, count in by_count])
    islands = [(", ".join(f"{n} {op}" for op, n in island.items()),) for island in census.islands[:limit]]
    if islands:
        table(f"{len(census.islands)} FP32 islands", ("nodes",), islands)


def _inspect_plan(path: Path, limit: int) -> None:
    from dubstream.engines.inspect_plan import inspect_plan

    census = inspect_plan(_read(path))
    facts = [
        ("size", f"{census.nbytes / 1e6:.1f} MB"),
        ("launches", str(len(census.kernels))),
        ("with a cast", str(census.casts)),
        ("only a cast", str(census.pure_casts)),
    ]
    table(f"{path} (read from an unofficial listing in the plan)", ("fact", "value"), facts)
    rows = [(name, str(count)) for name, count in list(census.names().items())[:limit]]
    table("kernels", ("kernel", "launches"), rows)
