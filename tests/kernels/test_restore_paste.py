"""A restorer's change on its way back into the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.kernels.face_align import ALIGNED, from_corner, sample
from dubstream.kernels.restore_paste import add_restored


def smooth_planes(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, (ALIGNED, ALIGNED, 3)).astype(np.float32)
    return np.ascontiguousarray(cv2.GaussianBlur(noise, (0, 0), 24).transpose(2, 0, 1)).clip(-1, 1)


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7, 2.4, 5.2])
def test_a_part_of_the_change_is_that_part_of_all_of_it(scale: float) -> None:
    restored, aligned = smooth_planes(1), smooth_planes(2)
    turn = scale * np.array([[0.98, -0.199], [0.199, 0.98]])
    to_aligned = np.column_stack([turn, (256, 256) - turn @ (220, 160)])
    window = (40, 30, 340, 250)
    mask = np.zeros((220, 300), np.float32)
    cv2.ellipse(mask, (175, 140), (40, 25), 10, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 4) * (mask > 0)
    before = np.random.default_rng(3).uniform(-50, 50, (220, 300, 3)).astype(np.float32)
    found = add_restored(before.copy(), restored, aligned, mask, to_aligned, window)
    levels = np.ascontiguousarray((restored - aligned)[::-1].transpose(1, 2, 0) * np.float32(127.5))
    everywhere = sample(
        levels, from_corner(to_aligned, 40, 30), 300, 220, out=np.empty((220, 300, 3), np.float32)
    )
    # OpenCV rounds positions to 1/32 of a pixel; where blocks are averaged, theirs begin elsewhere.
    steepest = max(np.abs(np.diff(levels, axis=axis)).max() for axis in (0, 1))
    error = np.abs(found - before - everywhere * mask[..., None]).max()
    assert error < steepest * (1 / 16 if scale < 2 else 1 / 4)
    np.testing.assert_array_equal(found[mask == 0], before[mask == 0])
    assert np.abs(found - before).max() > 5


def test_an_empty_mask_brings_nothing_back() -> None:
    before = np.ones((20, 30, 3), np.float32)
    planes = smooth_planes(0)
    mask = np.zeros((20, 30), np.float32)
    found = add_restored(before.copy(), planes + 1, planes, mask, np.eye(2, 3), (0, 0, 30, 20))
    np.testing.assert_array_equal(found, before)


def test_a_mask_beyond_the_aligned_face_brings_nothing_back() -> None:
    before = np.zeros((20, 30, 3), np.float32)
    mask = np.ones((20, 30), np.float32)
    away = np.array([[1.0, 0, 5000.0], [0, 1.0, -900.0]])
    planes = smooth_planes(0)
    assert not add_restored(before, planes + 1, planes, mask, away, (0, 0, 30, 20)).any()


def test_planes_and_bytes_do_not_mix() -> None:
    with pytest.raises(InternalError, match="aligned"):
        add_restored(
            np.zeros((20, 30, 3), np.float32), np.zeros((ALIGNED, ALIGNED, 3), np.uint8), smooth_planes(0),
            np.ones((20, 30), np.float32), np.eye(2, 3), (0, 0, 30, 20),
        )  # fmt: skip
