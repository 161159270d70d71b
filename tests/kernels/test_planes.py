from __future__ import annotations

import numpy as np
import pytest
from kernels_reference import noise_picture

from dubstream.engines.errors import InternalError
from dubstream.kernels.composite import composite
from dubstream.kernels.planes import BGR_UNIT, RGB_SIGNED, RGB_UNIT, PlaneLayout, from_planes, to_planes

LAYOUTS = [RGB_SIGNED, RGB_UNIT, BGR_UNIT]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planes_hold_the_formula(layout: PlaneLayout) -> None:
    picture = noise_picture(np.random.default_rng(0), 13, 17)
    out = np.empty((3, 13, 17), np.float32)
    to_planes(picture, layout, out=out)
    unit = picture.astype(np.float64) / 255
    expected = unit * 2 - 1 if layout is RGB_SIGNED else unit
    expected = expected if layout is BGR_UNIT else expected[:, :, ::-1]
    assert np.abs(out - expected.transpose(2, 0, 1)).max() < 1.2e-7


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_level_survives_the_way_there_and_back(layout: PlaneLayout) -> None:
    levels = np.arange(256, dtype=np.uint8)
    picture = np.stack([levels, levels[::-1], np.roll(levels, 9)], axis=-1).reshape(8, 32, 3)
    planes = np.empty((3, 8, 32), np.float32)
    back = np.empty_like(picture)
    from_planes(to_planes(picture, layout, out=planes), layout, out=back)
    assert (back == picture).all()


def test_rounding_clamping_and_truncation() -> None:
    levels = np.array([-9.0, 0.4, 0.5, 1.5, 2.5, 254.5, 255.4, 1e4], np.float32)
    planes = np.broadcast_to(levels / np.float32(255), (3, 1, 8)).copy()
    exact = planes[0, 0] * np.float32(255)
    out = np.empty((1, 8, 3), np.uint8)
    before = planes.copy()
    from_planes(planes, BGR_UNIT, out=out)
    assert (out[0, :, 1] == np.clip(np.rint(exact), 0, 255)).all()
    from_planes(planes, BGR_UNIT, out=out, truncate=True)
    assert (out[0, :, 1] == np.clip(exact, 0, 255).astype(np.uint8)).all()
    assert (planes == before).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_an_error(bad: float) -> None:
    planes = np.zeros((3, 4, 5), np.float32)
    planes[1, 2, 3] = bad
    with pytest.raises(InternalError, match="1 of 60 values"):
        from_planes(planes, RGB_UNIT, out=np.empty((4, 5, 3), np.uint8))


def test_composite_is_exact_at_both_ends_and_where_pictures_agree() -> None:
    rng = np.random.default_rng(3)
    inside, outside = noise_picture(rng, 21, 33), noise_picture(rng, 21, 33)
    inside[:, :7] = outside[:, :7]
    mask = rng.random((21, 33), dtype=np.float32)
    mask[:5], mask[5:9] = 0, 1
    out = np.empty_like(inside)
    composite(inside, outside, mask, out=out)
    assert (out[:5] == outside[:5]).all()
    assert (out[5:9] == inside[5:9]).all()
    assert (out[:, :7] == outside[:, :7]).all()
    exact = outside + (inside.astype(np.float64) - outside) * mask[..., None]
    assert np.abs(out - exact).max() <= 0.5 + 1e-4


def test_composite_may_write_over_its_input() -> None:
    rng = np.random.default_rng(4)
    inside, outside = noise_picture(rng, 6, 5), noise_picture(rng, 6, 5)
    mask = rng.random((6, 5), dtype=np.float32)
    expected = composite(inside, outside, mask, out=np.empty_like(inside))
    assert composite(inside, outside, mask, out=outside) is outside
    assert (outside == expected).all()


def test_composite_names_a_wrong_mask() -> None:
    picture = np.zeros((6, 5, 3), np.uint8)
    with pytest.raises(InternalError, match="mask is float32"):
        composite(picture, picture, np.zeros((5, 6), np.float32), out=picture)
