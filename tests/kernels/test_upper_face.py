"""A change of the upper face: where it shows, how much, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.kernels.upper_face import change_upper_face

BOX = (20, 30, 120, 130)


def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(60, 190, (160, 150, 3), np.uint8)


def changed(change: np.ndarray, strength: float = 1.0, frame: np.ndarray | None = None) -> np.ndarray:
    out = noise() if frame is None else frame
    change_upper_face(out, change.astype(np.float32), BOX, strength)
    return out.astype(int) - noise()


def test_no_change_leaves_every_byte() -> None:
    assert not changed(np.zeros((128, 128, 3))).any()
    assert not changed(np.full((128, 128, 3), 50.0), strength=0.0).any()


def test_it_shows_in_the_upper_half_of_the_box_alone_and_keeps_the_detail() -> None:
    difference = changed(np.full((128, 128, 3), 20.0))
    assert (difference[40:74, 36:104] == 20).all()  # every pixel of the noise moves alike
    assert not difference[86:].any()
    outside = np.ones((160, 150), bool)
    outside[30:130, 20:120] = False
    assert not difference[outside].any()


def test_every_edge_is_feathered() -> None:
    difference = changed(np.full((128, 128, 3), 20.0))
    assert np.abs(np.diff(difference[60, :, 0])).max() <= 4
    assert np.abs(np.diff(difference[:, 70, 0])).max() <= 5
    falling = difference[74:87, 70, 0]
    assert (np.diff(falling) <= 0).all()
    assert falling[0] > 15
    assert falling[-1] == 0


def test_strength_scales_the_change_and_rounding_happens_once() -> None:
    change = np.random.default_rng(2).uniform(-40, 40, (100, 100, 3)).astype(np.float32)
    half = changed(change, strength=0.5)[45:70, 40:100]
    np.testing.assert_array_equal(
        half,
        np.rint(0.5 * change[15:40, 20:80] + noise()[45:70, 40:100]).astype(int) - noise()[45:70, 40:100],
    )


def test_levels_are_clamped() -> None:
    out = noise()
    change_upper_face(out, np.full((8, 8, 3), 500, np.float32), BOX, 1.0)
    assert (out[50, 50:90] == 255).all()


def test_views_of_larger_frames_are_written_in_place() -> None:
    whole = np.zeros((160, 400, 3), np.uint8)
    change_upper_face(whole[:, 100:250], np.full((8, 8, 3), 30, np.float32), BOX, 1.0)
    assert whole[60, 170].tolist() == [30, 30, 30]
    assert not whole[:, :120].any()


@pytest.mark.parametrize(
    ("change", "box", "message"),
    [
        (np.full((8, 8, 3), np.nan, np.float32), BOX, "NaN or infinity"),
        (np.zeros((8, 8), np.float32), BOX, "expected float32 h x w x 3"),
        (np.zeros((8, 8, 3)), BOX, "float64"),
        (np.zeros((8, 8, 3), np.float32), (20, 30, 151, 130), "leaves a frame of 150x160"),
    ],
)
def test_faults_are_named(change: np.ndarray, box: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        change_upper_face(noise(), change, box, 1.0)
