"""The real networks, exported once per version of the exporting code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dubstream.engines.artifact import Artifact, open_artifact
from dubstream.engines.cache import cache_root, folder_lock
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.specs import spec_of
from dubstream.engines.storage import make_private_folder
from dubstream.engines.weights import SEED_SALT
from dubstream.export.command import export_networks
from dubstream.runtime.artifacts import open_all

ROOT = Path(__file__).resolve().parents[1]
FOLDER_VARIABLE = "DUBSTREAM_ARTIFACTS"
EVERY_VARIABLE = "DUBSTREAM_EVERY_NETWORK"
"""Set to 1 it lets tests of exported networks run on all of them; without it, on the cheap ones."""


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


def every_network() -> bool:
    """Whether tests are to take the networks that cost minutes, too."""
    return os.environ.get(EVERY_VARIABLE, "") == "1"


def half_artifact(name: str, precision: str) -> Artifact:
    """The artifact of one network in a half precision, as `real_artifacts`."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return open_artifact(Path(named), spec_of(name, precision), precision)
    (made,) = export_networks(
        [name], checkpoints=None, weights="seeded", artifacts=_folder(), precision=precision, threads=2
    )
    return made


def half_graph(name: str, precision: str) -> tuple[Path, NetworkSpec]:
    """The graph of `half_artifact` and its spec, without the range audit and the comparison.

    For what only reads the graph: of the minutes a half-precision export takes, nearly all go into those two.
    """
    folder = make_private_folder(_folder() / "graphs")
    path = folder / f"{name}.{precision}.onnx"
    with folder_lock(folder):
        if not path.exists():
            draft = path.with_suffix(".part")
            spec = _export_graph(name, precision, draft)
            draft.replace(path)
            return path, spec
    return path, spec_of(name, precision)


def _export_graph(name: str, precision: str, path: Path) -> NetworkSpec:
    import torch

    from dubstream.export.onnx_export import check_onnx, export_onnx
    from dubstream.export.recipes import RECIPES
    from dubstream.export.seeded import seeded_state

    recipe = RECIPES[name]
    form = recipe.half(precision)
    plain = recipe.factory.build()
    state = seeded_state(plain, recipe.factory.seed_rule, salt=SEED_SALT)
    plain.load_state_dict(state, strict=True, assign=True)
    deployable = recipe.factory.deployable(plain)
    form.recipe.apply(deployable)
    pictures = form.pictures(deployable, getattr(torch, form.recipe.dtype))
    export_onnx(pictures, form.spec, path, form.recipe.opset)
    check_onnx(path, form.spec, form.recipe.opset)
    return form.spec


def _folder() -> Path:
    return cache_root() / "test-artifacts" / _code_digest()


def _code_digest() -> str:
    digest = hashlib.sha256()
    exporting = {path for path in (ROOT / "export").rglob("*.py") if "verify" not in path.parts}
    contract = [*(ROOT / "engines").glob("*specs.py"), ROOT / "engines" / "recipe_versions.py"]
    for path in sorted([*exporting, *contract]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
