"""Motion of a face between two frames: known motions recovered, losses noticed."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.runtime.faces.flow import face_motion, fit_similarity, moved_box, moved_points

cv2 = pytest.importorskip("cv2")
skimage_data = pytest.importorskip("skimage.data")

BOX = np.array([175.0, 65.0, 273.0, 163.0])


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.asarray(cv2.cvtColor(skimage_data.astronaut(), cv2.COLOR_RGB2GRAY))


def warped(
    gray: np.ndarray, scale: float, angle: float, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    centre = np.array([224.0, 114.0])
    linear = np.array([[a, -b], [b, a]])
    motion = np.c_[linear, centre + shift - linear @ centre]
    return cv2.warpAffine(gray, motion, gray.shape[::-1]), motion


@pytest.mark.parametrize(
    ("scale", "angle", "shift"),
    [(1.0, 0.0, (0, 0)), (1.0, 0.0, (6.5, -3.25)), (1.03, 0.0, (1, 1)), (0.98, 0.04, (-4, 2))],
)
def test_known_motion_is_recovered(
    portrait: np.ndarray, scale: float, angle: float, shift: tuple[float, float]
) -> None:
    after, motion = warped(portrait, scale, angle, shift)
    found = face_motion(portrait, after, BOX)
    assert found is not None
    corners = BOX.reshape(2, 2)
    np.testing.assert_allclose(moved_points(found, corners), moved_points(motion, corners), atol=0.25)


def test_a_moving_mouth_does_not_move_the_face(portrait: np.ndarray) -> None:
    after = portrait.copy()
    after[138:160, 200:250] = portrait[132:154, 200:250]
    found = face_motion(portrait, after, BOX)
    assert found is not None
    np.testing.assert_allclose(moved_box(found, BOX), BOX, atol=0.25)


def test_losses_are_noticed(portrait: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    assert face_motion(portrait, rng.integers(0, 256, portrait.shape, dtype=np.uint8), BOX) is None
    assert face_motion(portrait, np.full_like(portrait, 90), BOX) is None
    assert face_motion(np.full_like(portrait, 90), portrait, BOX) is None
    assert face_motion(portrait, np.ascontiguousarray(portrait[::-1]), BOX) is None


@pytest.mark.parametrize(
    "box", [(-500, -500, -400, -400), (505, 505, 600, 600), (100, 100, 100, 100), (9, 9, 3, 3)]
)
def test_boxes_without_picture_are_lost(portrait: np.ndarray, box: tuple[int, ...]) -> None:
    assert face_motion(portrait, portrait, np.array(box, float)) is None


def test_similarity_ignores_outliers() -> None:
    rng = np.random.default_rng(1)
    source = rng.uniform(0, 100, (40, 2))
    motion = np.array([[1.05, -0.1, 3.0], [0.1, 1.05, -2.0]])
    target = moved_points(motion, source) + rng.normal(0, 0.05, (40, 2))
    target[:10] += rng.uniform(10, 30, (10, 2))
    found = fit_similarity(source, target, rounds=12)
    assert found is not None
    np.testing.assert_allclose(moved_points(found, source[10:]), moved_points(motion, source[10:]), atol=0.15)
    assert fit_similarity(np.ones((9, 2)), target[:9]) is None
