"""Figures and verdicts: what is not finite is counted apart, and each rule judges by its own measure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.sidecar import FidelityRow
from dubstream.engines.specs import RECON
from dubstream.export.fidelity import measure
from dubstream.export.verify.agreement import FLOOR_FACTOR, ROUNDING_FACTOR, Judge
from dubstream.export.verify.inputs import Probe
from dubstream.export.verify.result import CaseRow

PICTURE = TensorSpec("picture", "float32", (BATCH, 3, 16, 16), 0.0, 1.0, "planes")
SPEC: NetworkSpec = replace(
    RECON,
    outputs=(PICTURE,),
    tolerances={"picture": Tolerance(0.1, 0.99, "a test", relative_l2=0.2, psnr=20.0)},
)
WANT = np.random.default_rng(0).uniform(0, 1, (2, 3, 16, 16)).astype(np.float32)


def judged(got: np.ndarray, floors: dict[tuple[str, str], float] | None = None) -> CaseRow:
    (row,) = Judge(SPEC, floors or {})(Probe("p/2", {}), {"picture": WANT}, {"picture": got})
    return row


def test_equal_pictures_agree_in_every_figure() -> None:
    row = judged(WANT.copy())
    assert row
    assert (row.max_abs, row.mean_abs, row.relative_l2, row.share) == (0, 0, 0, pytest.approx(0, abs=1e-9))
    assert (row.cosine, row.ssim, row.psnr) == (pytest.approx(1), pytest.approx(1), None)


def test_figures_are_what_they_are_called() -> None:
    got = WANT + np.float32(0.05)
    row = judged(got)
    assert row
    assert row.max_abs == pytest.approx(0.05, rel=1e-4)
    assert row.psnr == pytest.approx(26.02, abs=0.01)
    assert row.share == pytest.approx(0.5, rel=1e-3)  # of the largest difference and of the noise's amplitude
    assert row.ssim is not None
    assert 0.9 < row.ssim < 1


def test_the_measure_that_uses_most_of_its_tolerance_decides_the_share() -> None:
    got = WANT * np.float32(0.85)
    row = judged(got)
    assert not row
    assert row.relative_l2 == pytest.approx(0.15, rel=1e-3)
    assert row.share == pytest.approx(float(np.abs(WANT).max()) * 0.15 / 0.1, rel=1e-3)
    assert "max abs" in row.problem


def test_what_is_not_finite_is_counted_apart_on_each_side() -> None:
    got = WANT.copy()
    got[0, 0, 0, :3] = [np.nan, np.inf, -np.inf]
    row = judged(got)
    assert not row
    assert (row.nan, row.inf) == ((0, 1), (0, 2))
    assert row.max_abs == 0  # the finite rest is equal
    assert "3 in the export" in row.problem


def test_another_shape_is_a_finding() -> None:
    row = judged(WANT[:, :2])
    assert "(2, 2, 16, 16)" in row.problem
    assert row.ssim is None


@pytest.mark.parametrize(("error", "holds"), [(0.9, True), (1.1, False)])
def test_the_noise_floor_replaces_the_tolerance_where_there_is_one(error: float, holds: bool) -> None:
    floor = 0.02
    got = WANT + np.float32(error * FLOOR_FACTOR * floor)
    row = judged(got, {("p/2", "picture"): floor})
    assert bool(row) is holds
    assert (row.rule, row.allowed) == ("noise floor", pytest.approx(FLOOR_FACTOR * floor))
    assert row.share == pytest.approx(error, rel=1e-4)
    assert row.problem.startswith("p/2 picture: max abs") is not holds


def test_a_floor_below_the_tolerance_changes_nothing_and_excuses_no_nan() -> None:
    got = WANT.copy()
    got[1, 2, 3, 4] = np.nan
    row = judged(got, {("p/2", "picture"): 1e-9})
    assert row.allowed == 0.1
    assert "non-finite" in row.problem


def floor(error: float) -> FidelityRow:
    """What `judged` measures where every value is `error` too large."""
    return measure("p/2", "picture", WANT, WANT + np.float32(error), SPEC.tolerances["picture"], 1.0)


@pytest.mark.parametrize(("error", "holds"), [(0.9, True), (1.1, False)])
def test_the_rounding_floor_is_a_bound_for_every_measure(error: float, holds: bool) -> None:
    got = WANT + np.float32(error * ROUNDING_FACTOR * 0.1)
    (row,) = Judge(SPEC, rounding={("p/2", "picture"): floor(0.1)})(
        Probe("p/2", {}), {"picture": WANT}, {"picture": got}
    )
    assert bool(row) is holds
    assert (row.rule, row.allowed) == ("rounding floor", pytest.approx(2 * ROUNDING_FACTOR * 0.1, rel=1e-3))
    assert row.share == pytest.approx(error, rel=1e-2)
    assert not judged(got)  # the tolerance alone would not have it


def test_a_rounding_floor_below_the_tolerance_changes_nothing() -> None:
    got = WANT + np.float32(0.05)
    (row,) = Judge(SPEC, rounding={("p/2", "picture"): floor(0.001)})(
        Probe("p/2", {}), {"picture": WANT}, {"picture": got}
    )
    assert row == judged(got)
    assert row.rule == "tolerance"


@pytest.mark.parametrize(("byte", "holds"), [(2.0, True), (1.0, False)])
def test_the_right_bytes_of_a_nearly_black_picture_hold(byte: float, holds: bool) -> None:
    tensor = TensorSpec("picture", "uint8", (BATCH, 16, 16, 3), 0.0, 255.0, "pixels")
    tolerance = Tolerance(12.0, 0.9999, "a test", relative_l2=1e-2, psnr=50.0)
    spec = replace(SPEC, outputs=(tensor,), tolerances={"picture": tolerance})
    want = np.full((1, 16, 16, 3), 1.84, np.float32)
    (row,) = Judge(spec)(Probe("p/1", {}), {"picture": want}, {"picture": np.full_like(want, byte)})
    assert bool(row) is holds
    assert (row.share <= 1) is holds
