"""Priors, suppression and landmark peaks, against the worked numbers of the original and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.engines.face_specs import s3fd_maps
from dubstream.kernels.detection import (
    FAN_SIDE,
    RETINAFACE_RULE,
    RETINAFACE_STRICT_RULE,
    S3FD_RULE,
    FaceRule,
    FanCrop,
    decode_boxes,
    decode_points,
    decode_s3fd,
    faces_among,
    fan_crop,
    fan_picture,
    fine_points,
    retinaface_priors,
    s3fd_priors,
    whole_points,
)

BOX = (60.0, 50.0, 190.0, 220.0)  # the face whose crop and landmarks were worked out with the original


@pytest.mark.parametrize(
    ("height", "width", "count"), [(256, 256, 2688), (720, 1280, 37840), (1080, 1920, 85200)]
)
def test_retinaface_priors_are_as_many_as_the_originals(height: int, width: int, count: int) -> None:
    middles, sides = retinaface_priors(height, width)
    assert middles.shape == (count, 2)
    assert sides.shape == (count, 1)


def test_first_retinaface_prior_is_the_originals() -> None:
    middles, sides = retinaface_priors(1080, 1920)
    assert middles[0] / (1920, 1080) == pytest.approx((0.0020833, 0.0037037), abs=5e-8)
    assert sides[0] / (1920, 1080) == pytest.approx((0.0083333, 0.0148148), abs=5e-8)
    assert sides[1] == 32
    assert (middles[1] == middles[0]).all()
    assert tuple(middles[2]) == (12.0, 4.0)  # columns before rows


def test_s3fd_priors_follow_the_maps() -> None:
    middles, sides = s3fd_priors(256, 256)
    assert len(middles) == 64**2 + 32**2 + 16**2 + 12**2 + 6**2 + 3**2
    assert tuple(middles[1]) == (6.0, 2.0)
    assert tuple(middles[64]) == (2.0, 6.0)
    assert sides[0] == 16
    assert (tuple(middles[-1]), sides[-1, 0]) == ((320.0, 320.0), 512)


def test_boxes_and_points_move_by_their_variances() -> None:
    middles, sides = np.array([[100.0, 50.0]]), np.array([[20.0]])
    changes = np.array([[1.0, -2.0, 5 * np.log(2), 0.0]], np.float32)
    assert decode_boxes(changes, middles, sides)[0] == pytest.approx((82, 36, 122, 56))
    points = decode_points(np.arange(10, dtype=np.float32)[None], middles, sides)
    assert points[0, [0, 4]].ravel() == pytest.approx((100, 52, 116, 68))


def test_s3fd_score_is_the_softmax_of_a_cell() -> None:
    maps: list[Any] = []
    for shape in s3fd_maps(32, 32):
        maps += [np.zeros((2, *shape), np.float32), np.zeros((4, *shape), np.float32)]
    maps[0][:, 1, 2] = (0.0, np.log(3))
    boxes, scores = decode_s3fd(maps, 32, 32)
    best = int(scores.argmax())
    assert best == 8 + 2  # eight columns a row
    assert scores[best] == pytest.approx(0.75)
    assert tuple(boxes[best]) == (2.0, -2.0, 18.0, 14.0)  # centre (10, 6), 16 wide
    assert scores[best + 1] == 0.5


def greedy(boxes: Any, scores: Any, rule: FaceRule) -> list[int]:
    """Suppression word by word."""
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda at: -scores[at]):
        if scores[index] > rule.score and all(
            iou(boxes[index], boxes[other], rule) <= rule.overlap for other in kept
        ):
            kept.append(index)
    return kept[: rule.most]


def iou(a: Any, b: Any, rule: FaceRule) -> float:
    one = float(rule.plus_one)
    area_a, area_b = (max(x2 - x1 + one, 0) * max(y2 - y1 + one, 0) for x1, y1, x2, y2 in (a, b))
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + one, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + one, 0)
    return float(width * height / (area_a + area_b - width * height))


@pytest.mark.parametrize("rule", [S3FD_RULE, RETINAFACE_RULE, RETINAFACE_STRICT_RULE])
def test_suppression_keeps_what_the_greedy_rule_keeps(rule: FaceRule) -> None:
    draw = np.random.default_rng(3)
    corner = draw.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corner, corner + draw.uniform(5, 40, (300, 2))], axis=1).astype(np.float32)
    scores = draw.uniform(0.3, 1, 300).astype(np.float32)
    kept = faces_among(boxes, scores, rule)
    assert kept.tolist() == greedy(boxes, scores, rule)
    assert 3 < len(kept) < 100
    assert (
        faces_among(boxes, scores, FaceRule(rule.score, rule.overlap, rule.plus_one, 2)).tolist()
        == kept[:2].tolist()
    )


def test_one_pixel_more_decides() -> None:
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9]], np.float32)  # 0.2857 without, 0.3333 with the pixel
    scores = np.array([0.9, 0.8], np.float32)
    assert faces_among(boxes, scores, FaceRule(0.5, 0.3, plus_one=False)).tolist() == [0, 1]
    assert faces_among(boxes, scores, FaceRule(0.5, 0.3, plus_one=True)).tolist() == [0]


def test_a_score_at_the_threshold_is_no_face_and_neither_is_a_box_of_nan() -> None:
    boxes = np.array([[0, 0, 9, 9], [50, 0, 60, 9], [80, np.nan, 90, 9]], np.float32)
    assert faces_among(boxes, np.array([0.5, 0.6, 0.9]), S3FD_RULE).tolist() == [1]
    assert faces_among(boxes, np.zeros(3), S3FD_RULE).shape == (0,)
    with pytest.raises(InternalError, match=r"\(3, 4\)"):
        faces_among(boxes, np.zeros(2), S3FD_RULE)


def test_crop_is_the_originals() -> None:
    crop = fan_crop(BOX)
    assert crop.centre == pytest.approx((125, 114.6))
    assert crop.side / 200 == pytest.approx(1.53846154, abs=5e-9)
    assert crop.box == (-27, -38, 278, 268)


def test_landmarks_are_the_originals() -> None:
    heatmaps = np.zeros((2, 64, 64), np.float32)
    heatmaps[0, 20, 10], heatmaps[0, 20, 11], heatmaps[0, 19, 10] = 1.0, 0.5, 0.4
    heatmaps[1, 0, 5] = 1.0
    cells = FanCrop((32.0, 32.0), 64.0)  # a crop in which a cell is a pixel
    assert whole_points(heatmaps, fan_crop(BOX)).tolist() == [[22, 58], [-2, -36]]
    assert whole_points(heatmaps * 0 + _one_at(10, 20), cells).tolist() == [[10, 20], [10, 20]]


def _one_at(column: int, row: int) -> Any:
    heatmap = np.zeros((64, 64), np.float32)
    heatmap[row, column] = 1.0
    return heatmap


def test_fine_landmarks_find_gaussian_peaks_between_cells() -> None:
    draw = np.random.default_rng(8)
    wanted = draw.uniform(2, 61, (68, 2))
    y, x = np.mgrid[:64, :64]
    distance = (x - wanted[:, 0, None, None]) ** 2 + (y - wanted[:, 1, None, None]) ** 2
    heatmaps = np.exp(-distance / 2).astype(np.float32)
    crop = FanCrop((32.0, 32.0), 64.0)
    assert np.abs(fine_points(heatmaps, crop) - 0.5 - wanted).max() < 1e-3
    noisy = heatmaps + draw.normal(0, 0.01, heatmaps.shape).astype(np.float32)
    fine = np.abs(fine_points(noisy, crop) - 0.5 - wanted).mean()
    whole = np.abs(whole_points(noisy, crop) - wanted).mean()
    assert fine < 0.02
    assert whole > 0.2


def test_peaks_at_an_edge_flat_maps_and_noise_stay_within_half_a_cell() -> None:
    draw = np.random.default_rng(2)
    heatmaps = np.concatenate(
        [draw.normal(0, 1, (20, 64, 64)), np.zeros((1, 64, 64)), -np.ones((1, 64, 64)), _one_at(63, 5)[None]]
    ).astype(np.float32)
    rows, columns = np.divmod(heatmaps.reshape(len(heatmaps), -1).argmax(1), 64)
    offsets = fine_points(heatmaps, FanCrop((32.0, 32.0), 64.0)) - 0.5 - np.stack([columns, rows], 1)
    assert np.abs(offsets).max() <= 0.5
    assert (offsets[20:] == 0).all()


def test_crops_beyond_the_picture_are_black_there() -> None:
    picture = np.full((40, 50, 3), 200, np.uint8)
    seen = fan_picture(picture, FanCrop((0.0, 0.0), 64.0))
    assert seen.shape == (FAN_SIDE, FAN_SIDE, 3)
    assert not seen[:120].any()
    assert not seen[:, :120].any()
    assert (seen[140:, 140:] == 200).all()
    assert not fan_picture(picture, FanCrop((500.0, 500.0), 64.0)).any()


def test_a_crop_of_the_whole_picture_is_the_picture() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    crop = FanCrop((127.0, 127.0), 256.0)  # counting from one: the crop's pixel 1 is the picture's 0
    assert crop.box == (0, 0, 255, 255)
    assert np.abs(fan_picture(picture[:255, :255], crop).astype(int) - picture).mean() < 60


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (0, 0, float("nan"), 5)])
def test_boxes_without_extent_are_refused(box: Any) -> None:
    with pytest.raises(InternalError, match="x1 < x2"):
        fan_crop(box)


def test_nonsense_crops_are_refused_before_memory_is_taken() -> None:
    picture = np.zeros((40, 50, 3), np.uint8)
    for side in (1e9, 0.25):
        with pytest.raises(InternalError, match="expected 1 to 400"):
            fan_picture(picture, FanCrop((20.5, 20.5), side))
