"""Looking through a plan store: what is in it, whether it is intact, and deleting what is not wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dubstream.engines.atomic import PARTS
from dubstream.engines.cache import folder_lock
from dubstream.engines.errors import RetryError
from dubstream.engines.manifest import Manifest
from dubstream.engines.storage import storage_errors
from dubstream.engines.store import PLAN, REFUSALS, PlanStore, clear

_ENTRY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One entry of the store.

    Attributes:
        digest: its name.
        manifest: None where it is missing or cannot be trusted.
        problem: why the plan would be refused, None for a good one.
    """

    digest: str
    manifest: Manifest | None
    problem: str | None


def entries(store: PlanStore, *, verify: bool) -> Iterator[Entry]:
    """Every entry, in order of digest; `verify` reads all bytes, otherwise manifests alone are checked."""
    with storage_errors(store.root, "listing"):
        folders = sorted(path for path in store.root.iterdir() if _ENTRY.fullmatch(path.name))
    for folder in folders:
        entry = _entry(store, folder, verify)
        if entry is not None:
            yield entry


def prune(store: PlanStore, unwanted: Callable[[Entry], bool]) -> tuple[list[Entry], list[Entry]]:
    """Delete the broken entries and the `unwanted` ones.

    Returns (deleted, kept because another process holds their lock). A plan already handed out is in its
    reader's memory and stays usable.
    """
    deleted: list[Entry] = []
    busy: list[Entry] = []
    for entry in list(entries(store, verify=True)):
        if entry.problem is not None or unwanted(entry):
            (deleted if _removed(store.root / entry.digest) else busy).append(entry)
    return deleted, busy


def _entry(store: PlanStore, folder: Path, verify: bool) -> Entry | None:
    """None for a folder that holds nothing but its lock."""
    try:
        manifest = store.verified(folder.name)[0] if verify else store.manifest(folder.name)
    except FileNotFoundError:
        unfinished = (folder / PLAN).exists() or any(folder.glob(PARTS))
        return Entry(folder.name, None, "the build never finished") if unfinished else None
    except (*REFUSALS, PermissionError) as error:
        return Entry(folder.name, None, str(error))
    return Entry(folder.name, manifest, None)


def _removed(folder: Path) -> bool:
    with storage_errors(folder, "deleting"):
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink()
            return True
    try:
        with folder_lock(folder, timeout_s=0.0):
            clear(folder)
    except RetryError:
        return False
    return True
