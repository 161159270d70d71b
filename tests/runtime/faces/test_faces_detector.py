"""The embedded cascade on a portrait that ships with scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import DeviceError, InternalError
from dubstream.runtime.faces import detector as detecting
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks, Face, five_points

cv2 = pytest.importorskip("cv2")
skimage_data = pytest.importorskip("skimage.data")

EYES = np.array([(202, 101), (248, 103)], float)  # of the portrait, by hand
MOUTH = np.array([(205, 140), (241, 142)], float)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(skimage_data.astronaut()[..., ::-1])


@pytest.fixture(scope="module")
def cascade() -> CascadeDetector:
    return CascadeDetector()


def test_finds_the_portraits_face(portrait: np.ndarray, cascade: CascadeDetector) -> None:
    faces = cascade.detect(portrait)
    assert len(faces) == 1
    x1, y1, x2, y2 = faces[0].box
    assert x1 < EYES[0, 0] < EYES[1, 0] < x2
    assert y1 < EYES[0, 1] < MOUTH[0, 1] < y2
    assert 80 < x2 - x1 < 120


def test_boxes_are_in_pixels_of_the_full_picture(portrait: np.ndarray, cascade: CascadeDetector) -> None:
    small = cascade.detect(portrait)[0].box
    large = cascade.detect(cv2.resize(portrait, None, fx=3, fy=3))[0].box
    np.testing.assert_allclose(large / 3, small, atol=8)


def test_same_picture_same_faces(portrait: np.ndarray, cascade: CascadeDetector) -> None:
    two = np.hstack([portrait[:300, 60:400], portrait[:300, 60:400][:, ::-1]])
    faces = cascade.detect(two)
    assert len(faces) == 2
    assert faces == cascade.detect(two.copy()) == CascadeDetector().detect(two)
    assert faces[0].score >= faces[1].score


@pytest.mark.parametrize("shape", [(1, 1, 3), (20, 3, 3), (240, 320, 3)])
def test_nothing_in_empty_pictures(shape: tuple[int, ...], cascade: CascadeDetector) -> None:
    assert cascade.detect(np.full(shape, 127, np.uint8)) == []


def test_pictures_of_another_kind_are_our_fault(portrait: np.ndarray, cascade: CascadeDetector) -> None:
    with pytest.raises(InternalError, match="float64"):
        cascade.detect(portrait.astype(np.float64))
    with pytest.raises(InternalError, match=r"\(512, 512\)"):
        cascade.detect(portrait[..., 0])


def test_landmarks_lie_on_the_features(portrait: np.ndarray, cascade: CascadeDetector) -> None:
    points = CascadeLandmarks().points(portrait, cascade.detect(portrait)[0])
    np.testing.assert_allclose(points[:2], EYES, atol=3)
    np.testing.assert_allclose(points[3:], MOUTH, atol=6)


@pytest.mark.parametrize(
    "box", [(10, 10, 110, 110), (-50, -50, 40, 40), (300, 300, 310, 310), (500, 500, 600, 600)]
)
def test_landmarks_without_visible_eyes_are_proportions(box: tuple[int, ...]) -> None:
    x1, y1, x2, y2 = box
    blank = np.full((400, 400, 3), 127, np.uint8)
    points = CascadeLandmarks().points(blank, Face(x1, y1, x2, y2, 1.0))
    side = x2 - x1
    expected = [(0.31, 0.38), (0.69, 0.38), (0.5, 0.58), (0.34, 0.79), (0.66, 0.79)]
    np.testing.assert_allclose((points - (x1, y1)) / side, expected, atol=1e-9)


def test_points_turn_with_the_eyes() -> None:
    upright = five_points(np.array([(-10.0, 0), (10, 0)]), 50.0)
    tilted = five_points(np.array([(-8.0, -6), (8, 6)]), 50.0)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    np.testing.assert_allclose(tilted, upright @ turn.T, atol=1e-12)


def test_an_opencv_without_cascades_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.data.haarcascades", "/nonexistent/")
    with pytest.raises(DeviceError, match="has no cascade haarcascade_frontalface_default"):
        detecting.CascadeDetector()
