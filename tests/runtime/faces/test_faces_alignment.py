"""The 3DMM network's cut: worked numbers, an independent resize, and hostile points."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import NoFaceError
from dubstream.runtime.faces.alignment import TEMPLATE, align_for_recon, reconstruction_alignment

UPWARDS = np.array([(95, 150), (160, 152), (128, 118), (101, 85), (154, 86)], float)
POINTS = UPWARDS * (1, -1) + (0, 255)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def test_worked_alignment() -> None:
    fit = reconstruction_alignment(POINTS)
    assert fit.scale == pytest.approx(1.00672281, abs=1e-8)
    assert (fit.tx, fit.ty) == pytest.approx((127.627008, 122.802198), abs=1e-6)


def test_worked_cut() -> None:
    from PIL import Image

    image = picture()
    aligned, trans = align_for_recon(image, POINTS)
    resized = np.asarray(Image.fromarray(image).resize((257, 257), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(aligned, resized[21 : 21 + 224, 16 : 16 + 224])
    assert aligned.dtype == np.uint8
    assert trans.dtype == np.float32
    np.testing.assert_allclose(trans, [256, 256, 1.00672281, 127.627008, 122.802198], rtol=1e-7)


def test_outside_the_picture_is_black() -> None:
    aligned, _ = align_for_recon(np.full((256, 256, 3), 200, np.uint8), POINTS + np.array([120, 0]))
    assert np.all(aligned[:, -60:] == 0)
    assert np.all(aligned[:100, :60] == 200)


def test_the_template_itself_needs_no_shift() -> None:
    points = TEMPLATE[:, :2] * 102 * (1, -1) + (128, 255 - 128)
    fit = reconstruction_alignment(points)
    assert fit == pytest.approx((1.0, 128.0, 128.0), abs=1e-9)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 2)),
        np.full((5, 2), np.nan),
        (POINTS - 128) * 0.05 + 128,
        (POINTS - 128) * 40 + 128,
    ],
)
def test_points_out_of_scale_are_refused(points: np.ndarray) -> None:
    with pytest.raises(NoFaceError):
        align_for_recon(picture(), points)


def test_random_points_give_a_picture_or_a_named_error() -> None:
    rng = np.random.default_rng(3)
    image = picture()
    for _ in range(100):
        try:
            aligned, trans = align_for_recon(image, rng.normal(128, 10 ** rng.uniform(0, 3), (5, 2)))
        except NoFaceError:
            continue
        assert aligned.shape == (224, 224, 3)
        assert np.isfinite(trans).all()
