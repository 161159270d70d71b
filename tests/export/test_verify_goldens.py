"""Golden files: small, readable by Polygraphy, and what they say of the four networks still is true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from polygraphy.comparator import RunResults

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import ArtifactError
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.engines.specs import RECON
from dubstream.export.verify.goldens import Golden, Recorded, load_golden, save_golden, subsample
from dubstream.export.verify.inputs import Probe, probes
from dubstream.export.verify.runners import HostMemory, engine_run

# Made by: dubstream verify --artifacts DIR --quick --precision fp32 --precision fp16 --backend onnxruntime
#          --save tests/data/goldens/seeded.json      (DIR: seeded weights)
COMMITTED = Path(__file__).parents[1] / "data" / "goldens" / "seeded.json"
SOURCE = "seeded:retalk"
PROBE = probes(RECON, None, quick=True)[0]
OUTPUTS = {"coeffs": np.random.default_rng(0).normal(size=(1, 257)).astype(np.float32)}


@pytest.fixture
def golden(tmp_path: Path) -> Golden:
    path = tmp_path / "golden.json"
    save_golden(path, [Recorded("recon", "planes", SOURCE, [PROBE], [OUTPUTS])], {"numpy": "2"})
    return load_golden(path)


def test_what_was_saved_agrees_with_itself(golden: Golden, tmp_path: Path) -> None:
    assert golden.holds("recon", "planes")
    assert not golden.holds("recon", "pictures")
    (row,) = golden.compare(RECON, "planes", SOURCE, PROBE, OUTPUTS)
    assert row
    assert (row.rule, row.max_abs, row.ssim) == ("golden", 0.0, None)
    assert golden.recipe["facts"] == {"numpy": "2"}
    assert "recon planes" in list(RunResults.load(str(tmp_path / "golden.json")).keys())


def test_a_value_between_the_chosen_ones_shows_in_the_means() -> None:
    values = np.zeros((1, 3, 64, 64), np.float32)
    before = subsample("y", values)
    assert before.shape == (1, 1024 + 64)
    values[0, 1, 2, :32] = 1
    assert np.abs(subsample("y", values) - before).max() > 0.1


def test_another_output_is_a_finding(golden: Golden) -> None:
    changed = {"coeffs": OUTPUTS["coeffs"] + np.float32(2e-4)}
    (row,) = golden.compare(RECON, "planes", SOURCE, PROBE, changed)
    assert "max abs" in row.problem
    assert row.share == pytest.approx(2, rel=0.01)


def test_other_weights_or_inputs_make_a_golden_worthless(golden: Golden) -> None:
    with pytest.raises(ArtifactError, match=r"seeded:retalk, expected checkpoint:x"):
        golden.compare(RECON, "planes", "checkpoint:x", PROBE, OUTPUTS)
    other = replace(PROBE, inputs={"image": PROBE.inputs["image"] + 1})
    with pytest.raises(ArtifactError, match="other inputs"):
        golden.compare(RECON, "planes", SOURCE, other, OUTPUTS)
    assert golden.compare(RECON, "planes", SOURCE, Probe("real/1", PROBE.inputs), OUTPUTS) == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"not JSON", b"\xff\xfe", b'{"lst": [], "polygraphy_class": "RunResults"}', b"[" * 9999],
)
def test_a_file_that_is_no_golden_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "golden.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a golden file"):
        load_golden(path)
    with pytest.raises(ArtifactError, match="found none"):
        load_golden(tmp_path)


def test_a_damaged_golden_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    save_golden(path, [Recorded("recon", "planes", SOURCE, [PROBE], [OUTPUTS])], {})
    path.write_bytes(path.read_bytes().replace(b"recon planes", b"recon planet", 1))
    with pytest.raises(ArtifactError, match="not a golden file"):
        load_golden(path)


def test_the_committed_golden_is_small_and_of_all_four_networks() -> None:
    assert COMMITTED.stat().st_size < 500_000
    golden = load_golden(COMMITTED)
    for name in ("dnet", "lnet", "enet", "recon"):
        assert golden.holds(name, "planes")
        assert golden.holds(name, "pictures")


@pytest.mark.parametrize("name", ["dnet", "lnet", "enet", "recon"])
def test_the_networks_still_say_what_the_golden_says(artifacts: dict[str, Artifact], name: str) -> None:
    artifact = artifacts[name]
    (probe,) = probes(artifact.spec, None, quick=True)
    with OnnxRuntimeEngine(artifact.path, artifact.spec) as engine:
        outputs = engine_run(engine, HostMemory())(probe.inputs)
    rows = load_golden(COMMITTED).compare(artifact.spec, "planes", artifact.source, probe, outputs)
    assert len(rows) == len(artifact.spec.outputs)
    assert [row.problem for row in rows if row.problem] == []
