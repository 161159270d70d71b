"""What a folder of units was made from, in words beside it: so that an error can say what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dubstream.engines.atomic import publish
from dubstream.engines.errors import StorageError, UsageError
from dubstream.engines.facts import canonical
from dubstream.engines.storage import read_plain

FACTS_FILE = "made-from.txt"
"""Not ``.json``: those are the sidecars of units."""

_LARGEST = 1 << 20  # bytes
_SHOWN = 28  # characters of a value


def keep_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts into the folder, unless they are there."""
    text = canonical(facts)
    path = folder / FACTS_FILE
    if not path.is_file() or path.read_bytes() != text:
        publish(path, text)


def read_facts(folder: Path) -> dict[str, Any] | None:
    """The facts kept in a folder; None where there are none that can be read."""
    try:
        facts = json.loads(read_plain(folder / FACTS_FILE, _LARGEST))
    except (OSError, StorageError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def differences(kept: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One entry a fact that differs, e.g. ``face.selector is 'center', not 'largest'``."""
    found = []
    for name in sorted(kept.keys() | wanted.keys()):
        ours, theirs = wanted.get(name), kept.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += differences(theirs, ours, f"{prefix}{name}.")
        elif ours != theirs:
            found.append(f"{prefix}{name} is {_shown(theirs)}, not {_shown(ours)}")
    return found


def nearest_difference(folders: list[Path], wanted: Mapping[str, Any]) -> str:
    """How the folder whose facts come nearest differs from what is wanted; empty where none has facts."""
    kept = [facts for folder in folders if (facts := read_facts(folder)) is not None]
    found = sorted((differences(facts, wanted) for facts in kept), key=len)
    return "; ".join(found[0]) if found else ""


def not_a_preparation(folder: Path, problem: str) -> UsageError:
    """The error for a folder given with `--prepared` that cannot be used."""
    return UsageError(
        f"--prepared {folder}: {problem}",
        hint="dubstream prepare VIDEO with the same options makes one that fits, or leave --prepared out",
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
