"""The original's fits of five points and its choice of faces."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.kernels.face_align import GFPGAN_POINTS, GPEN_POINTS, inverse, similarity
from dubstream.runtime.upstream.five_points import (
    Faces,
    centre_face,
    detect_for_enhancement,
    enhancement_size,
    gfpgan_fit,
    gpen_fits,
)

WORKED = np.array([(250, 200), (330, 204), (288, 250), (258, 300), (322, 303)], float)


def faces_of(points: np.ndarray, boxes: np.ndarray | None = None) -> Faces:
    count = len(points)
    if boxes is None:
        boxes = np.concatenate([points.min(axis=1) - 40, points.max(axis=1) + 40], axis=1)
    return Faces(boxes, np.linspace(1, 0.95, count), points)


def test_worked_similarity_to_the_last_digit() -> None:
    fit, _ = gpen_fits(WORKED)
    expected = [[1.28427781, 0.03002251, -123.39477807], [-0.03002251, 1.28427781, -9.71338067]]
    np.testing.assert_allclose(fit, expected, atol=1e-8, rtol=0)
    assert np.hypot(fit[0, 0], fit[0, 1]) == pytest.approx(1.28462869, abs=1e-7)


def test_the_fits_are_the_least_squares_ones_and_each_others_inverse() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        points = GPEN_POINTS * rng.uniform(0.2, 2) + rng.normal(0, 12, (5, 2))
        forwards, back = gpen_fits(points)
        np.testing.assert_allclose(forwards, similarity(points, GPEN_POINTS), rtol=2e-6, atol=2e-3)
        np.testing.assert_allclose(back, inverse(forwards), rtol=2e-6, atol=2e-3)


def test_mirrored_points_are_turned_not_mirrored() -> None:
    forwards, _ = gpen_fits(GPEN_POINTS * (-1, 1) + (512, 0))
    assert np.linalg.det(forwards[:, :2]) > 0
    with pytest.raises(InternalError, match="do not span a face"):
        gpen_fits(np.ones((5, 2)))


def test_the_median_fit_finds_an_exact_similarity_and_drops_an_outlier() -> None:
    turn = np.array([[0.8, -0.3], [0.3, 0.8]])
    points = (GFPGAN_POINTS - (250, 300)) @ turn.T + (400, 200)
    np.testing.assert_allclose(gfpgan_fit(points), similarity(points, GFPGAN_POINTS), atol=1e-3)
    wrong = points.copy()
    wrong[2] += 60
    robust, plain = gfpgan_fit(wrong), similarity(wrong, GFPGAN_POINTS)
    np.testing.assert_allclose(robust, gfpgan_fit(points), atol=1e-3)
    assert np.abs(plain - robust).max() > 5


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [(900, 1500, (900, 1500)), (1080, 1920, (562, 1000)), (1600, 900, (1000, 562))],
)
def test_large_frames_are_reduced_for_the_detector(height: int, width: int, seen: tuple[int, int]) -> None:
    shapes = []

    def detector(levels: np.ndarray) -> Faces:
        assert levels.dtype == np.float32
        assert np.all(levels == 7)
        shapes.append(levels.shape)
        return faces_of(WORKED[None])

    factor = seen[0] / height if height >= width or seen[1] == width else 1000 / width
    found = detect_for_enhancement(np.full((height, width, 3), 7, np.uint8), detector)
    assert shapes == [(*seen, 3)]
    assert enhancement_size(width, height) == (seen[1], seen[0])
    np.testing.assert_allclose(found.points[0] * factor, WORKED, rtol=1e-12)
    np.testing.assert_allclose(found.boxes[0] * factor, faces_of(WORKED[None]).boxes[0], rtol=1e-12)
    assert found.scores[0] * factor == pytest.approx(1)


def test_the_face_nearest_to_the_centre_is_restored() -> None:
    points = WORKED + np.array([[0, 0], [300, 0], [700, 0]])[:, None]
    assert centre_face(faces_of(points), 1280, 500) == 1
    assert centre_face(faces_of(points), 1900, 500) == 2
    assert centre_face(faces_of(points[:0]), 1280, 500) is None


def test_faces_are_skipped_by_a_distance_taken_from_shifted_numbers() -> None:
    # A large face whose eyes are level and whose nose lies straight below its right eye.
    turned = np.array([[(250, 200), (330, 202), (332, 250), (258, 300), (322, 303)]], float)
    assert centre_face(faces_of(turned), 600, 500) is None
    turned[0, 2, 0] = 335
    assert centre_face(faces_of(turned), 600, 500) == 0


def test_faces_that_do_not_agree_are_refused() -> None:
    with pytest.raises(InternalError, match="order of their scores"):
        Faces(np.zeros((2, 4)), np.array([0.9, 0.95]), np.zeros((2, 5, 2)))
    with pytest.raises(InternalError, match=r"points \(1, 5, 2\) of 2 faces"):
        Faces(np.zeros((2, 4)), np.array([0.9, 0.9]), np.zeros((1, 5, 2)))
