"""What an export shows: a bar on a terminal, lines in a log, JSON for a program."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from dubstream.engines.artifact import Artifact
from dubstream.export.steps import ExportEvent


class Display(Protocol):
    """Shows events as they come, and the artifacts at the end; to be used in a `with` block."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: ExportEvent) -> None:
        """Show one event."""

    def finish(self, artifacts: Sequence[Artifact]) -> None:
        """Everything went well; show the result."""


class JsonDisplay:
    """One JSON object per event and line on standard output, flushed; see `ExportEvent`."""

    def __enter__(self) -> JsonDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, event: ExportEvent) -> None:
        print(event.to_json(), flush=True)

    def finish(self, artifacts: Sequence[Artifact]) -> None:
        return None


class EventDisplay:
    """For people, on standard error: a bar on a terminal, else one line per network."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> EventDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, event: ExportEvent) -> None:
        if event.event == "step":
            self._advance(event)
        elif event.event in ("kept", "done"):
            self._say(f"{event.network}: {event.event}, {event.message}")
        elif event.event != "error":  # the caller prints errors, on one line
            self._say(event.message)

    def finish(self, artifacts: Sequence[Artifact]) -> None:
        table = Table("network", "MB", "largest error", "of tolerance", "SHA-256", box=None)
        for artifact in artifacts:
            rows = artifact.sidecar.fidelity
            worst = max(rows, key=lambda row: row.tolerance_share)
            size = sum(entry.size for entry in artifact.sidecar.files) / 1e6
            share = f"{worst.tolerance_share:.0%}"
            table.add_row(
                artifact.spec.name, f"{size:.1f}", f"{worst.max_abs:.1e}", share, artifact.digest[:12]
            )
        self._bar.stop()
        self._console.print(table)

    def _advance(self, event: ExportEvent) -> None:
        text = f"{event.network} {event.step}"
        if self._task is None:
            self._task = self._bar.add_task(text, total=event.total)
        self._bar.update(self._task, description=text, completed=event.position, total=event.total)

    def _say(self, text: str) -> None:
        # Plain print: the console would cut long paths into lines and read [brackets] as markup.
        if self._bar.disable:
            typer.echo(text, err=True)
        else:
            self._bar.console.print(text, markup=False, soft_wrap=True)
