"""A verification's result on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from dubstream.export.verify.result import CaseRow, ChainReport, LinkResult, Verdict

WIDTH = 140  # columns of a table that goes into a file or a log
_STYLES: dict[Verdict, str] = {"passed": "green", "failed": "bold red", "not run": "yellow"}
COLUMNS = ("network", "link", "against", "case", "output", "max abs", "share", "PSNR", "SSIM", "verdict")


def show(report: ChainReport) -> None:
    """Print the table, what was not run and why, and the causes found, on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    grid = Table(*COLUMNS, title="verification", title_justify="left")
    for link in report.links:
        if link.verdict != "not run":
            grid.add_row(*cells(link), style=_STYLES[link.verdict] if link.verdict == "failed" else None)
    console.print(grid)
    for reason, names in not_run(report).items():
        console.print(f"not run: {', '.join(names)}: {reason}", markup=False, style=_STYLES["not run"])
    for link in report.failures:
        for explanation in (link.fault, link.proposal):
            if explanation is not None:
                console.print(f"{link.network} {link.link}: {explanation}", markup=False)
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    console.print(f"{facts}; {report.seconds:.1f} s", markup=False)


def cells(link: LinkResult) -> tuple[str, ...]:
    """One row of the table: the link's worst case."""
    row = link.worst
    figures = ("",) * 6 if row is None else _figures(row)
    return (link.network, link.link, link.against, *figures, link.verdict)


def not_run(report: ChainReport) -> dict[str, list[str]]:
    """Links that were not run by reason: ``{"no CUDA driver": ["dnet fp32/tensorrt", ...]}``."""
    found: dict[str, list[str]] = {}
    for link in report.links:
        if link.verdict == "not run":
            found.setdefault(link.reason, []).append(f"{link.network} {link.link}")
    return found


def _figures(row: CaseRow) -> tuple[str, ...]:
    bad = sum((*row.nan, *row.inf))
    return (
        row.case,
        row.output,
        f"{row.max_abs:.2e}" if not bad else f"{bad} non-finite",
        f"{row.share:.0%}" + (" of floor" if row.rule.endswith("floor") else ""),
        "" if row.psnr is None else f"{row.psnr:.1f}",
        "" if row.ssim is None else f"{row.ssim:.6f}",
    )
