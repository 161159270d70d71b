"""Files that appear under their final name complete, or not at all."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dubstream.engines.storage import storage_errors, sync_file

PARTS = ".dubstream-*.part"
"""Glob of the names of unfinished files."""

_PART = re.compile(r"^\.dubstream-[0-9a-f]{12}\.(\d+)\.part$")


def part_path(final: Path) -> Path:
    """Temporary name next to `final`: hidden, short whatever the final name's length, this process's own."""
    digest = hashlib.sha256(os.fsencode(final.name)).hexdigest()[:12]
    return final.with_name(f".dubstream-{digest}.{os.getpid()}.part")


@contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Give a temporary path; on success flush it to disk and rename it to `final`, otherwise delete it.

    The block must have closed the file when it ends. Interrupts count as failure, so nothing stays behind.
    """
    part = part_path(final)
    try:
        yield part
        commit(part, final)
    except BaseException:
        discard(part)
        raise


def commit(part: Path, final: Path) -> None:
    """Flush a complete, closed temporary file to disk and give it its final name."""
    sync_file(part)
    part.replace(final)
    sync_file(final.parent)


def publish(path: Path, content: bytes) -> None:
    """Write a small file for this user only (mode 0600), complete or not at all.

    Raises `StorageError` (disk full, permission, missing folder).
    """
    with storage_errors(path, "writing", needed=len(content)), atomic_file(path) as part:
        part.touch(mode=0o600)
        part.write_bytes(content)


def discard(part: Path) -> None:
    """Delete a temporary file if it is still there."""
    with suppress(OSError):
        part.unlink(missing_ok=True)


def sweep_parts(folder: Path) -> list[Path]:
    """Delete the temporary files in `folder` whose process no longer lives; return what was deleted."""
    swept = []
    for entry in folder.iterdir():
        match = _PART.match(entry.name)
        if match and not _alive(int(match.group(1))):
            with suppress(OSError):
                entry.unlink()
                swept.append(entry)
    return swept


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
