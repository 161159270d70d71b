"""Alignment of a face to 512 x 512, and sampling both ways."""

from __future__ import annotations

import numpy as np
import pytest
from kernels_reference import noise_picture

from dubstream.engines.errors import InternalError
from dubstream.kernels.face_align import (
    ALIGNED,
    GFPGAN_POINTS,
    GPEN_POINTS,
    Change,
    align_face,
    from_corner,
    inverse,
    sample,
    similarity,
)

FACE = np.array([[250, 200], [330, 204], [288, 250], [258, 300], [322, 303]], float)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture whose value at (x, y) is known between pixels too: linear in both."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([rows, columns, 0.5 * rows + 0.25 * columns], axis=2)


def test_the_fit_gives_the_worked_numbers_of_the_original() -> None:
    found = similarity(FACE, GPEN_POINTS)
    expected = [[1.28427781, 0.03002251, -123.39477807], [-0.03002251, 1.28427781, -9.71338067]]
    # The original's points and template are float32: 3e-5 of a position around 300 pixels.
    np.testing.assert_allclose(found, expected, atol=5e-5, rtol=0)
    assert np.hypot(found[0, 0], found[1, 0]) == pytest.approx(1.28462869, abs=1e-7)


@pytest.mark.parametrize("template", [GFPGAN_POINTS, GPEN_POINTS])
def test_a_moved_template_is_brought_back_to_itself(template: np.ndarray) -> None:
    angle, scale = 0.3, 0.4
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = template @ turn.T + (37, -12)
    affine = similarity(moved, template)
    np.testing.assert_allclose(moved @ affine[:, :2].T + affine[:, 2], template, atol=1e-9)
    np.testing.assert_allclose(inverse(affine)[:, :2], turn, atol=1e-12)


def test_the_fit_is_the_best_one() -> None:
    rng = np.random.default_rng(0)
    points = FACE + rng.normal(0, 4, FACE.shape)
    best = similarity(points, GFPGAN_POINTS)

    def error(a: float, b: float, x: float, y: float) -> float:
        fitted = points @ np.array([[a, -b], [b, a]]).T + (x, y)
        return float(np.square(fitted - GFPGAN_POINTS).sum())

    at = np.array([best[0, 0], best[1, 0], best[0, 2], best[1, 2]])
    for step in np.eye(4) * (1e-3, 1e-3, 0.1, 0.1):
        assert error(*at) < min(error(*(at + step)), error(*(at - step)))


@pytest.mark.parametrize("points", [np.full((5, 2), 7.0), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_points_without_a_face_are_refused(points: np.ndarray) -> None:
    with pytest.raises(InternalError):
        similarity(points, GPEN_POINTS)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.9, 2.0, 3.4, 7.6])
def test_sampling_hits_the_right_places_at_every_scale(scale: float) -> None:
    picture = smooth(330, 410)
    affine = np.array([[scale * 0.999, -scale * 0.04, 21.3], [scale * 0.04, scale * 0.999, 17.8]])
    found = sample(picture, affine, 40, 30, out=np.empty((30, 40, 3), np.float32))
    rows, columns = np.mgrid[0:30, 0:40]
    x, y = (affine @ np.stack([columns.ravel(), rows.ravel(), np.ones(1200)])).reshape(2, 30, 40)
    inside = (x > 10) & (x < 400) & (y > 10) & (y < 320)
    assert inside.mean() > 0.9
    # OpenCV rounds positions to 1/32 of a pixel.
    assert np.abs(found[..., 0] - y)[inside].max() < 0.04 * max(int(scale), 1)
    assert np.abs(found[..., 1] - x)[inside].max() < 0.04 * max(int(scale), 1)


def test_reducing_averages_instead_of_picking() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    affine = np.array([[4.0, 0, 1.5], [0, 4.0, 1.5]])
    found = sample(stripes, affine, 60, 60, out=np.empty((60, 60, 3), np.uint8))
    assert (found[1:-1, 1:-1] == 100).all()


def test_an_aligned_face_is_frame_plus_change() -> None:
    rng = np.random.default_rng(1)
    frame = noise_picture(rng, 360, 420)
    window = (200, 150, 380, 340)
    change = np.zeros((190, 180, 3), np.float32)
    change[20:-20, 20:-20] = rng.uniform(-40, 40, (150, 140, 3))
    to_frame = inverse(similarity(FACE, GFPGAN_POINTS))
    planes = np.empty((3, ALIGNED, ALIGNED), np.float32)
    align_face(frame, to_frame, out=planes, change=Change(change, window))
    changed = frame.astype(np.float32)
    changed[150:340, 200:380] += change
    expected = sample(
        changed, to_frame, ALIGNED, ALIGNED, out=np.empty((ALIGNED, ALIGNED, 3), np.float32),
        border=(135, 133, 132),
    )  # fmt: skip
    expected = expected.clip(0, 255)
    # One rounding of the frame's sample to a level.
    assert np.abs((planes[::-1].transpose(1, 2, 0) + 1) * 127.5 - expected).max() < 0.6
    picture = np.empty((ALIGNED, ALIGNED, 3), np.uint8)
    align_face(frame, to_frame, out=picture, change=Change(change, window))
    assert np.abs(picture - expected).max() < 1.1


def test_positions_are_counted_from_a_corner() -> None:
    affine = np.array([[2.0, -0.5, 3.0], [0.5, 2.0, 4.0]])
    np.testing.assert_allclose(from_corner(affine, 10, 20) @ (1, 2, 1), affine @ (11, 22, 1))
