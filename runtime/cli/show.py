"""What the commands print: progress while they work, tables when they are done."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dubstream.engines.errors import DubError
from dubstream.runtime.progress import Progress as Report
from dubstream.runtime.progress import silent

Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Log what happens; twice for more.")
]
"""The option of every command that logs."""

log = Console(stderr=True)
"""Progress, warnings and errors. Results alone go to standard output."""


class _Rate(ProgressColumn):
    """Units per second, of whatever the stage counts."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s", style="progress.data.speed")


def log_to_stderr(verbose: int) -> None:
    """Warnings; with `verbose` 1 what happens, with 2 everything. The larger of two calls counts."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    ours = logging.getLogger("dubstream")
    ours.setLevel(min(level, ours.level or logging.WARNING))


@contextmanager
def progress(quiet: bool) -> Iterator[Report]:
    """Progress bars on standard error; silent when asked or where standard error is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    bars = Progress(
        TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), _Rate(),
        TimeElapsedColumn(), TimeRemainingColumn(), console=log,
    )  # fmt: skip
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    with bars:
        yield report


def print_error(error: DubError) -> None:
    """One line: what was received, what was expected, the next command."""
    line = " ".join(f"error: {error}".split())
    print(line, file=sys.stderr)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; every column but the first is right-aligned."""
    grid = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*row)
    Console().print(grid)


def stage_rows(busy_s: Mapping[str, float], frames: int) -> list[tuple[str, str, str]]:
    """Stage, milliseconds a frame, share of all busy time; slowest first."""
    whole = sum(busy_s.values()) or 1.0
    ordered = sorted(busy_s.items(), key=lambda item: -item[1])
    return [
        (stage, f"{1000 * seconds / max(frames, 1):.2f}", f"{100 * seconds / whole:.1f} %")
        for stage, seconds in ordered
    ]
