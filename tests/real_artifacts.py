"""The real networks, exported once per version of the exporting code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dubstream.engines.artifact import Artifact, open_artifact
from dubstream.engines.cache import cache_root
from dubstream.engines.specs import spec_of
from dubstream.export.command import export_networks
from dubstream.runtime.artifacts import open_all

ROOT = Path(__file__).resolve().parents[1]
FOLDER_VARIABLE = "DUBSTREAM_ARTIFACTS"


def real_artifacts() -> dict[str, Artifact]:
    """Artifacts of all networks with seeded weights.

    From the folder in $DUBSTREAM_ARTIFACTS, or exported into the cache under the digest of the code that
    makes them: minutes the first time, nothing afterwards, and never the work of older code.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return open_all(Path(named))
    export_networks([], checkpoints=None, weights="seeded", artifacts=_folder(), threads=2)
    return open_all(_folder())


def half_artifact(name: str, precision: str) -> Artifact:
    """The artifact of one network in a half precision, as `real_artifacts`."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return open_artifact(Path(named), spec_of(name, precision), precision)
    (made,) = export_networks(
        [name], checkpoints=None, weights="seeded", artifacts=_folder(), precision=precision, threads=2
    )
    return made


def _folder() -> Path:
    return cache_root() / "test-artifacts" / _code_digest()


def _code_digest() -> str:
    digest = hashlib.sha256()
    exporting = {path for path in (ROOT / "export").rglob("*.py") if "verify" not in path.parts}
    for path in sorted([*exporting, *(ROOT / "engines").glob("*specs.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
