"""The README's tables and the committed rows are in step."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy_networks import publish_toys

from dubstream.benchmarks.bench.frame_cost.cost import MODES
from dubstream.benchmarks.bench.method.row_files import read_rows
from dubstream.benchmarks.bench.report.data import find
from dubstream.benchmarks.bench.report.points import FidelityPoint
from dubstream.benchmarks.bench.report.readme import BLOCKS, NAMES, main, rewritten
from dubstream.benchmarks.bench.report.readme_fidelity import fidelity_rows
from dubstream.engines.artifact import Artifact, artifact_paths
from dubstream.engines.errors import ArtifactError, UsageError, VerificationError
from dubstream.engines.sidecar import FidelityRow
from dubstream.engines.specs import SPECS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the README and of the rows."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    return tmp_path


def test_the_readme_is_what_the_rows_say() -> None:
    main(["--root", str(ROOT), "--check"])


def test_every_block_is_in_the_readme_and_no_row_of_it_is_left_out() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- rows:([a-z]+) -->", text) == list(BLOCKS)
    skipped = find(read_rows(sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")))).skipped
    assert skipped == {}


@pytest.mark.parametrize(("pattern", "number"), [("networks-", 4), ("dub-", 1), ("fidelity-", 3)])
def test_a_changed_row_changes_the_readme(repository: Path, pattern: str, number: int) -> None:
    (path,) = (repository / "benchmarks" / "results").glob(f"{pattern}*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for field in ("median", "fps", "max_abs"):
            if field in row:
                row[field] *= 1.05
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(VerificationError, match="not what benchmarks/results says"):
        main(["--root", str(repository), "--check"])
    main(["--root", str(repository)])
    main(["--root", str(repository), "--check"])
    before, after = ((root / "README.md").read_text().splitlines() for root in (ROOT, repository))
    changed = [line for line in after if line not in before]
    assert len(changed) >= number
    assert all(line.startswith("|") or "peak" in line for line in changed)


def test_every_network_and_every_mode_has_its_place() -> None:
    assert list(NAMES) == list(SPECS)
    block = (ROOT / "README.md").read_text().partition("<!-- rows:cost -->")[2].partition("<!--")[0]
    assert [mode.name for mode in MODES] == [
        line.split(" | ")[0].strip("| ") for line in block.splitlines()[3:]
    ]


def test_a_changed_table_is_noticed_and_text_around_it_is_left_alone(repository: Path) -> None:
    readme = repository / "README.md"
    text = readme.read_text()
    readme.write_text(
        text.replace("| L-Net | 1 |", "| L-Net | 2 |", 1).replace("## Measured", "## Our figures")
    )
    with pytest.raises(VerificationError):
        main(["--root", str(repository), "--check"])
    main(["--root", str(repository)])
    assert readme.read_text() == text.replace("## Measured", "## Our figures")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "found none"),
        ("<!-- rows:dub -->\n<!-- /rows:dub -->", "no rows for the block 'rows:dub'"),
        ("<!-- rows:what -->\n<!-- /rows:what -->", "received the block 'rows:what'"),
    ],
)
def test_a_readme_without_its_blocks_or_rows_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rewritten(text, [])


def test_a_folder_without_a_readme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"README\.md"):
        main(["--root", str(tmp_path)])


def measured(artifact: Artifact) -> Artifact:
    """The toy with two made-up cases in its sidecar."""
    cases = tuple(
        FidelityRow(name, artifact.spec.outputs[0].name, error, error / 2, error, 1 - error, error, psnr)
        for name, error, psnr in (("uniform/1", 0.25, 50.0), ("real/2", 0.5, 40.0))
    )
    sidecar = replace(artifact.sidecar, fidelity=cases)
    artifact_paths(artifact.path.parent, artifact.spec.name)[1].write_bytes(sidecar.to_bytes())
    return replace(artifact, sidecar=sidecar)


def test_fidelity_rows_are_the_worst_case_of_every_artifact(tmp_path: Path) -> None:
    for artifact in publish_toys(tmp_path).values():
        measured(artifact)
    rows = fidelity_rows(tmp_path)
    assert [row["stage"] for row in rows] == [f"fidelity/{name}/fp32" for name in SPECS]
    findings = find(json.loads(json.dumps(rows)))
    points = findings.all(FidelityPoint)
    assert [(point.cases, point.max_abs, point.cosine, point.psnr) for point in points] == [
        (2, 0.5, 0.5, 40.0)
    ] * len(SPECS)
    assert rows[0]["worst"].startswith("real/2")
    assert rows[0]["source"] == "seeded:toy"


def test_artifacts_without_measured_fidelity_give_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found none"):
        fidelity_rows(tmp_path)
    publish_toys(tmp_path)
    with pytest.raises(ArtifactError, match="expected measured fidelity"):
        fidelity_rows(tmp_path)
