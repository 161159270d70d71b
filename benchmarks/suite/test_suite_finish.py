"""The pixel work around parser and restorer for one 720p frame, on the host. Each result is checked."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from dubstream.kernels.face_align import ALIGNED, GFPGAN_POINTS, similarity
from dubstream.kernels.finish import FinishSettings, Restored, align_dubbed, finish_face
from dubstream.kernels.parse_mask import face_masks

Array = np.ndarray[Any, Any]

POINTS = np.array([[585, 270], [695, 270], [640, 330], [600, 385], [680, 385]], float)
FACE_BOX = (515, 135, 765, 480)
"""The lip network's box of these points: a head that fills about half the height of a 720p frame."""
TO_ALIGNED = similarity(POINTS, GFPGAN_POINTS)


@pytest.fixture(scope="module")
def enhanced() -> Array:
    return np.random.default_rng(1).random((3, 384, 384), dtype=np.float32)


@pytest.fixture(scope="module")
def probabilities() -> Array:
    found = np.zeros((2, ALIGNED, ALIGNED), np.float32)
    cv2.ellipse(found[0], (256, 300), (130, 180), 0, 0, 360, 1.0, -1)
    cv2.ellipse(found[1], (256, 370), (75, 40), 0, 0, 360, 1.0, -1)
    return found


@pytest.fixture(scope="module")
def aligned(frame: Array, enhanced: Array) -> Array:
    out = np.empty((3, ALIGNED, ALIGNED), np.float32)
    align_dubbed(frame, enhanced, FACE_BOX, TO_ALIGNED, out=out)
    return out


def test_align_a_dubbed_face(benchmark: Any, frame: Array, enhanced: Array) -> None:
    out = np.empty((3, ALIGNED, ALIGNED), np.float32)
    benchmark(align_dubbed, frame, enhanced, FACE_BOX, TO_ALIGNED, out=out)
    assert out.min() >= -1
    assert out.max() <= 1


def test_soft_masks_of_a_parse(benchmark: Any, probabilities: Array) -> None:
    assert not benchmark(face_masks, probabilities).empty


@pytest.mark.parametrize("restore", [False, True], ids=["unrestored", "restored"])
@pytest.mark.parametrize("mask", ["box", "parse"])
def test_finish_a_frame(
    benchmark: Any,
    frame: Array,
    enhanced: Array,
    probabilities: Array,
    aligned: Array,
    mask: str,
    restore: bool,
) -> None:
    settings = FinishSettings() if mask == "parse" else FinishSettings(parsed=None)
    masks, out = face_masks(probabilities), np.empty_like(frame)
    mouth = Restored(aligned * np.float32(0.9), aligned) if restore else None
    window = benchmark(
        finish_face, frame, enhanced, FACE_BOX, TO_ALIGNED, masks, mouth, out=out, settings=settings
    )
    np.testing.assert_array_equal(out[: window[1]], frame[: window[1]])
    assert (out != frame).any()
