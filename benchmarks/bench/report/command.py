"""`dubstream bench report`: tables and plots of rows that were measured earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dubstream.benchmarks.bench.method.row_files import read_rows
from dubstream.benchmarks.bench.report.data import find
from dubstream.benchmarks.bench.report.plots import Format, render, require_matplotlib
from dubstream.benchmarks.bench.report.points import Findings
from dubstream.benchmarks.bench.report.report import Plot, plots, sections
from dubstream.engines.atomic import atomic_file
from dubstream.engines.errors import UsageError
from dubstream.engines.page import Section, Table, cell_text, check_page, write_page
from dubstream.engines.storage import storage_errors
from dubstream.runtime.cli.show import table


def report_command(
    rows: Annotated[list[Path], typer.Argument(help="Files of rows, JSON lines.")],
    html: Annotated[
        Path | None, typer.Option(help="Write everything as one HTML page.", metavar="FILE")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write the plots into an existing folder.", metavar="DIR")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Write the plots into an existing folder.", metavar="DIR")
    ] = None,
) -> None:
    """Tables and plots of rows measured earlier; measures nothing."""
    folders: list[tuple[Path, Format]] = [(png, "png")] if png else []
    folders += [(svg, "svg")] if svg else []
    _check_targets(html, folders)
    found = read_rows(rows)
    findings = find(found)
    if not findings.points:
        raise UsageError(
            f"received {len(found)} rows, none of which this report knows",
            hint="dubstream bench --rows FILE, or dubstream bench dub VIDEO AUDIO --rows FILE",
        )
    drawn = list(plots(findings)) if html or folders else []
    for folder, kind in folders:
        _write_plots(folder, kind, drawn)
    shown = sections(findings, [] if html is None else drawn)
    if html is not None:
        write_page(html, "dubstream bench", shown, _facts(rows, found, findings))
    else:
        _print(shown)


def _check_targets(html: Path | None, folders: list[tuple[Path, Format]]) -> None:
    if html is not None:
        check_page(html)
    if html is not None or folders:
        require_matplotlib()
    for folder, kind in folders:
        if not folder.is_dir():
            raise UsageError(
                f"--{kind} received {folder}, expected an existing folder", hint=f"mkdir -p {folder}"
            )


def _write_plots(folder: Path, kind: Format, drawn: list[Plot]) -> None:
    for plot in drawn:
        path = folder / f"{plot.stem}.{kind}"
        content = render(plot.figure, kind)
        with storage_errors(path, "writing", needed=len(content)), atomic_file(path) as part:
            part.write_bytes(content)


def _facts(paths: list[Path], found: list[dict[str, Any]], findings: Findings) -> dict[str, Any]:
    points = [point.row for point in findings.points.values()]
    versions = sorted(
        {f"{name} {number}" for row in points for name, number in (row.get("versions") or {}).items()}
    )
    return {
        "rows": f"{len(found)} in {', '.join(path.name for path in paths)}; {len(points)} shown",
        "machines": [machine.title for machine in findings.machines],
        "systems": sorted({str(row["system"]) for row in points if row.get("system")}),
        "versions": versions,
        "commits": sorted({str(row["commit"]) for row in points if row.get("commit")}),
    }


def _print(shown: list[Section]) -> None:
    for section in shown:
        for part in section.parts:
            if isinstance(part, Table):
                rows = [[cell_text(cell) for cell in row] for row in part.rows]
                table(section.title, part.columns, rows)
            elif isinstance(part, str):
                print(part)
