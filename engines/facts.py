"""Facts as keys: one JSON spelling and its digest, for whatever is stored under what determines it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(facts: Mapping[str, Any]) -> bytes:
    """The one JSON spelling of `facts`."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_facts(facts: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `facts`: equal facts, equal key, on every machine."""
    return hashlib.sha256(canonical(facts)).hexdigest()
