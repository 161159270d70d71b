"""Fidelity rows from artifacts: what their exports measured, the worst case of each.

`python -m dubstream.benchmarks.bench.report.readme_fidelity ARTIFACTS FILE.jsonl` reads the sidecars of a
folder of artifacts, whose digests it verifies, and writes one row per network and precision. Nothing is
computed again: an artifact has its name because these figures held.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dubstream.benchmarks.bench.method.row_files import check_target, exit_with, write_rows
from dubstream.engines.artifact import Artifact, artifact_paths, open_artifact
from dubstream.engines.errors import ArtifactError
from dubstream.engines.specs import SPECS, spec_of

PRECISIONS = ("fp32", "fp16", "bf16")


def fidelity_rows(folder: Path) -> list[dict[str, Any]]:
    """A row per artifact in `folder`, ``fidelity/NETWORK/PRECISION``.

    Raises:
        ArtifactError: there is none, or one is not what its sidecar says.
    """
    rows = [_row(artifact) for artifact in _artifacts(folder)]
    if not rows:
        raise ArtifactError(
            f"{folder}: expected artifacts, found none", hint=f"dubstream export --artifacts {folder}"
        )
    return rows


def _artifacts(folder: Path) -> Iterator[Artifact]:
    for name in SPECS:
        for precision in PRECISIONS:
            if artifact_paths(folder, name, precision)[1].exists():
                yield open_artifact(folder, spec_of(name, precision), precision)


def _row(artifact: Artifact) -> dict[str, Any]:
    sidecar, cases = artifact.sidecar, artifact.sidecar.fidelity
    if not cases:
        raise ArtifactError(f"{artifact.path}: expected measured fidelity in its sidecar, found none")
    worst = max(cases, key=lambda case: case.tolerance_share)
    noises = [case.psnr for case in cases if case.psnr is not None]
    return {
        "stage": f"fidelity/{sidecar.network}/{sidecar.precision}",
        "n": len(cases),
        "worst": f"{worst.case} {worst.output}",
        "max_abs": worst.max_abs,
        "tolerance": artifact.spec.tolerances[worst.output].max_abs,
        "tolerance_share": worst.tolerance_share,
        "relative_l2": max(case.relative_l2 for case in cases),
        "cosine": min(case.cosine for case in cases),
        "psnr": min(noises) if noises else None,
        "recipe": f"{sidecar.recipe} {sidecar.recipe_version}",
        "source": sidecar.source,
        "sha256": sidecar.sha256,
        "created": sidecar.created,
        "versions": sidecar.tools,
    }


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description="Write fidelity rows of a folder of artifacts.")
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("rows", type=Path, help="JSON lines file to write")
    chosen = parser.parse_args()
    check_target(chosen.rows)
    write_rows(chosen.rows, fidelity_rows(chosen.artifacts))


if __name__ == "__main__":
    exit_with(main)
