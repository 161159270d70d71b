"""Filters over time: worked numbers of the original's, symmetry and reach of ours."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.runtime.faces.smoothing import smooth, smooth_boxes_upstream

BOXES = np.array(
    [
        (100, 50, 200, 180),
        (103, 52, 204, 181),
        (107, 55, 207, 186),
        (101, 51, 199, 179),
        (110, 60, 210, 190),
        (90, 40, 190, 170),
    ]
)
WORKED = {
    1: [(100, 50, 200, 180)],
    3: [(105, 53, 205, 183), (105, 53, 205, 183), (106, 54, 206, 184)],
    4: [(101, 51, 199, 179)] * 4,
    6: [
        (104, 53, 204, 183),
        (102, 51, 202, 181),
        (102, 51, 201, 181),
        (101, 50, 200, 180),
        (101, 50, 200, 180),
        (99, 48, 198, 178),
    ],
}


@pytest.mark.parametrize("count", WORKED)
def test_worked_upstream_boxes(count: int) -> None:
    before = BOXES.copy()
    assert [tuple(row) for row in smooth_boxes_upstream(BOXES[:count]).tolist()] == WORKED[count]
    np.testing.assert_array_equal(BOXES, before)


def test_upstream_boxes_are_whole_numbers() -> None:
    with pytest.raises(InternalError, match="whole numbers"):
        smooth_boxes_upstream(BOXES.astype(float))


def test_smooth_has_no_lag() -> None:
    values = np.random.default_rng(1).standard_normal((31, 4))
    np.testing.assert_allclose(smooth(values[::-1], 4), smooth(values, 4)[::-1], atol=1e-12)
    ramp = np.linspace(0, 300, 31)[:, None] ** 2
    np.testing.assert_allclose(smooth(ramp, 4), ramp, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6])
def test_smooth_takes_short_series(count: int) -> None:
    values = np.arange(count * 2, dtype=float).reshape(count, 2)
    np.testing.assert_allclose(smooth(values, 4), values, atol=1e-12)


def test_smooth_reduces_noise_by_the_filter_gain() -> None:
    noise = np.random.default_rng(2).standard_normal(4000)
    ratio = smooth(noise, 4, 2)[10:-10].std() / noise.std()
    assert ratio == pytest.approx(
        np.sqrt(59 / 231), rel=0.05
    )  # centre weight of the 9-point quadratic filter
