"""One gain per channel, measured along the edge of the mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from kernels_reference import noise_picture

from dubstream.kernels.colour_match import HIGHEST, LOWEST, apply_gains, seam_gains


def disc(size: int = 160, radius: int = 50, feather: float = 8.0) -> np.ndarray:
    rows, columns = np.mgrid[0:size, 0:size] - size / 2
    return np.clip((radius - np.hypot(rows, columns)) / feather, 0, 1).astype(np.float32)


def skin(seed: int = 0, size: int = 160) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, (size, size, 3))
    base = np.array([95.0, 120.0, 180.0]) + np.linspace(-15, 15, size)[:, None, None]
    return np.clip(cv2.GaussianBlur(base + noise, (0, 0), 1.5), 0, 255).astype(np.uint8)


def difference(face: np.ndarray, source: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(face.astype(np.float32) - source)


def test_a_cast_over_the_face_is_taken_off() -> None:
    source, mask = skin(), disc()
    cast = np.array([0.9, 1.12, 1.04], np.float32)
    change = difference(source * cast, source)
    gains = seam_gains(source, change, mask)
    np.testing.assert_allclose(gains, 1 / cast, rtol=2e-3)
    apply_gains(source, change, gains)
    assert np.abs(change).max() < 0.6


def test_what_happens_far_from_the_edge_does_not_count() -> None:
    source, mask = skin(), disc()
    face = source.astype(np.float32)
    face[70:90, 60:100] = 20  # an open mouth
    face[:20] = 250  # outside the mask
    np.testing.assert_array_equal(seam_gains(source, difference(face, source), mask), 1)


def test_blur_of_the_face_is_no_colour() -> None:
    source, mask = skin(), disc()
    face = cv2.GaussianBlur(source.astype(np.float32), (0, 0), 3)
    np.testing.assert_allclose(seam_gains(source, difference(face, source), mask), 1, atol=0.005)


def test_gains_hold_still_under_noise() -> None:
    mask = disc()
    gains = []
    for seed in range(12):
        source = skin(0)
        face = np.clip(skin(0) * 1.1 + np.random.default_rng(seed).normal(0, 6, source.shape), 0, 255)
        gains.append(seam_gains(source, difference(face, source), mask))
    flicker = np.std(gains, axis=0) * source.mean(axis=(0, 1))
    assert flicker.max() < 0.2, "levels, from frame to frame"


def test_gains_are_limited() -> None:
    source, mask = np.full((160, 160, 3), 100, np.uint8), disc()
    dark, bright = np.zeros_like(source), np.full_like(source, 255)
    np.testing.assert_array_equal(seam_gains(source, difference(dark, source), mask), np.float32(HIGHEST))
    np.testing.assert_array_equal(seam_gains(source, difference(bright, source), mask), np.float32(LOWEST))
    np.testing.assert_array_equal(seam_gains(dark, difference(dark, dark), mask), 1)


@pytest.mark.parametrize("mask", [np.zeros((160, 160), np.float32), np.ones((160, 160), np.float32)])
def test_a_mask_without_an_edge_matches_nothing(mask: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    source = noise_picture(rng, 160, 160)
    change = difference(noise_picture(rng, 160, 160), source)
    gains = seam_gains(source, change, mask)
    np.testing.assert_array_equal(gains, 1)
    before = change.copy()
    np.testing.assert_array_equal(apply_gains(source, change, gains), before)
