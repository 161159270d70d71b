"""`dubstream doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dubstream.runtime.cli.show import table
from dubstream.runtime.doctor import Diagnosis, diagnose


def doctor(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder with the public checkpoint files.", metavar="DIR")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Show versions, backends, GPU and the licence of every checkpoint; exit 69 when dubbing cannot work."""
    diagnosis = diagnose(checkpoints)
    if as_json:
        print(json.dumps(asdict(diagnosis)))
    else:
        _show(diagnosis)
    if not diagnosis.providers:
        raise typer.Exit(69)


def _show(diagnosis: Diagnosis) -> None:
    table(
        "versions", ("package", "version"), [(k, v or "not installed") for k, v in diagnosis.versions.items()]
    )
    table("ONNX Runtime providers", ("provider",), [(name,) for name in diagnosis.providers or ["none"]])
    table("GPU", ("name, driver, memory, compute capability",), [(line,) for line in diagnosis.gpu])
    table(
        "checkpoints",
        ("network", "found", "licence"),
        [(name, path or "no", licence) for name, (path, licence) in diagnosis.checkpoints.items()],
    )
    for note in diagnosis.notes:
        print(f"note: {note}")
    for problem in diagnosis.problems:
        print(f"problem: {problem}")
