"""Idempotent units of work on disk.

A unit is one file and a sidecar with its digest, both written under a temporary name and renamed, the
sidecar last. A unit is finished exactly when its sidecar is there, names the same identity and the
file's bytes still have the digest; anything else is done again. Killing a process at any moment
therefore costs at most the units it was working on, and never leaves a wrong one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dubstream.engines.atomic import atomic_file, sweep_parts
from dubstream.engines.storage import make_private_folder, open_plain, sha256_of, storage_errors

SCHEMA = 1


class UnitFolder:
    """The units of one job or preparation.

    Args:
        folder: created if missing, mode 0700.
        identity: digest of everything that determines the units' content.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = make_private_folder(folder)
        self.identity = identity
        with storage_errors(folder, "sweeping"):
            sweep_parts(folder)

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
                and _digest(path) == sidecar["sha256"]
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
        path = self.path(name)
        with storage_errors(path, "writing"):
            self._sidecar(name).unlink(missing_ok=True)
            with atomic_file(path) as temporary:
                yield temporary
            sidecar = {
                "schema": SCHEMA,
                "identity": self.identity,
                "size": path.stat().st_size,
                "sha256": _digest(path),
                "facts": facts,
            }
            with atomic_file(self._sidecar(name)) as temporary:
                temporary.write_text(json.dumps(sidecar, allow_nan=False))

    def clear(self) -> None:
        """Delete all units; the folder stays, as others may wait for its lock."""
        with storage_errors(self.folder, "clearing"):
            for sidecar in self.folder.glob("*.json"):
                sidecar.unlink(missing_ok=True)
                sidecar.with_suffix("").unlink(missing_ok=True)

    def _sidecar(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _digest(path: Path) -> str:
    with open_plain(path) as stream:
        return sha256_of(stream)
