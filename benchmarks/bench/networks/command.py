"""`dubstream bench`: what every network costs, and whether it still costs what it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dubstream.benchmarks.bench.method.rounds import Stop
from dubstream.benchmarks.bench.networks.options import (
    BASELINE_NAMES,
    BATCHES,
    REPEATS,
    BenchOptions,
    parse_backends,
    parse_batches,
)
from dubstream.engines.artifact import Artifact, open_artifact
from dubstream.engines.errors import DeviceError, UsageError, VerificationError
from dubstream.engines.onnxruntime_engine import usable_cpus
from dubstream.engines.specs import CORE, SPECS, spec_of
from dubstream.runtime.artifacts import find_artifacts
from dubstream.runtime.cli.show import log, progress
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import StreamOptions
from dubstream.runtime.platforms.platform import open_platform

if TYPE_CHECKING:
    from dubstream.benchmarks.bench.method.base import Base, Verdict
    from dubstream.benchmarks.bench.method.results import Results
    from dubstream.benchmarks.bench.networks.by_op import NodeTime

_WHAT, _COMPARE, _OUTPUT = "What is measured", "Comparisons", "Output"
_default_batches = ",".join(map(str, BATCHES))

bench_app = typer.Typer(help="Time networks and dubs; compare with a saved baseline.", no_args_is_help=False)
"""Further subjects attach themselves as commands: `dubstream bench dub`, `dubstream bench report`."""


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    artifacts: Annotated[
        Path | None, typer.Option(help="Folder of exported artifacts.", metavar="DIR", rich_help_panel=_WHAT)
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="Folder of public checkpoints; beside --artifacts for the PyTorch side only.",
            metavar="DIR",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="'seeded': reproducible untrained weights.", metavar="seeded", rich_help_panel=_WHAT
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help=f"Of {', '.join(SPECS)}; {', '.join(CORE)} without.", rich_help_panel=_WHAT),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batches.", rich_help_panel=_WHAT)] = _default_batches,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16, bf16; the backend's own without.", rich_help_panel=_WHAT),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(Backend.NAMES)}.", rich_help_panel=_WHAT)
    ] = None,
    device: Annotated[
        int, typer.Option(help="CUDA device of a GPU backend.", metavar="N", rich_help_panel=_WHAT)
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(help="Threads per network call; all without.", rich_help_panel=_WHAT)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Rounds.", rich_help_panel=_WHAT)] = REPEATS,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Rounds that fit into S seconds per case instead.", metavar="S", rich_help_panel=_WHAT
        ),
    ] = None,
    first_calls: Annotated[
        bool,
        typer.Option(
            "--first-calls/--no-first-calls",
            help="Opening, first run and memory, in processes of their own.",
            rich_help_panel=_WHAT,
        ),
    ] = True,
    by_op: Annotated[
        bool,
        typer.Option("--by-op", help="Where time goes inside each network instead.", rich_help_panel=_WHAT),
    ] = False,
    limit: Annotated[int, typer.Option(help="Lines per table of --by-op.", rich_help_panel=_WHAT)] = 25,
    depth: Annotated[
        int, typer.Option(help="Names of a module's path kept by --by-op.", rich_help_panel=_WHAT)
    ] = 3,
    baseline: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(BASELINE_NAMES)}.", rich_help_panel=_COMPARE)
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Keep the samples for a later run.", metavar="BASE.json", rich_help_panel=_COMPARE),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Exit 1 when slower than there.", metavar="BASE.json", rich_help_panel=_COMPARE),
    ] = None,
    max_slowdown: Annotated[float, typer.Option(help="What is allowed.", rich_help_panel=_COMPARE)] = 1.10,
    rows: Annotated[
        Path | None, typer.Option(help="Write rows as JSON lines.", metavar="FILE", rich_help_panel=_OUTPUT)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Time networks in turn with baselines and measured peaks; exit 1 when one is wrong or slower."""
    if context.invoked_subcommand is not None:
        return
    options = BenchOptions(
        networks=tuple(dict.fromkeys(network or CORE)),
        batches=parse_batches(batch),
        backends=parse_backends(backend or [], precision or [], device),
        threads=usable_cpus() if threads is None else threads,
        stop=Stop(repeats, seconds),
        baselines=tuple(dict.fromkeys(baseline or [])),
        first_calls=first_calls,
        checkpoints=checkpoints,
    )
    if not max_slowdown > 1:
        raise UsageError(f"--max-slowdown received {max_slowdown:g}, expected more than 1")
    if by_op and (save or against or baseline or rows):
        raise UsageError("--by-op measures nothing that --save, --against, --baseline or --rows could use")
    for path in (save, rows):
        if path is not None and not path.parent.is_dir():
            raise UsageError(
                f"{path}: expected an existing folder, found none", hint=f"mkdir -p {path.parent}"
            )
    _require_report_extra()
    # A missing driver shows before the minutes an export may take.
    for one in options.backends:
        with open_platform(one, StreamOptions(threads=options.threads)):
            pass
    found = _artifacts(options, artifacts, checkpoints, weights)
    if by_op:
        _by_op(found, options, limit, depth, as_json)
    else:
        _measure(found, options, save, against, max_slowdown, rows, as_json)


_Artifacts = dict[tuple[str, str], Artifact]


