"""The original's face enhancement and mouth restoration, with toy networks and numbers by hand."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.kernels.face_align import GFPGAN_POINTS, GPEN_POINTS
from dubstream.runtime.upstream import enhancement
from dubstream.runtime.upstream.enhancement import FaceLayer, blend_in_box, face_layer, mix, parse_masks
from dubstream.runtime.upstream.five_points import Faces
from dubstream.runtime.upstream.mouth import blend_mouth, mouth_mask, paste_restored, restore_centre_face

SKIN, HAIR, UPPER_LIP = 1, 13, 11


def picture(height: int = 512, width: int = 512, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def classes(value: int = SKIN) -> np.ndarray:
    return np.full((512, 512), value, np.uint8)


def faces_at(*points: np.ndarray, score: float = 0.99) -> Faces:
    stacked = np.stack(points)
    boxes = np.concatenate([stacked.min(axis=1) - 100, stacked.max(axis=1) + 100], axis=1)
    return Faces(boxes, np.full(len(points), score), stacked)


def test_a_face_has_no_ears_no_hair_and_no_border() -> None:
    found = np.zeros((512, 512), np.uint8)
    found[200:203, 100:119] = np.arange(19)
    sharp, soft = parse_masks(found)
    assert sharp.dtype == np.float64
    assert soft.dtype == np.float32
    assert np.flatnonzero(sharp[201, 100:119]).tolist() == [1, 2, 3, 4, 5, 6, 7, 10, 11, 12]
    sharp, soft = parse_masks(classes())
    assert sharp.sum() == 472 * 472
    assert sharp[20, 20] == sharp[491, 491] == 1
    assert sharp[19, 256] == sharp[256, 492] == 0
    assert soft[256, 256] == pytest.approx(1, abs=1e-6)


def test_the_soft_mask_is_blurred_twice() -> None:
    found = classes()
    found[:, 256:] = HAIR
    _, soft = parse_masks(found)
    assert soft[256, 255] + soft[256, 256] == pytest.approx(1, abs=1e-6)
    kernel = np.convolve(*[cv2.getGaussianKernel(101, 11).ravel()] * 2)  # over 201 pixels
    expected = [kernel[101 + away :].sum() for away in range(60)]  # kernel[100] is its middle
    np.testing.assert_allclose(soft[256, 256:316], expected, atol=1e-6)


def test_an_aligned_face_goes_through_unchanged() -> None:
    frame = picture()
    layer = face_layer(frame, faces_at(GPEN_POINTS), lambda planes: classes())
    assert layer is not None
    covered = layer.soft > 0
    assert np.array_equal(layer.picture[covered], frame[covered])
    assert np.array_equal(mix(layer, frame), frame)
    once = cv2.GaussianBlur(parse_masks(classes())[0], (0, 0), 1.0)
    np.testing.assert_allclose(layer.sharp, once, atol=1e-12)


def test_no_face_and_faint_faces_give_no_layer() -> None:
    none = Faces(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
    assert face_layer(picture(), none, lambda planes: classes()) is None
    assert face_layer(picture(), faces_at(GPEN_POINTS, score=0.899), lambda planes: classes()) is None
    assert face_layer(picture(), faces_at(GPEN_POINTS, score=0.9), lambda planes: classes()) is not None


def test_the_last_face_alone_is_sharp_and_the_larger_soft_mask_wins() -> None:
    frame = picture(300, 600)
    left, right = GPEN_POINTS * 0.5 + (10, 20), GPEN_POINTS * 0.5 + (320, 20)
    layer = face_layer(frame, faces_at(left, right), lambda planes: classes())
    assert layer is not None
    assert layer.soft[148, 138] > 0.99
    assert layer.soft[148, 448] > 0.99
    assert layer.sharp[148, 138] == 0
    assert layer.sharp[148, 448] == pytest.approx(1)
    assert not layer.picture[layer.soft == 0].any()


def test_the_parser_sees_the_restored_face() -> None:
    seen: list[Any] = []

    def restore(planes: np.ndarray) -> np.ndarray:
        seen.append(planes)
        return np.full_like(planes, 100.9 / 255 * 2 - 1)

    def parse(planes: np.ndarray) -> np.ndarray:
        seen.append(planes)
        return classes()

    frame = picture()
    layer = face_layer(frame, faces_at(GPEN_POINTS), parse, restore)
    assert layer is not None
    np.testing.assert_allclose(seen[0], frame[..., ::-1].transpose(2, 0, 1) / 255 * 2 - 1, atol=1e-6)
    np.testing.assert_allclose(seen[1], 100 / 255 * 2 - 1, atol=1e-6)  # GPEN's output is truncated
    assert np.all(layer.picture[layer.soft > 0] == 100)


def test_small_faces_are_smoothed_only_if_restored() -> None:
    dot = np.zeros((512, 512, 3), np.uint8)
    dot[300, 200] = 160
    faces = faces_at(GPEN_POINTS)
    small = Faces(np.array([[100, 100, 400, 199.0]]), faces.scores, faces.points)

    def centre(found: Faces, restore: Any) -> list[int]:
        layer = face_layer(dot, found, lambda planes: classes(), restore)
        assert layer is not None
        return [int(value) for value in layer.picture[299:302, 200, 0]]

    def same(planes: np.ndarray) -> np.ndarray:
        return planes + np.float32(0.2 / 255)

    assert centre(small, same) == [20, 40, 20]  # 160 times 2/16, 4/16, 2/16
    assert centre(faces, same) == [0, 160, 0]
    assert centre(small, None) == [0, 160, 0]


def test_two_mixtures_are_rounded_halves_to_even() -> None:
    half = np.full((4, 4), 0.5)
    layer = FaceLayer(np.full((4, 4, 3), 15, np.uint8), half.astype(np.float32), half)
    # (10 + 15) / 2 = 12.5 -> 12, then (10 + 12) / 2 = 11.
    assert np.all(mix(layer, np.full((4, 4, 3), 10, np.uint8)) == 11)


def test_the_second_blend_stays_inside_the_box_but_for_five_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(inside: Any, outside: Any, mask: Any, levels: int) -> Any:
        seen.append((inside, outside, mask, levels))
        return outside.astype(np.float32)

    monkeypatch.setattr(enhancement, "laplacian_blend_uint8", spy)
    faces, original = picture(seed=1), picture(seed=2)
    layer = FaceLayer(faces, np.zeros((512, 512), np.float32), np.ones((512, 512)))
    assert np.array_equal(blend_in_box(layer, original, (100, 50, 200, 150)), original)
    inside, outside, mask, levels = seen[0]
    assert levels == 6
    assert np.array_equal(inside, faces)
    assert np.array_equal(outside, original)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 144, 100, 199)
    assert mask.sum() == 95 * 100


def test_the_second_blend_takes_the_face_where_its_mask_is_far_from_an_edge() -> None:
    layer = FaceLayer(
        np.full((512, 512, 3), 200, np.uint8), np.ones((512, 512), np.float32), np.ones((512, 512))
    )
    # Six levels of five taps, down and up, reach less than 130 pixels; the mask ends at row 294.
    blended = blend_in_box(layer, np.full((512, 512, 3), 50, np.uint8), (0, 0, 512, 300))
    assert np.all(blended[:165] == 200)
    assert np.all(blended[425:] == 50)
    assert 100 < blended[295, 256, 0] < 150
    squashed = blend_in_box(
        FaceLayer(picture(120, 200), np.ones((120, 200), np.float32), np.ones((120, 200))),
        picture(120, 200),
        (20, 20, 100, 100),
    )
    assert squashed.shape == (120, 200, 3)


def test_a_pasted_face_has_a_soft_edge_and_a_dark_seam() -> None:
    frame = np.full((640, 640, 3), 100, np.uint8)
    to_frame = np.array([[1.0, 0, 50], [0, 1, 50]])
    pasted = paste_restored(frame, np.full((512, 512, 3), 200, np.uint8), to_frame)
    # Ones fill 50..561; the 2 x 2 erosion looks up and left: 51..561, side 511, edge 511 // 20 = 25.
    # Eroded by 50 (25 before, 24 behind): 76..537; blurred over 51 pixels.
    positions = np.arange(640)
    core = ((positions >= 76) & (positions <= 537)).astype(float)
    soft = cv2.sepFilter2D(core[None], -1, cv2.getGaussianKernel(51, -1), np.ones(1)).ravel()
    covered = (positions >= 51) & (positions <= 561)
    expected = soft * covered * 200 + (1 - soft) * 100
    row = pasted[320, :, 0].astype(float)
    assert np.all((row <= expected + 1e-3) & (row > expected - 1 - 1e-3))
    assert row[51] >= 100
    assert row[562] == 99  # soft reaches one pixel further than the face
    assert np.all(row[101:513] == 200)
    assert np.all(pasted[:50] == 100)


def test_the_centre_face_is_restored_and_rounded() -> None:
    frame = np.full((700, 700, 3), 90, np.uint8)
    points = GFPGAN_POINTS + 94
    restored = restore_centre_face(
        frame, faces_at(points), lambda planes: planes + np.float32(20.6 * 2 / 255)
    )
    assert np.all(restored[330:370, 330:370] == 111)  # 90 + 20.6, rounded
    assert np.array_equal(restored[:94], frame[:94])
    none = Faces(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
    untouched = restore_centre_face(frame, none, lambda planes: planes)
    assert np.array_equal(untouched, frame)
    assert untouched is not frame


def test_the_mouths_mask_is_binary_and_loses_its_rim() -> None:
    found = np.zeros((512, 512), np.uint8)
    found[:, 128:384] = UPPER_LIP
    found[:, 384:] = SKIN
    mask = mouth_mask(picture(200, 300), (60, 40, 160, 140), lambda planes: found)
    assert set(np.unique(mask)) == {0, 1}
    # Column i of the box samples 5.12 (i + 0.5) - 0.5 and its right neighbour: both have to be 128..383.
    left = np.floor((np.arange(100) + 0.5) * 5.12 - 0.5)
    expected = (left >= 128) & (left + 1 <= 383)
    assert np.array_equal(mask[40:140, 60:160], np.broadcast_to(expected, (100, 100)))
    assert mask.sum() == expected.sum() * 100


def test_the_first_blend_is_exact_where_there_is_nothing_to_blend() -> None:
    frame, restored = picture(seed=3), picture(seed=4)
    some = np.zeros((512, 512), np.uint8)
    some[100:200, 150:300] = 1
    assert np.array_equal(blend_mouth(frame, frame, some), frame)
    everywhere = np.abs(blend_mouth(restored, frame, np.ones_like(some)).astype(int) - restored)
    assert everywhere.max() == 0
    assert np.array_equal(blend_mouth(restored, frame, np.zeros_like(some)), frame)


def test_the_first_blend_squashes_the_whole_frame() -> None:
    frame = picture(300, 1000, seed=5)
    blended = blend_mouth(frame, frame, np.zeros((300, 1000), np.uint8))
    small = cv2.resize(frame, (512, 512)).astype(np.float32)
    assert np.array_equal(blended, cv2.resize(small, (1000, 300)).astype(np.uint8))
    assert np.abs(blended.astype(int) - frame).mean() > 10  # what users complain about


def test_a_parse_of_another_kind_is_refused() -> None:
    with pytest.raises(InternalError, match="classes"):
        parse_masks(np.zeros((512, 512), np.int64))
