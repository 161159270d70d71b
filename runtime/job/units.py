"""Idempotent units of work on disk.

A unit is one file and a sidecar with its digest, both written under a temporary name and renamed, the
sidecar last. A unit is finished exactly when its sidecar is there, names the same identity and the
file's bytes still have the digest; anything else is done again. Killing a process at any moment
therefore costs at most the units it was working on, and never leaves a wrong one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dubstream.engines.errors import StorageError

SCHEMA = 1


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_facts(facts: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `facts`: equal facts, equal key, on every machine."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `StorageError` that says what was being done."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{doing}: {reason}" + (f": '{error.filename}'" if error.filename else ""),
            hint="free space or fix permissions, then run the same command again: finished work is kept",
        ) from error


class UnitFolder:
    """The units of one job or preparation.

    Args:
        folder: created if missing, mode 0700.
        identity: digest of everything that determines the units' content.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity
        with storage_errors("creating the work folder"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()

    def path(self, name: str) -> Path:
        """Where the unit called `name` lives, finished or not."""
        return self.folder / name

    def finished(self, name: str) -> dict[str, Any] | None:
        """The facts published with the unit, or None when it has to be made (again)."""
        path = self.path(name)
        try:
            sidecar = json.loads(self._sidecar(name).read_bytes())
            valid = (
                sidecar["schema"] == SCHEMA
                and sidecar["identity"] == self.identity
                and path.stat().st_size == sidecar["size"]
                and digest_file(path) == sidecar["sha256"]
            )
            facts = sidecar["facts"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return facts if valid and isinstance(facts, dict) else None

    @contextmanager
    def making(self, name: str, facts: dict[str, Any]) -> Iterator[Path]:
        """Give a temporary path to write; publish it when the block ends without an exception.

        `facts` may be filled inside the block; it must be JSON-serialisable.
        """
        temporary = self.folder / f".{os.getpid()}.{name}"
        try:
            yield temporary
            with storage_errors(f"publishing '{name}'"):
                self._publish(name, temporary, facts)
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, name: str, temporary: Path, facts: dict[str, Any]) -> None:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        sidecar = {
            "schema": SCHEMA,
            "identity": self.identity,
            "size": temporary.stat().st_size,
            "sha256": digest_file(temporary),
            "facts": facts,
        }
        self._sidecar(name).unlink(missing_ok=True)
        temporary.replace(self.path(name))
        draft = self.folder / f".{os.getpid()}.{name}.json"
        try:
            with draft.open("w") as file:
                json.dump(sidecar, file, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._sidecar(name))
        finally:
            draft.unlink(missing_ok=True)

    def _sidecar(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _sweep(self) -> None:
        """Delete what processes that are no longer alive left behind."""
        for leftover in self.folder.glob(".[0-9]*.*"):
            pid = int(leftover.name.split(".")[1]) if leftover.name.split(".")[1].isdigit() else None
            if pid is not None and not _alive(pid):
                leftover.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
