"""The judge of exports: it measures right, notices small faults and names all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from export_toys import TOY

from dubstream.engines.contract import Tolerance
from dubstream.engines.errors import FidelityError
from dubstream.export.fidelity import Array, compare, cosine, fidelity_cases, judge, measure

LOOSE = Tolerance(0.5, 0.9, "test")


def outputs(inputs: Mapping[str, Array]) -> dict[str, Array]:
    image, driver = inputs["image"], inputs["driver"]
    picture = np.concatenate([image, image[:, :2] * 2], axis=1) + driver.sum(1)[:, None, None, None]
    return {"picture": picture, "code": picture.mean((2, 3))}


def test_metrics_by_hand() -> None:
    want, got = np.array([3.0, 4.0], np.float32), np.array([3.0, 3.0], np.float32)
    row = measure("c", "y", want, got, LOOSE)
    assert (row.max_abs, row.mean_abs, row.tolerance_share) == (1.0, 0.5, 2.0)
    assert row.relative_l2 == pytest.approx(1 / 5)
    assert row.cosine == pytest.approx(21 / (5 * 18**0.5))


def test_metrics_are_not_rounded_to_float32() -> None:
    want = np.full(1000, 1e4, np.float32)
    row = measure("c", "y", want, np.nextafter(want, np.float32(2e4)), LOOSE)
    assert row.mean_abs == pytest.approx(float(np.spacing(np.float32(1e4))))


@pytest.mark.parametrize(
    ("a", "b", "expected"), [([0, 0], [0, 0], 1.0), ([0, 0], [0, 1], 0.0), ([1, 2], [-1, -2], -1.0)]
)
def test_cosine_of_special_vectors(a: list[float], b: list[float], expected: float) -> None:
    assert cosine(np.array(a, np.float64), np.array(b, np.float64)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (np.array([1.0, 2.6], np.float32), "max abs 0.6 (allowed 0.5)"),
        (np.array([1.0, np.nan], np.float32), "0 non-finite values in the original, 1 in the export"),
        (np.array([np.inf, np.nan], np.float32), "2 in the export"),
        (np.array([1.0, 2.0], np.float64), "got float64"),
        (np.array([[1.0, 2.0]], np.float32), "got float32 (1, 2)"),
    ],
)
def test_problems_are_named(got: Array, message: str) -> None:
    _, problem = compare("uniform/1", "y", np.array([1.0, 2.0], np.float32), got, LOOSE)
    assert problem is not None
    assert problem.startswith("uniform/1 y: ")
    assert message in problem


def test_low_cosine_is_a_problem_even_within_max_abs() -> None:
    want, got = np.array([0.1, 0.0], np.float32), np.array([0.0, 0.1], np.float32)
    assert compare("c", "y", want, got, LOOSE)[1] is not None
    assert compare("c", "y", want, want, LOOSE)[1] is None


def test_nan_in_both_is_still_a_problem() -> None:
    both = np.array([1.0, np.nan], np.float32)
    assert "1 non-finite values in the original, 1 in the export" in str(
        compare("c", "y", both, both, LOOSE)[1]
    )


def test_cases_cover_batches_and_ends_of_ranges() -> None:
    uniform, ends = fidelity_cases(TOY)
    assert sorted(end - first for first, end in uniform.batches) == [1, 2, 3]
    for case, items in ((uniform, 3), (ends, 1)):
        for tensor in TOY.inputs:
            tensor.check(case.inputs[tensor.name])
            assert case.inputs[tensor.name].shape[0] == items
    assert set(np.unique(ends.inputs["image"])) == {0.0, 1.0}
    assert set(np.unique(ends.inputs["driver"])) == {-1.0, 1.0}
    assert 0.0 <= uniform.inputs["image"].min() < 0.01
    assert 0.99 < uniform.inputs["image"].max() <= 1.0
    assert np.array_equal(uniform.inputs["image"], fidelity_cases(TOY)[0].inputs["image"])


def test_judge_passes_an_equal_export() -> None:
    cases = fidelity_cases(TOY)
    rows = judge(TOY, cases, [outputs(case.inputs) for case in cases], outputs)
    assert [row.case for row in rows[::2]] == ["uniform/1", "uniform/2", "uniform/3", "ends/1"]
    assert max(row.tolerance_share for row in rows) == 0.0


def test_judge_names_every_failing_case() -> None:
    def wrong_at_batch_2(inputs: Mapping[str, Array]) -> dict[str, Any]:
        good = outputs(inputs)
        if inputs["image"].shape[0] == 2:
            return {"picture": good["picture"] + 1e-4, "code": good["code"][::-1]}
        return good

    cases = fidelity_cases(TOY)
    with pytest.raises(FidelityError) as caught:
        judge(TOY, cases, [outputs(case.inputs) for case in cases], wrong_at_batch_2)
    assert caught.value.message.count("uniform/2") == 2
    assert "uniform/1" not in caught.value.message
    assert caught.value.exit_code == 70
