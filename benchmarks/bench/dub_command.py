"""`dubstream bench dub`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dubstream.benchmarks.bench.dub import DubBench, bench_dub
from dubstream.benchmarks.bench.stages import StageCost
from dubstream.benchmarks.bench.report_files import append_rows, check_target, write_text
from dubstream.benchmarks.rows import machine
from dubstream.runtime.artifacts import find_artifacts
from dubstream.runtime.cli.show import Verbose, log_to_stderr, progress, table
from dubstream.runtime.job.backend import Backend
from dubstream.runtime.job.options import DubOptions, FaceOptions, StreamOptions
from dubstream.runtime.job.platforms import open_platform
from dubstream.runtime.media.writer import EncodeOptions

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
    backend: Annotated[str, typer.Option(help=f"{', '.join(Backend.NAMES)}.")] = _default.backend.name,
    device: Annotated[int, typer.Option(help="CUDA device.", metavar="N")] = _default.backend.device,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or, with tensorrt, bf16.")] = None,
    batch: Annotated[int, typer.Option(help="Frames per network call.")] = _default.stream.batch,
    slots: Annotated[int, typer.Option(help="Batches under way at once.")] = _default.stream.slots,
    threads: Annotated[int | None, typer.Option(help="Threads per network call.")] = None,
    face: Annotated[
        str, typer.Option(help="largest, center, INDEX from the left, or x,y,w,h.")
    ] = _default.face.selector,
    preset: Annotated[str, typer.Option(help="x264 speed preset.")] = _default.encode.preset,
    repeats: Annotated[int, typer.Option(help="Dubs, each from an empty cache.")] = 1,
    name: Annotated[str | None, typer.Option(help="The clip's name in rows; else its file name.")] = None,
    rows: Annotated[
        Path | None, typer.Option(help="Append the rows to a JSON lines file.", metavar="FILE")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Chrome/Perfetto trace of the last dub's overlap.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The rows on standard output.")] = False,
    verbose: Verbose = 0,
) -> None:
    """Where the time of a dub goes: every stage, its queue and its copies, and how well they overlap."""
    log_to_stderr(verbose)
    for target in (rows, trace):
        if target is not None:
            check_target(target)
    options = DubOptions(
        face=FaceOptions(face),
        stream=StreamOptions(batch, slots, threads),
        backend=Backend(backend, device, precision),
        encode=EncodeOptions(preset=preset),
    )
    # A missing driver shows before the minutes an export may take.
    with open_platform(options.backend, options.stream):
        pass
    with progress(quiet=as_json) as report:
        networks = find_artifacts(
            artifacts, checkpoints, weights,
            precision=options.backend.precision, threads=threads, progress=report,
        )  # fmt: skip
        bench = bench_dub(
            video, audio, networks, options,
            repeats=repeats, name=name, plans=engines, plans_key=hmac_key, progress=report,
        )  # fmt: skip
    found = bench.rows(machine())
    if trace is not None:
        write_text(trace, json.dumps(bench.runs[-1].summary.trace))
    if rows is not None:
        append_rows(rows, found)
    if as_json:
        print(*(json.dumps(row, allow_nan=False) for row in found), sep="\n")
    else:
        show(bench)


def show(bench: DubBench) -> None:
    """Print the tables of a bench."""
    stages = bench.stages
    whole = sum(stage.busy_s for stage in stages) or 1.0
    table(
        "time by stage",
        (
            "stage",
            "ms/frame",
            "share",
            "busy s",
            "batches",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "queue ms",
            "copied",
        ),
        [_stage_cells(stage, bench.frames, whole) for stage in stages],
    )
    table(
        "overlap by pass",
        ("pass", "wall s", "over slowest", "slowest", "busy", "threads waited"),
        [
            (
                one.part,
                f"{one.wall_s:.2f}",
                f"{one.wall_over_slowest:.3f}",
                one.slowest,
                _shares(one.resources_s, one.wall_s),
                _shares(one.waits_s, one.wall_s),
            )
            for one in bench.passes
        ],
    )
    last = bench.runs[-1].summary
    table(
        "result",
        ("", ""),
        [
            ("frames", f"{last.frames} at {last.rate} fps, {last.dubbed} dubbed, without face: {last.absent_text()}"),
            ("speed", ", ".join(f"{run.summary.fps:.3f}" for run in bench.runs) + " frames/s"),
            ("computed by", f"{last.backend}, batch {bench.setting['batch']}, {bench.setting['slots']} slots, "
                            f"{bench.setting['threads']} threads"),
            ("peak memory", f"{last.peak_rss_mib:.0f} MiB resident"),
            ("weights", last.weights),
            ("same bytes", "one run" if len(bench.runs) == 1 else "yes" if bench.same_bytes else "NO"),
        ],
    )  # fmt: skip


def _stage_cells(stage: StageCost, frames: int, whole_s: float) -> tuple[str, ...]:
    figures = stage.percentiles_ms()
    queue = f"{1e3 * sum(stage.queue_s) / len(stage.queue_s):.2f}" if stage.queue_s else ""
    return (
        stage.stage,
        f"{1e3 * stage.busy_s / max(frames, 1):.2f}",
        f"{100 * stage.busy_s / whole_s:.1f} %",
        f"{stage.busy_s:.3f}",
        str(len(stage.batches_s)),
        *(f"{figures[name]:.2f}" if figures else "" for name in ("p50", "p95", "p99")),
        queue,
        "" if stage.copied_bytes is None else f"{stage.copied_bytes / 1e6:.1f} MB",
    )


def _shares(seconds: dict[str, float], wall_s: float) -> str:
    """Parts of the wall time, the small ones left out."""
    shares = {name: 100 * part / wall_s for name, part in seconds.items()} if wall_s > 0 else {}
    return ", ".join(f"{name} {share:.1f} %" for name, share in shares.items() if share >= 0.05) or "nothing"
