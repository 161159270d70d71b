from __future__ import annotations

import numpy as np
import pytest
from kernels_reference import bilinear, noise_picture, random_box

from dubstream.engines.errors import InternalError
from dubstream.kernels.boxes import as_box, cut, grow, intersect
from dubstream.kernels.resample import crop, crop_resize


@pytest.mark.parametrize("seed", range(12))
def test_equals_float_bilinear_within_the_fixed_point_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(5, 90, 2))
    frame = noise_picture(rng, height, width)
    box = random_box(rng, width, height)
    out = np.empty((int(rng.integers(1, 70)), int(rng.integers(1, 70)), 3), np.uint8)
    x1, y1, x2, y2 = box

    assert crop_resize(frame, box, out) is out

    exact = bilinear(frame[y1:y2, x1:x2], out.shape[1], out.shape[0])
    assert np.abs(out - exact).max() < 1.0


def test_one_pixel_box_is_a_flat_picture() -> None:
    frame = noise_picture(np.random.default_rng(0), 9, 7)
    out = np.empty((5, 4, 3), np.uint8)
    crop_resize(frame, (6, 8, 7, 9), out)
    assert (out == frame[8, 6]).all()


def test_same_size_is_a_copy() -> None:
    frame = noise_picture(np.random.default_rng(0), 31, 43)
    out = np.empty((12, 21, 3), np.uint8)
    crop_resize(frame, np.array([20, 3, 41, 15]), out)
    assert (out == frame[3:15, 20:41]).all()


@pytest.mark.parametrize("box", [(-5, -3, 9, 8), (10, 6, 40, 12), (0, -2, 15, 30), (-4, -4, 40, 40)])
def test_beyond_the_frame_its_edge_is_repeated(box: tuple[int, int, int, int]) -> None:
    frame = noise_picture(np.random.default_rng(1), 11, 15)
    padded = np.pad(frame, ((50, 50), (50, 50), (0, 0)), mode="edge")
    expected = padded[cut(grow(box, 0), (-50, -50, 0, 0))]
    assert (crop(frame, box) == expected).all()


def test_strided_frames_give_the_same_pixels() -> None:
    big = noise_picture(np.random.default_rng(2), 60, 80)
    for view in (big[::2, ::2], big[::-1, ::-1], big[:, :, ::-1], big.swapaxes(0, 1)):
        out, expected = np.empty((2, 20, 17, 3), np.uint8)
        crop_resize(view, (3, 2, 27, 29), out)
        crop_resize(np.ascontiguousarray(view), (3, 2, 27, 29), expected)
        assert (out == expected).all()


def test_wrong_arguments_are_named() -> None:
    frame, out = np.zeros((8, 8, 3), np.uint8), np.empty((4, 4, 3), np.uint8)
    with pytest.raises(InternalError, match="holds no pixel"):
        crop_resize(frame, (3, 3, 3, 5), out)
    with pytest.raises(InternalError, match="four integers"):
        crop_resize(frame, (0.0, 0, 4, 4), out)  # type: ignore[arg-type]
    with pytest.raises(InternalError, match="frame is float32"):
        crop_resize(frame.astype(np.float32), (0, 0, 4, 4), out)  # type: ignore[arg-type]
    with pytest.raises(InternalError, match="C-contiguous"):
        crop_resize(frame, (0, 0, 4, 4), np.empty((4, 8, 3), np.uint8)[:, ::2])


def test_box_arithmetic() -> None:
    assert as_box(np.array([1, 2, 3, 4])) == (1, 2, 3, 4)
    assert intersect((0, 0, 4, 4), (3, 3, 9, 9)) == (3, 3, 4, 4)
    assert intersect((0, 0, 4, 4), (4, 0, 9, 9)) is None
