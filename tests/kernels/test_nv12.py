from __future__ import annotations

import cv2
import numpy as np
import pytest
from kernels_reference import bilinear, noise_picture

from dubstream.engines.errors import InternalError
from dubstream.kernels.nv12 import (
    BT601,
    BT601_FULL,
    BT709,
    BT709_FULL,
    YuvMatrix,
    bgr_to_nv12,
    nv12_to_bgr,
)
from dubstream.kernels.paste import paste
from dubstream.kernels.resample import crop_resize, warp_affine

MATRICES = [BT601, BT601_FULL, BT709, BT709_FULL]


def encode(picture: np.ndarray, matrix: YuvMatrix) -> tuple[np.ndarray, np.ndarray]:
    height, width = picture.shape[:2]
    luma = np.empty((height, width), np.uint8)
    chroma = np.empty(((height + 1) // 2, 2 * ((width + 1) // 2)), np.uint8)
    bgr_to_nv12(picture, matrix, luma=luma, chroma=chroma)
    return luma, chroma


@pytest.mark.parametrize(
    ("matrix", "bgr", "yuv"),
    [
        (BT601, (0, 0, 255), (81, 90, 240)),
        (BT601, (255, 255, 255), (235, 128, 128)),
        (BT709, (0, 0, 255), (63, 102, 240)),
        (BT709, (0, 255, 0), (173, 42, 26)),
        (BT709, (0, 0, 0), (16, 128, 128)),
        (BT601_FULL, (0, 0, 255), (76, 85, 255)),
        (BT709_FULL, (255, 0, 0), (18, 255, 116)),
    ],
)
def test_published_colour_values(matrix: YuvMatrix, bgr: tuple[int, ...], yuv: tuple[int, ...]) -> None:
    luma, chroma = encode(np.full((4, 6, 3), bgr, np.uint8), matrix)
    assert (luma == yuv[0]).all()
    assert (chroma[:, ::2] == yuv[1]).all()
    assert (chroma[:, 1::2] == yuv[2]).all()


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (8, 5), (33, 47)])
def test_smooth_pictures_survive_the_way_there_and_back(matrix: YuvMatrix, size: tuple[int, int]) -> None:
    corners = np.random.default_rng(0).integers(60, 190, (2, 2, 3))
    picture = np.rint(bilinear(corners, size[1], size[0])).astype(np.uint8, order="C")
    back = nv12_to_bgr(*encode(picture, matrix), matrix, out=np.empty_like(picture))
    slope = 0 if size == (1, 1) else int(np.abs(np.diff(picture.astype(int), axis=0)).max(initial=0))
    slope = max(slope, int(np.abs(np.diff(picture.astype(int), axis=1)).max(initial=0)))
    assert np.abs(back.astype(int) - picture).max() <= 3 + slope


def test_flat_chroma_decodes_as_opencv_does() -> None:
    rng = np.random.default_rng(1)
    luma = rng.integers(16, 236, (20, 30), dtype=np.uint8)
    for u, v in [(128, 128), (90, 200), (200, 70)]:
        chroma = np.tile(np.array([u, v], np.uint8), (10, 15))
        found = nv12_to_bgr(luma, chroma, BT601, out=np.empty((20, 30, 3), np.uint8))
        expected = cv2.cvtColor(np.concatenate([luma, chroma]), cv2.COLOR_YUV2BGR_NV12)
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_chroma_sits_on_even_columns_and_between_rows() -> None:
    luma = np.full((4, 6), 128, np.uint8)
    chroma = np.full((2, 6), 128, np.uint8)
    chroma[:, 1::2] = [[100, 140, 180], [100, 140, 180]]
    red = nv12_to_bgr(luma, chroma, BT709_FULL, out=np.empty((4, 6, 3), np.uint8))[..., 2].astype(float)
    v = (red - 128) / (2 * (1 - 0.2126)) + 128
    assert np.abs(v - [100, 120, 140, 160, 180, 180]).max() < 0.5
    chroma[:, 1::2] = [[100] * 3, [140] * 3]
    red = nv12_to_bgr(luma, chroma, BT709_FULL, out=np.empty((4, 6, 3), np.uint8))[..., 2].astype(float)
    v = (red - 128) / (2 * (1 - 0.2126)) + 128
    assert np.abs(v[:, 0] - [100, 110, 130, 140]).max() < 0.5


def test_nv12_names_wrong_planes() -> None:
    out = np.empty((5, 7, 3), np.uint8)
    with pytest.raises(InternalError, match=r"chroma is uint8 \(2, 8\), expected uint8 \(3, 8\)"):
        nv12_to_bgr(np.zeros((5, 7), np.uint8), np.zeros((2, 8), np.uint8), BT601, out=out)


@pytest.mark.parametrize(
    "box", [(3, 2, 20, 17), (-4, -5, 10, 12), (15, 10, 60, 50), (-3, -3, 40, 40), (5, 5, 6, 6)]
)
def test_paste_writes_the_box_and_nothing_else(box: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(2)
    frame, picture = noise_picture(rng, 30, 33), noise_picture(rng, 13, 11)
    large = np.zeros((130, 133, 3), np.uint8)
    large[50:80, 50:83] = frame
    x1, y1, x2, y2 = (n + 50 for n in box)
    large[y1:y2, x1:x2] = crop_resize(picture, (0, 0, 11, 13), np.empty((y2 - y1, x2 - x1, 3), np.uint8))
    paste(frame, picture, box)
    assert (frame == large[50:80, 50:83]).all()


def test_paste_beside_the_frame_does_nothing() -> None:
    frame = noise_picture(np.random.default_rng(3), 9, 9)
    before = frame.copy()
    paste(frame, frame, (9, 0, 12, 4))
    assert (frame == before).all()


def test_affine_by_whole_pixels_is_a_shifted_copy_with_a_border() -> None:
    frame = noise_picture(np.random.default_rng(4), 12, 15)
    out = warp_affine(
        frame, np.array([[1.0, 0, -2], [0, 1, 3]]), np.empty((12, 15, 3), np.uint8), border=(1, 2, 3)
    )
    assert (out[:9, 2:] == frame[3:, :13]).all()
    assert (out[9:] == (1, 2, 3)).all()
    assert (out[:, :2] == (1, 2, 3)).all()


def test_affine_follows_the_exact_map_to_a_64th_of_a_pixel() -> None:
    y, x = np.mgrid[:60, :70]
    frame = np.stack([x * 3, y * 3, x + y], -1).astype(np.uint8)  # at most 3 levels per pixel and axis
    to_frame = np.array([[0.8, -0.3, 20.2], [0.3, 0.8, 4.7]])
    out = warp_affine(frame, to_frame, np.empty((25, 30, 3), np.uint8))
    v, u = np.mgrid[:25, :30]
    at_x, at_y = (row[0] * u + row[1] * v + row[2] for row in to_frame)
    exact = np.stack([at_x * 3, at_y * 3, at_x + at_y], -1)
    assert np.abs(out - exact).max() <= 0.5 + 3 / 64 + 0.01
