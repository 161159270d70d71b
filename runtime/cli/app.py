"""The commands and how they end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from dubstream.benchmarks.bench.dubs.command import bench_dub_command
from dubstream.benchmarks.bench.frame_cost.command import bench_cost_command
from dubstream.benchmarks.bench.networks.command import bench_app
from dubstream.benchmarks.bench.report.command import report_command
from dubstream.engines.errors import DubError, InternalError
from dubstream.export.command import export_command
from dubstream.export.verify.command import verify_app
from dubstream.runtime.cli.batch_command import batch
from dubstream.runtime.cli.doctor_command import doctor
from dubstream.runtime.cli.dub_command import dub
from dubstream.runtime.cli.engines_command import build, engines, inspect
from dubstream.runtime.cli.groups import OwnOptionsGroup
from dubstream.runtime.cli.prepare_command import prepare
from dubstream.runtime.cli.show import Verbose, log_to_stderr, print_error
from dubstream.runtime.cli.verify_video_command import verify_dub, verify_video

app = typer.Typer(
    name="dubstream",
    help="VideoReTalking in production: export it, prove it, time it, stream it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("dub")(dub)
app.command()(prepare)
app.command()(batch)
app.command("export")(export_command)
app.command()(build)
verify_app.command("video")(verify_video)
verify_app.command("dub")(verify_dub)
app.add_typer(verify_app, name="verify", cls=OwnOptionsGroup)
app.add_typer(engines, name="engines")
app.command()(inspect)
bench_app.command("dub")(bench_dub_command)
bench_app.command("cost")(bench_cost_command)
bench_app.command("report")(report_command)
app.add_typer(bench_app, name="bench", cls=OwnOptionsGroup)
app.command()(doctor)


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
