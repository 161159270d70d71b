"""Files of rows: JSON lines, written whole, read with the line named that is not one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dubstream.engines.atomic import atomic_file
from dubstream.engines.errors import DubError, UsageError
from dubstream.engines.storage import storage_errors
from dubstream.runtime.cli.show import print_error

MAX_BYTES = 64 << 20
"""Of one file of rows: a row is about 2 KB."""


def check_target(path: Path) -> None:
    """Raise `UsageError` unless a file can be expected to be written at `path`; asked before the work."""
    if path.is_dir():
        raise UsageError(f"received the folder {path}, expected the name of a file to write")
    if not path.parent.is_dir():
        raise UsageError(
            f"cannot write {path}: there is no folder {path.parent}", hint=f"mkdir -p {path.parent}"
        )


def write_text(path: Path, text: str) -> None:
    """Write a file, complete or not at all; raises `StorageError`."""
    content = text.encode()
    with storage_errors(path, "writing", needed=len(content)), atomic_file(path) as part:
        part.write_bytes(content)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, all of them or none. Raises `StorageError`."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """All rows of some files, in order; empty lines are passed over.

    Raises:
        UsageError: a line that is no JSON object, with the file and the line's number; a file that is
            not UTF-8 or larger than `MAX_BYTES`.
        StorageError: a file that cannot be read.
    """
    return [row for path in paths for row in _rows_of(path)]


def _rows_of(path: Path) -> Iterable[dict[str, Any]]:
    with storage_errors(path, "reading"):
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(f"{path}: received {size} bytes, expected rows of at most {MAX_BYTES}")
        content = path.read_bytes()
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected rows as JSON lines in UTF-8, byte {error.start} is not") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _row(line, f"{path}, line {number}")


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where}: expected a row, a JSON object; found no JSON ({str(error)[:80]})"
        ) from None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected a row, a JSON object; found {line.strip()[:40]}")
    return row


def exit_with(command: Callable[[], None]) -> None:
    """Run a command of its own; an error of ours becomes one line and its exit code."""
    try:
        command()
    except DubError as error:
        print_error(error)
        raise SystemExit(error.exit_code) from None
