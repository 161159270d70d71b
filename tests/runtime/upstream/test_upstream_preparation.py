"""The original's preparation: source box, 3DMM cut, pictures to planes and back, boxes of a clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dubstream.engines.errors import InternalError, NoFaceError
from dubstream.kernels.planes import BGR_SIGNED, RGB_SIGNED
from dubstream.runtime.faces.geometry import Box, Pads
from dubstream.runtime.upstream.boxes import best_face, face_boxes, shown_frames
from dubstream.runtime.upstream.landmarks import (
    crop_points,
    filled_landmarks,
    recon_input,
    recon_points,
    source_box,
    source_picture,
)
from dubstream.runtime.upstream.pixels import parser_planes, picture_of, planes_of, squash, unsquash


def face68(left: Any, right: Any, nose: Any, mouth_left: Any, mouth_right: Any) -> np.ndarray:
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[30], points[48], points[54] = (
        left, right, nose, mouth_left, mouth_right,
    )  # fmt: skip
    return points


FRONTAL = face68((300, 300), (400, 310), (350, 360), (310, 420), (390, 425))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_worked_source_box() -> None:
    assert source_box(FRONTAL, 844, 844) == (129, 96, 571, 538)


def test_a_tall_pictures_box_is_limited_by_its_width() -> None:
    # The quad's top is at 95.3 and its border 45 pixels, so that the cut around it starts at 53 - 3 = 50.
    square = source_box(FRONTAL, 844, 844)
    narrow = source_box(FRONTAL, 400, 1200)
    assert narrow == (square.x1, square.y1, 400, 53 + 400)


def test_eyes_are_six_landmarks_for_the_box_and_two_for_the_3dmm() -> None:
    points = np.arange(136, dtype=float).reshape(68, 2)
    assert crop_points(points)[0].tolist() == points[36:42].mean(axis=0).tolist()
    points[37] += 60
    assert crop_points(points)[0].tolist() == [87, 88]
    assert recon_points(points).tolist() == [[75, 76], [87, 88], [60, 61], [96, 97], [108, 109]]
    with pytest.raises(InternalError, match=r"\(5, 2\), expected \(68, 2\)"):
        crop_points(points[:5])


def test_source_picture_is_rgb_and_does_not_keep_the_aspect() -> None:
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[100:200, 50:250] = (10, 20, 30)
    small = source_picture(frame, (50, 100, 250, 200))
    assert small.shape == (256, 256, 3)
    assert np.all(small == (30, 20, 10))


def test_frames_without_a_face_repeat_the_one_before() -> None:
    one, two = (np.full((68, 2), value, np.int32) for value in (1, 2))
    filled = filled_landmarks([None, one, None, two, None])
    assert [int(points[0, 0]) for points in filled] == [-1, 1, 1, 2, 2]


def test_without_landmarks_the_template_is_aligned_with_itself() -> None:
    cut, numbers = recon_input(picture(256, 256), np.full((68, 2), -1))
    assert cut.shape == (224, 224, 3)
    np.testing.assert_allclose(numbers, [256, 256, 102 / 128, 128, 128], rtol=1e-6)


def test_worked_alignment_from_68_landmarks() -> None:
    up = np.array([(95, 150), (160, 152), (128, 118), (101, 85), (154, 86)])
    landmarks = face68(*(up * (1, -1) + (0, 255)))
    landmarks[[37, 38, 40, 41]] += 50  # not corners of an eye
    _, numbers = recon_input(picture(256, 256), landmarks)
    np.testing.assert_allclose(numbers, [256, 256, 1.00672281, 127.627008, 122.802198], rtol=1e-7)


def test_every_way_of_scaling_a_level_is_the_same_in_float32() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    unit, half = levels.astype(np.float32) / np.float32(255), np.float32(0.5)
    gfpgan = (levels / 255.0).astype(np.float32)
    for scaled in ((unit - half) / half, (gfpgan - half) / half, unit * np.float32(2) - np.float32(1)):
        assert np.array_equal(planes_of(levels, BGR_SIGNED), scaled.transpose(2, 0, 1))
    assert np.array_equal(planes_of(levels), planes_of(levels, BGR_SIGNED)[::-1])


def test_every_way_back_is_the_same_in_float32() -> None:
    planes = np.random.default_rng(1).uniform(-1.2, 1.2, (3, 64, 64)).astype(np.float32)
    half, full = np.float32(0.5), np.float32(255)
    gpen = (np.clip(planes * half + half, 0, 1) * full).astype(np.uint8)
    dnet = ((np.clip(planes, -1, 1) + np.float32(1)) / np.float32(2) * full).astype(np.uint8)
    for levels in (gpen, dnet):
        assert np.array_equal(picture_of(planes, truncate=True), levels[::-1].transpose(1, 2, 0))


def test_truncation_drops_what_rounding_keeps() -> None:
    planes = np.full((3, 4, 4), 100.9 / 255 * 2 - 1, np.float32)
    assert np.all(picture_of(planes, truncate=True) == 100)
    assert np.all(picture_of(planes, truncate=False) == 101)
    with pytest.raises(InternalError, match="not finite"):
        picture_of(np.full((3, 4, 4), np.nan, np.float32), truncate=True)


def test_the_parser_sees_a_squashed_rgb_picture() -> None:
    planes = parser_planes(np.full((30, 70, 3), (0, 51, 255), np.uint8))
    assert planes.shape == (3, 512, 512)
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes[:, 5, 5], [1, -0.6, -1], atol=1e-7)


def test_a_blend_comes_back_clipped_and_truncated() -> None:
    levels = np.full((512, 512, 3), 99.99, np.float32)
    levels[:200], levels[400:] = -40, 300
    back = unsquash(levels, 320, 180)
    assert back.shape == (180, 320, 3)
    assert [int(back[row, 0, 0]) for row in (10, 100, 170)] == [0, 99, 255]
    square = picture(512, 512)
    assert np.array_equal(unsquash(squash(square).astype(np.float32), 512, 512), square)


def test_a_dub_longer_than_its_source_jumps_back() -> None:
    assert shown_frames(3, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert shown_frames(5, 3).tolist() == [0, 1, 2]
    assert shown_frames(5, 3, static=True).tolist() == [0, 0, 0]
    with pytest.raises(InternalError, match="expected 1 or more"):
        shown_frames(0, 3)


def test_the_best_score_wins_not_the_largest_face() -> None:
    boxes = np.array([[0, 0, 100, 100], [200, 200, 220, 220], [300, 0, 340, 40]], np.float32)
    assert best_face(boxes, np.array([0.8, 0.9, 0.4], np.float32)).tolist() == [200, 200, 220, 220]
    assert best_face(boxes, np.array([0.5, 0.2, 0.4], np.float32)) is None


def test_worked_boxes_of_a_clip() -> None:
    # The worked boxes less 20 pixels of chin, with fractions that truncation drops.
    found = [(100.9, 50.2, 200.1, 160.7), (103, 52, 204, 161), (107.5, 55.5, 207.5, 166.5)]
    assert face_boxes(found, 640, 480) == [(105, 53, 205, 183), (105, 53, 205, 183), (106, 54, 206, 184)]
    assert face_boxes(found, 640, 480, smooth=False)[1] == Box(103, 52, 204, 181)


def test_boxes_are_clipped_before_and_after_padding() -> None:
    assert face_boxes([(-9.5, -3.2, 90, 95)], 100, 100, Pads(5, 20, 1, 30)) == [(0, 0, 100, 100)]
    assert face_boxes([], 100, 100) == []
    with pytest.raises(NoFaceError, match="frame 1 shows no face"):
        face_boxes([(0, 0, 50, 50), None], 100, 100)


def test_planes_default_to_rgb() -> None:
    assert planes_of(np.full((2, 2, 3), (0, 0, 255), np.uint8))[:, 0, 0].tolist() == [1, -1, -1]
    assert np.array_equal(picture_of(planes_of(picture(8, 8)), RGB_SIGNED, truncate=False), picture(8, 8))
