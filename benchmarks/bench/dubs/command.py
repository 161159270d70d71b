"""`dubstream bench dub`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from dubstream.benchmarks.bench.dubs.against import DubComparison
from dubstream.benchmarks.bench.dubs.dub import DubBench, bench_dub
from dubstream.benchmarks.bench.dubs.stages import WAITS, PassCost, StageCost, rest_s
from dubstream.benchmarks.bench.frame_cost.command import show_ran
from dubstream.benchmarks.bench.method.row_files import check_target, write_rows, write_text
from dubstream.runtime.artifacts import find_artifacts
from dubstream.runtime.cli.show import Verbose, log_to_stderr, progress, table
from dubstream.runtime.emotion import EmotionOptions, parse_emotion
from dubstream.runtime.media.writer import EncodeOptions
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import FINDERS, DubOptions, FaceOptions, StreamOptions
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.options.quality import QUALITIES, quality_of
from dubstream.runtime.platforms.platform import open_platform

_default = DubOptions()


def bench_dub_command(
    video: Annotated[Path, typer.Argument(help="The talking-head video.")],
    audio: Annotated[Path, typer.Argument(help="The new speech: an audio file, or a video's audio track.")],
    artifacts: Annotated[Path | None, typer.Option(help="Folder of artifacts.", metavar="DIR")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder of public checkpoints; exported first.", metavar="DIR")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="'seeded': reproducible untrained weights.", metavar="seeded")
    ] = None,
    engines: Annotated[
        Path | None, typer.Option(help="Folder of built TensorRT plans.", metavar="DIR")
    ] = None,
    hmac_key: Annotated[
        Path | None, typer.Option(help="Key file for plans others can write.", metavar="FILE")
    ] = None,
    prepared: Annotated[
        Path | None,
        typer.Option(
            help="What `dubstream prepare` made of the video: only the second pass is timed.", metavar="DIR"
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help=f"{', '.join(Backend.NAMES)}.")] = _default.backend.name,
    device: Annotated[int, typer.Option(help="CUDA device.", metavar="N")] = _default.backend.device,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or, with tensorrt, bf16.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Frames per network call; 1 on the CPU, 4 on a GPU without.")
    ] = None,
    slots: Annotated[int, typer.Option(help="Batches under way at once.")] = _default.stream.slots,
    threads: Annotated[int | None, typer.Option(help="Threads per network call.")] = None,
    face: Annotated[
        str, typer.Option(help="largest, center, INDEX from the left, or x,y,w,h.")
    ] = _default.face.selector,
    faces: Annotated[str | None, typer.Option(help=f"{', '.join(FINDERS)}.")] = None,
    detect_every: Annotated[
        int, typer.Option(help="Detect in every n-th frame, track between.")
    ] = _default.face.detect_every,
    quality: Annotated[str, typer.Option(help=f"{', '.join(QUALITIES)}, as in dub.")] = "standard",
    mask: Annotated[str | None, typer.Option(help=f"{', '.join(FinishOptions.MASKS)}.")] = None,
    restore: Annotated[str | None, typer.Option(help=f"{', '.join(FinishOptions.RESTORERS)}.")] = None,
    emotion: Annotated[str, typer.Option(help=f"{', '.join(EmotionOptions.NAMES)}.")] = _default.emotion.name,
    preset: Annotated[str, typer.Option(help="x264 speed preset.")] = _default.encode.preset,
    repeats: Annotated[int, typer.Option(help="Dubs, each from an empty cache.")] = 1,
    name: Annotated[str | None, typer.Option(help="The clip's name in rows; else its file name.")] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Keep the samples for a later run; 5 repeats or more.", metavar="BASE.json"),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Exit 1 when slower than there.", metavar="BASE.json")
    ] = None,
    max_slowdown: Annotated[float, typer.Option(help="What is allowed.")] = 1.10,
    rows: Annotated[Path | None, typer.Option(help="Write rows as JSON lines.", metavar="FILE")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Chrome/Perfetto trace of the last dub's overlap.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    verbose: Verbose = 0,
) -> None:
    """Where the time of a dub goes: every stage, its queue and its copies, and how well they overlap.

    And what its networks were given, as the job counted it: calls and GMAC per output frame.
    """
    log_to_stderr(verbose)
    for target in (rows, trace, save):
        if target is not None:
            check_target(target)
    level = quality_of(quality)
    where = Backend(backend, device, precision)
    options = DubOptions(
        face=FaceOptions(face, detect_every, finder=level.finder if faces is None else faces),
        stream=StreamOptions(where.batch if batch is None else batch, slots, threads),
        backend=where,
        encode=EncodeOptions(preset=preset),
        finish=FinishOptions(
            level.mask if mask is None else mask, level.restore if restore is None else restore
        ),
        emotion=parse_emotion(emotion),
    )
    # A missing driver shows before the minutes an export may take.
    with open_platform(options.backend, options.stream):
        pass
    comparison = DubComparison(options, save, against, max_slowdown)
    with progress(quiet=as_json) as report:
        networks = find_artifacts(
            artifacts, checkpoints, weights, networks=options.networks,
            precision=options.backend.precision, threads=threads, progress=report,
        )  # fmt: skip
        bench = bench_dub(
            video, audio, networks, options, repeats=repeats, name=name, plans=engines, plans_key=hmac_key,
            prepared=prepared, before_each=comparison.before_each, progress=report,
        )  # fmt: skip
    found, verdicts = bench.rows(comparison.facts), comparison.finish(bench)
    if trace is not None:
        write_text(trace, json.dumps(bench.runs[-1].summary.trace))
    if rows is not None:
        write_rows(rows, [*found, *verdicts])
    if as_json:
        print(json.dumps({"rows": found, "against": verdicts}, allow_nan=False))
    else:
        show(bench)
        comparison.show()
    comparison.judge()


def show(bench: DubBench) -> None:
    """Print the tables of a bench."""
    stages = bench.stages
    whole = sum(stage.busy_s for stage in stages) or 1.0
    table(
        "time by stage",
        ("stage", "ms/frame", "share", "busy s", "queue s", "copied"),
        [_time_cells(stage, bench.frames, whole) for stage in stages],
    )
    table(
        "one batch, or one block outside the streams",
        ("stage", "n", "p50 ms", "p95 ms", "p99 ms"),
        [_batch_cells(stage) for stage in stages],
    )
    passes = bench.passes
    table("overlap", ("", *(one.part for one in passes)), list(_overlap_rows(passes)))
    show_ran(bench.cost)
    table("result", ("", ""), _facts(bench))


def _facts(bench: DubBench) -> list[tuple[str, str]]:
    last, setting = bench.runs[-1].summary, bench.setting
    outside = [rest_s(run.summary.timing, run.summary.wall_s) for run in bench.runs]
    written = f"{last.frames} at {last.rate} fps, {last.dubbed} dubbed, without face: {last.absent_text()}"
    stream = f"batch {setting['batch']}, {setting['slots']} slots, {setting['threads']} threads"
    return [
        ("frames", written),
        ("speed", ", ".join(f"{run.summary.fps:.3f}" for run in bench.runs) + " frames/s"),
        ("wall time", ", ".join(f"{run.summary.wall_s:.2f}" for run in bench.runs) + " s"),
        ("outside all stages", ", ".join(f"{seconds:.2f}" for seconds in outside) + " s"),
        ("computed by", f"{last.backend}, {stream}"),
        ("peak memory", f"{last.peak_rss_mib:.0f} MiB resident"),
        ("weights", last.weights),
        ("same bytes", "one run" if len(bench.runs) == 1 else "yes" if bench.same_bytes else "NO"),
    ]


def _time_cells(stage: StageCost, frames: int, whole_s: float) -> tuple[str, ...]:
    return (
        stage.stage,
        f"{1e3 * stage.busy_s / max(frames, 1):.2f}",
        f"{100 * stage.busy_s / whole_s:.1f} %",
        f"{stage.busy_s:.3f}",
        f"{sum(stage.queue_s):.3f}" if stage.queue_s else "",
        "" if stage.copied_bytes is None else f"{stage.copied_bytes / 1e6:.1f} MB",
    )


def _batch_cells(stage: StageCost) -> tuple[str, ...]:
    figures = stage.percentiles_ms()
    shown = (f"{figures[name]:.2f}" if figures else "" for name in ("p50", "p95", "p99"))
    return (stage.stage, str(len(stage.batches_s)), *shown)


def _overlap_rows(passes: Sequence[PassCost]) -> Iterator[tuple[str, ...]]:
    """A row per figure, a column per pass."""
    yield "wall time", *(f"{one.wall_s:.2f} s" for one in passes)
    yield "slowest resource", *(one.slowest for one in passes)
    yield "wall time over slowest", *(f"{one.wall_over_slowest:.3f}" for one in passes)
    for name in passes[0].resources_s if passes else ():
        yield f"{name} busy", *(_share(one.resources_s[name], one) for one in passes)
    for name, reason in WAITS.items():
        yield f"waited {reason}", *(_share(one.waits_s[name], one) for one in passes)


def _share(seconds: float, one: PassCost) -> str:
    return f"{100 * seconds / (one.wall_s or 1.0):.1f} %"
