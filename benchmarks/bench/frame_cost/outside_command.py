"""`dubstream bench outside`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dubstream.benchmarks.bench.frame_cost.free_networks import FilmedFace
from dubstream.benchmarks.bench.frame_cost.original import HD
from dubstream.benchmarks.bench.frame_cost.outside import (
    BOTH,
    LEAST,
    NATIVE,
    SECOND,
    median_ms,
    outside_rows,
)
from dubstream.benchmarks.rows import Row, machine
from dubstream.runtime.cli.show import table

ORIGINAL_MS = (150.0, 250.0)
"""The original program for a frame of 1280x720, timed on another machine: tables of anchors, blurs, masks of
every parse, pastes and blends, partly in Python loops that our own version of its numbers does not have."""

SHARE = 5
"""Ours is to take no more than a fifth."""


def bench_outside_command(
    width: Annotated[int, typer.Option(help="Of a frame.")] = HD[0],
    height: Annotated[int, typer.Option(help="Of a frame.")] = HD[1],
    samples: Annotated[int, typer.Option(help=f"Of each, {LEAST} or more.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """What a frame costs outside the networks: our way with all of them, and the original's.

    Both modes work on the same frame in turn, with networks that cost nothing and always find the face.
    Decoding and encoding are not among it.
    """
    rows = outside_rows(FilmedFace(width, height), samples)
    if as_json:
        print(json.dumps({"rows": [row.as_json() for row in rows], "machine": machine()}))
        return
    cells = [
        (
            row.facts["part"],
            row.stage,
            row.unit,
            str(row.n),
            f"{row.median:.1f}",
            f"{row.low:.1f} to {row.high:.1f}",
        )
        for row in rows
    ]
    table(f"{width}x{height}, outside the networks", ("", "mode", "unit", "n", "p50", "p5 to p95"), cells)
    if (width, height) == HD:
        print(_verdict(rows))


def _verdict(rows: list[Row]) -> str:
    least, most = ORIGINAL_MS
    second, both = (median_ms(rows, part, NATIVE) for part in (SECOND, BOTH))
    return (
        f"the original program takes {least:.0f} to {most:.0f} ms a frame on another machine: "
        f"{least / both:.1f} to {most / both:.1f} times both our passes, {least / second:.1f} to "
        f"{most / second:.1f} times the second, which is all that a prepared video costs; "
        f"expected {SHARE} times or more"
    )