def _require_report_extra() -> None:
    from importlib.util import find_spec

    if find_spec("onnx") is None:
        raise DeviceError("onnx is not installed, bench needs it", hint="pip install 'dubstream[report]'")


def _artifacts(
    options: BenchOptions, folder: Path | None, checkpoints: Path | None, weights: str | None
) -> _Artifacts:
    """Verified artifacts by network and precision."""
    found: _Artifacts = {}
    for precision in options.precisions:
        if folder is not None and weights is None:
            for name in options.networks:
                found[name, precision] = open_artifact(folder, spec_of(name, precision), precision)
        else:
            with progress(quiet=False) as report:
                made = find_artifacts(
                    folder, checkpoints, weights, networks=options.networks,
                    precision=precision, threads=options.threads, progress=report,
                )  # fmt: skip
            found |= {(name, precision): artifact for name, artifact in made.items()}
    return found


def _measure(
    found: _Artifacts,
    options: BenchOptions,
    save: Path | None,
    against: Path | None,
    max_slowdown: float,
    rows: Path | None,
    as_json: bool,
) -> None:
    from dubstream.benchmarks.bench.method.base import check_machine, held_against, load_base, save_base
    from dubstream.benchmarks.bench.method.results import Results
    from dubstream.benchmarks.bench.networks.bench import bench_networks
    from dubstream.engines.atomic import publish

    results = Results(_facts(options))
    base: Base | None = None
    if against is not None:
        base = load_base(against)
        for note in check_machine(base, results.facts):
            log.print(f"[yellow]{note}", soft_wrap=True)
    with progress(quiet=as_json) as report:
        bench_networks(found, options, results, progress=report)
    if (save or base) and not results.cases and not results.failures:
        raise DeviceError("no peak could be measured, so no run can be compared with another")
    verdicts = [] if base is None else held_against(base, results, max_slowdown)
    if rows is not None:
        publish(rows, results.lines([verdict.as_json() for verdict in verdicts]).encode())
    if save is not None and not results.failures:
        save_base(save, results)
    _show(results, verdicts, max_slowdown, as_json)
    _judge(results, base is not None, verdicts)


def _facts(options: BenchOptions) -> dict[str, Any]:
    from dubstream.benchmarks.rows import gpu, machine

    device = {} if options.on_gpu is None else gpu(options.on_gpu)
    return {**machine(), **device, "threads": options.threads}


def _show(results: Results, verdicts: list[Verdict], max_slowdown: float, as_json: bool) -> None:
    from dubstream.benchmarks.bench.method.show import show_verdicts
    from dubstream.benchmarks.bench.networks.show import show_rows

    if as_json:
        judged = [verdict.as_json() for verdict in verdicts]
        print(json.dumps({"rows": results.rows, "against": judged, **results.facts}))
        return
    show_rows(results.rows)
    if verdicts:
        show_verdicts(verdicts, max_slowdown)


def _judge(results: Results, compared: bool, verdicts: list[Verdict]) -> None:
    from dubstream.benchmarks.bench.method.base import KEPT, SLOWER, slower

    findings = [*results.failures, *slower(verdicts)]
    if compared and not {KEPT, SLOWER} & {verdict.outcome for verdict in verdicts}:
        outcomes = ", ".join(sorted({verdict.outcome for verdict in verdicts})) or "no cases"
        findings.append(f"nothing could be held against the base: {outcomes}")
    if findings:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise VerificationError(f"{findings[0]}{more}", hint="the report names all")


def _by_op(found: _Artifacts, options: BenchOptions, limit: int, depth: int, as_json: bool) -> None:
    from dubstream.benchmarks.bench.networks.by_op import profile
    from dubstream.benchmarks.bench.networks.cost import network_cost
    from dubstream.benchmarks.bench.networks.show import profile_json, show_profile
    from dubstream.benchmarks.bench.networks.variants import seeded_batch

    if options.on_gpu is not None:
        raise UsageError("--by-op looks into ONNX Runtime on the CPU", hint="leave --backend out")
    profiles: dict[str, dict[str, Any]] = {}
    for (name, precision), artifact in found.items():
        for batch in [one for one in options.batches if one <= artifact.spec.max_batch][:1]:
            if name not in options.networks:
                continue
            inputs, cost = seeded_batch(artifact.spec, batch), network_cost(artifact.path, batch)
            nodes: list[NodeTime] = profile(
                artifact.path, inputs, cost, threads=options.threads, repeats=options.stop.repeats
            )
            title = f"{name}.{precision} at batch {batch}"
            if as_json:
                profiles[title] = profile_json(nodes)
            else:
                show_profile(title, nodes, _peak(options), limit=limit, depth=depth)
    if as_json:
        print(json.dumps({"profiles": profiles, **_facts(options)}))


def _peak(options: BenchOptions) -> float:
    """GFLOP/s the CPU reaches now, over a few rounds."""
    from dubstream.benchmarks.bench.method.rounds import measure_rounds
    from dubstream.benchmarks.bench.method.statistics import MIN_SAMPLES
    from dubstream.benchmarks.bench.networks.peaks import opened_peaks, reached
    from dubstream.runtime.streaming.host import HostDevice

    with HostDevice() as device, opened_peaks(device, threads=options.threads) as peaks:
        series = measure_rounds({peak.name: peak.run for peak in peaks}, Stop(MIN_SAMPLES))
        return reached({peak.name: (peak, series[peak.name]) for peak in peaks})[0]
