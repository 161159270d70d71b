"""Crop box, quad, mask and lip box: worked numbers, and points that describe no face."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import NoFaceError
from dubstream.runtime.faces import geometry
from dubstream.runtime.faces.geometry import Box, Pads

FRONTAL = np.array([(300, 300), (400, 310), (350, 360), (310, 420), (390, 425)], float)
IN_CROP = np.array([(90, 100), (160, 104), (125, 140), (98, 170), (152, 173)], float)


def test_worked_crop_box() -> None:
    assert geometry.crop_box(FRONTAL, 844, 844) == Box(129, 96, 571, 538)


def test_crop_box_is_clipped_to_the_frame() -> None:
    assert geometry.crop_box(FRONTAL, 500, 400) == Box(129, 96, 500, 400)
    shifted = geometry.crop_box(FRONTAL - (250, 250), 844, 844)
    assert shifted[:2] == (0, 0)


def test_worked_quad() -> None:
    corners = geometry.quad(IN_CROP)
    np.testing.assert_allclose(corners.mean(axis=0), (125, 108.95), atol=1e-9)
    np.testing.assert_allclose((corners[3] - corners[0]) / 2, (140.170774, 4.019234), atol=1e-6)
    np.testing.assert_allclose((corners[1] - corners[0]) / 2, (-4.019234, 140.170774), atol=1e-6)
    expected = [[0.912422, 0.026163, 10.627585], [-0.026163, 0.912422, 31.418862]]
    np.testing.assert_allclose(geometry.quad_to_crop(IN_CROP), expected, atol=1e-6)


def test_quad_to_crop_sends_corners_to_corners() -> None:
    corners = np.c_[geometry.quad(IN_CROP) + 0.5, np.ones(4)]
    expected = [(0, 0), (0, 256), (256, 256), (256, 0)]
    np.testing.assert_allclose(corners @ geometry.quad_to_crop(IN_CROP).T, expected, atol=1e-9)


def test_binary_mask_is_the_quad() -> None:
    points = IN_CROP * 0.4 + 70  # small enough for the whole quad to lie in the picture
    mask = geometry.quad_mask(points)
    assert mask.shape == (256, 256)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0.0, 1.0}
    side = np.hypot(*(geometry.quad(points)[3] - geometry.quad(points)[0]))
    assert mask.sum() == pytest.approx(side**2, rel=0.01)
    centre = geometry.quad(points).mean(axis=0).round().astype(int)
    assert mask[centre[1], centre[0]] == 1


def test_soft_mask_falls_to_zero_at_quad_and_picture_border() -> None:
    mask = geometry.quad_mask(IN_CROP, feather=16)
    assert mask.max() == 1
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.max() == 0
    assert np.abs(np.diff(mask, axis=1)).max() < 1.01 / 16
    assert np.all(mask <= geometry.quad_mask(IN_CROP))


def test_points_follow_their_crop() -> None:
    box = Box(129, 96, 641, 352)
    inside = geometry.points_in_crop(
        [(128.5, 95.5), (640.5, 95.5), (385, 200), (300, 300), (640.5, 351.5)], box
    )
    np.testing.assert_allclose(inside[0], (-0.5, -0.5))
    np.testing.assert_allclose(inside[4], (255.5, 255.5))


def test_lip_box_holds_the_mouth_in_its_lower_half() -> None:
    box = geometry.padded_box(geometry.face_extent(FRONTAL), 844, 844)
    middle = (box.y1 + box.y2) / 2
    assert FRONTAL[:2, 1].max() < middle < FRONTAL[3:, 1].min()
    assert box.x1 < FRONTAL[:, 0].min() < FRONTAL[:, 0].max() < box.x2
    assert box.y2 > FRONTAL[3:, 1].max() + 0.5 * 100


def test_upstream_pads_are_pixels_and_boxes_truncated() -> None:
    box = geometry.padded_box((100.9, -3.2, 300.9, 250.7), 640, 260, scale_pads=False)
    assert box == Box(100, 0, 300, 260)
    box = geometry.padded_box((100.9, 10, 300.9, 200.7), 640, 480, Pads(1, 2, 3, 4), scale_pads=False)
    assert box == Box(97, 9, 304, 202)


def test_native_pads_grow_with_the_face() -> None:
    assert geometry.padded_box((100, 100, 300, 350), 900, 900) == Box(100, 100, 300, 370)
    assert geometry.padded_box((100, 100, 300, 600), 900, 900) == Box(100, 100, 300, 640)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 2)), "coincide"),
        (np.full((5, 2), np.nan), "not usable numbers"),
        (np.full((5, 2), np.inf), "not usable numbers"),
        (FRONTAL * 1e9, "not usable numbers"),
        (FRONTAL[:4], r"shape \(4, 2\)"),
        (np.array([(0, 0), (100, 0), (50, -50), (0, -100), (100, -100)], float), "above the eyes"),
    ],
)
def test_points_without_a_face_are_refused(points: np.ndarray, message: str) -> None:
    for function in (geometry.quad, geometry.quad_to_crop, geometry.quad_mask):
        with pytest.raises(NoFaceError, match=message):
            function(points)


def test_collinear_points_still_give_a_box() -> None:
    line = np.array([(100, 100), (100, 100), (100, 120), (100, 150), (100, 150)], float)
    box = geometry.crop_box(line, 400, 400)
    assert box.x1 < 100 < box.x2
    assert np.isfinite(geometry.quad(line)).all()


@pytest.mark.parametrize("offset", [(5000, 0), (0, 5000), (-5000, -5000)])
def test_a_face_outside_the_frame_is_refused(offset: tuple[int, int]) -> None:
    with pytest.raises(NoFaceError, match="shows less than 16 px"):
        geometry.crop_box(FRONTAL + offset, 844, 844)
    with pytest.raises(NoFaceError, match="shows less than 16 px"):
        geometry.padded_box(geometry.face_extent(FRONTAL + offset), 844, 844)
    with pytest.raises(NoFaceError, match="not usable"):
        geometry.padded_box((np.nan, 0, 1, 1), 844, 844)


def test_random_points_never_give_nan() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        points = rng.normal(0, 10 ** rng.uniform(-3, 5), (5, 2))
        try:
            box = geometry.crop_box(points, 640, 360)
            mask = geometry.quad_mask(points, 8, size=16)
        except NoFaceError:
            continue
        assert 0 <= box.x1 < box.x2 <= 640
        assert 0 <= box.y1 < box.y2 <= 360
        assert np.isfinite(mask).all()
