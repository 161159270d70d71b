"""The commands and how they end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, ClassVar

import typer

from dubstream.engines.errors import DubError, InternalError
from dubstream.runtime.cli.groups import OwnOptionsGroup
from dubstream.runtime.cli.lazy import Deferred, LazyGroup
from dubstream.runtime.cli.show import Verbose, log_to_stderr, print_error


def _mount_dub(app: typer.Typer) -> None:
    from dubstream.runtime.cli.dub_command import dub

    app.command("dub")(dub)


def _mount_prepare(app: typer.Typer) -> None:
    from dubstream.runtime.cli.prepare_command import prepare

    app.command("prepare")(prepare)


def _mount_batch(app: typer.Typer) -> None:
    from dubstream.runtime.cli.batch_command import batch

    app.command("batch")(batch)


def _mount_export(app: typer.Typer) -> None:
    from dubstream.export.command import export_command

    app.command("export")(export_command)


def _mount_build(app: typer.Typer) -> None:
    from dubstream.runtime.cli.engines_command import build

    app.command("build")(build)


def _mount_inspect(app: typer.Typer) -> None:
    from dubstream.runtime.cli.engines_command import inspect

    app.command("inspect")(inspect)


def _mount_doctor(app: typer.Typer) -> None:
    from dubstream.runtime.cli.doctor_command import doctor

    app.command("doctor")(doctor)


def _mount_verify(app: typer.Typer) -> None:
    from dubstream.export.verify.command import verify_app
    from dubstream.runtime.cli.verify_video_command import verify_dub, verify_video

    verify_app.command("video")(verify_video)
    verify_app.command("dub")(verify_dub)
    app.add_typer(verify_app, name="verify", cls=OwnOptionsGroup)


def _mount_engines(app: typer.Typer) -> None:
    from dubstream.runtime.cli.engines_command import engines

    app.add_typer(engines, name="engines")


def _mount_bench(app: typer.Typer) -> None:
    from dubstream.benchmarks.bench.dubs.command import bench_dub_command
    from dubstream.benchmarks.bench.frame_cost.command import bench_cost_command
    from dubstream.benchmarks.bench.frame_cost.outside_command import bench_outside_command
    from dubstream.benchmarks.bench.networks.command import bench_app
    from dubstream.benchmarks.bench.report.command import report_command

    bench_app.command("dub")(bench_dub_command)
    bench_app.command("cost")(bench_cost_command)
    bench_app.command("outside")(bench_outside_command)
    bench_app.command("report")(report_command)
    app.add_typer(bench_app, name="bench", cls=OwnOptionsGroup)


class Commands(LazyGroup):
    """All commands; the lines are held to the commands' own help by a test."""

    deferred: ClassVar[Mapping[str, Deferred]] = {
        "dub": Deferred("Dub VIDEO with the speech of AUDIO.", _mount_dub),
        "prepare": Deferred(
            "Do the first pass over VIDEO, for any number of dubs: any language, with these options.",
            _mount_prepare,
        ),
        "batch": Deferred("Do the dubs listed in JOBS, one after another.", _mount_batch),
        "export": Deferred("Export networks to ONNX files that were checked against PyTorch.", _mount_export),
        "build": Deferred(
            "Turn artifacts into TensorRT plans for this GPU; "
            "those that are built already are left as they are.",
            _mount_build,
        ),
        "inspect": Deferred(
            "Show what a network computes and in which precision: "
            "operators, casts, FP32 islands, fused kernels.",
            _mount_inspect,
        ),
        "doctor": Deferred(
            "Show versions, backends, GPU and the licence of every checkpoint; "
            "exit 69 when dubbing cannot work.",
            _mount_doctor,
        ),
        "verify": Deferred(
            "Prove that exports, engines and dubbed videos still are what they should be.", _mount_verify
        ),
        "engines": Deferred("Look after the built plans.", _mount_engines),
        "bench": Deferred("Time networks and dubs; compare with a saved baseline.", _mount_bench),
    }


app = typer.Typer(
    name="dubstream",
    cls=Commands,
    help="VideoReTalking in production: export it, prove it, time it, stream it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            print(version("dubstream"))
        except PackageNotFoundError:
            print("dubstream, not installed")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Verbose = 0,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    log_to_stderr(verbose)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. SIGTERM passes through."""
    try:
        app(list(arguments), prog_name="dubstream")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except DubError as error:
        print_error(error)
        return error.exit_code
    except Exception as error:
        logging.getLogger(__name__).debug("unexpected failure", exc_info=True)
        fault = InternalError(
            f"unexpected {type(error).__name__}: {error}",
            hint="run again with -vv for the traceback, and report it",
        )
        print_error(fault)
        return fault.exit_code
    return 0
