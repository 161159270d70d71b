"""The original's reference frames: quad cut, paste and frame."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import NoFaceError
from dubstream.runtime.faces.geometry import quad, quad_to_crop
from dubstream.runtime.upstream.references import cut_quad, paste_quad, reference_frame

WORKED = np.array([(90, 100), (160, 104), (125, 140), (98, 170), (152, 173)], float)
# Its quad is the picture's own outline, from -0.5 to 255.5: eyes 64 pixels apart, centre at 127.5.
WHOLE = np.array([(95.5, 121.5), (159.5, 121.5), (127, 150), (100.5, 181.5), (154.5, 181.5)])
SMALL = WORKED * 0.3 + 85  # the whole quad inside the picture


def landmarks_of(points: np.ndarray) -> np.ndarray:
    landmarks = np.zeros((68, 2))
    landmarks[36:42], landmarks[42:48] = points[0], points[1]
    landmarks[[30, 48, 54]] = points[2:]
    return landmarks


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def inside(points: np.ndarray, margin: float) -> np.ndarray:
    """Pixels at least `margin` inside the quad (outside, where negative)."""
    y, x = np.mgrid[:256, :256] + 0.5
    to_crop = quad_to_crop(points)
    u, v = (to_crop @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])).reshape(2, 256, 256)
    pixels = margin * np.hypot(*to_crop[:, 0])
    return np.asarray(np.minimum.reduce([u, 256 - u, v, 256 - v]) >= pixels)


def test_worked_coefficients_are_those_of_a_perspective_solved_by_least_squares() -> None:
    targets = [(0, 0), (0, 256), (256, 256), (256, 0)]
    rows = []
    for (x, y), (u, v) in zip(quad(WORKED) + 0.5, targets, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solved = np.linalg.lstsq(np.array(rows), np.ravel(targets).astype(float), rcond=None)[0]
    np.testing.assert_allclose(solved, [*quad_to_crop(WORKED).ravel(), 0, 0], atol=1e-9)
    worked = [0.912422, 0.026163, 10.627585, -0.026163, 0.912422, 31.418862, 0, 0]
    np.testing.assert_allclose(solved, worked, atol=1e-6)


def test_a_quad_that_is_the_picture_cuts_and_pastes_the_picture() -> None:
    whole = picture()
    assert np.array_equal(cut_quad(whole, WHOLE), whole)
    assert np.array_equal(paste_quad(whole, WHOLE, picture(1)), whole)


def test_a_shifted_quad_is_black_outside_the_picture() -> None:
    whole = picture()
    cut = cut_quad(whole, WHOLE + np.array([10, -7]))
    assert np.array_equal(cut[7:, :246], whole[:249, 10:])
    assert not cut[:7].any()
    assert not cut[:, 246:].any()


def test_cut_and_paste_leave_a_smooth_picture() -> None:
    y, x = np.mgrid[:256, :256]
    smooth = np.stack([x * 0.8 + 20, y * 0.7 + 30, (x + y) * 0.4], axis=2).astype(np.uint8)
    pasted = paste_quad(cut_quad(smooth, SMALL), SMALL, np.full_like(smooth, 255))
    well_inside, outside = inside(SMALL, 3), ~inside(SMALL, -3)
    assert well_inside.sum() > 5000
    assert np.abs(pasted.astype(int) - smooth)[well_inside].max() <= 2
    assert np.all(pasted[outside] == 255)


def test_the_face_is_stabilised_inside_its_quad_and_nowhere_else() -> None:
    frame = np.full((300, 420, 3), 50, np.uint8)
    enhanced = np.full((256, 256, 3), 200, np.uint8)
    box = (40, 20, 40 + 256, 20 + 256)
    reference = reference_frame(enhanced, landmarks_of(SMALL), frame, box)
    part = reference[20:276, 40:296]
    assert np.all(part[inside(SMALL, 2)] == 200)
    assert np.all(part[~inside(SMALL, -2)] == 50)
    reference[20:276, 40:296] = 50
    assert np.array_equal(reference, frame)


def test_the_box_is_resized_to_256_and_back() -> None:
    frame = np.full((200, 300, 3), 50, np.uint8)
    frame[::2] = 150  # stripes that 256 rows of a box of 100 keep, blurred
    reference = reference_frame(picture(), landmarks_of(SMALL), frame, (100, 50, 220, 150))
    assert np.array_equal(reference[:50], frame[:50])
    assert not np.array_equal(reference[50:60, 100:220], frame[50:60, 100:220])


def test_no_landmarks_are_an_error_not_nan() -> None:
    with pytest.raises(NoFaceError, match="coincide"):
        reference_frame(picture(), np.full((68, 2), -1), picture(), (0, 0, 256, 256))
