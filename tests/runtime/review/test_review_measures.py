"""The measures one by one, on pictures and series whose answer is known."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dubstream.runtime.faces.geometry import Pads
from dubstream.runtime.faces.track import Track
from dubstream.runtime.review.meter import Meter
from dubstream.runtime.review.motion import lip_motion, motion_energy, pearson
from dubstream.runtime.review.pictures import EQUAL_DB, luma, mean_ssim, psnr_db, ssim_map
from dubstream.runtime.review.seams import background, cell_means, flicker, seam_step
from dubstream.runtime.review.sharpness import cpbd, edge_widths
from dubstream.runtime.review.windows import MOUTH_SIZE, mouth_patch, windows_of

POINTS = np.array([[90.0, 100], [140, 100], [115, 125], [98, 145], [132, 145]])


def portrait(side: int = 160) -> np.ndarray:
    return luma(np.ascontiguousarray(data.astronaut()[20 : 20 + side, 140 : 140 + side, ::-1]))


def noisy(picture: np.ndarray, levels: int, seed: int = 3) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, picture.shape)
    return np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("levels", [2, 10, 60])
def test_ssim_is_scikit_images(levels: int) -> None:
    first = portrait()[:, :131]
    second = noisy(first, levels)
    mean, whole = structural_similarity(
        first,
        second,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    similarity = ssim_map(first, second)
    np.testing.assert_allclose(similarity, whole, atol=1e-9)
    assert mean_ssim(similarity) == pytest.approx(mean, abs=1e-9)


def test_psnr_is_scikit_images_and_finite_for_equal_pictures() -> None:
    first = portrait()
    second = noisy(first, 8)
    assert psnr_db(first, second) == pytest.approx(peak_signal_noise_ratio(first, second), abs=1e-9)
    assert psnr_db(first, first) == EQUAL_DB
    one = first.copy()
    one[0, 0] ^= 1
    assert psnr_db(first, one) < EQUAL_DB


def ramp(width: int, contrast: int) -> np.ndarray:
    """An edge that rises by `contrast` over `width` steps, in the middle of a block."""
    line = np.interp(np.arange(64), [31 - width // 2, 31 - width // 2 + width], [100, 100 + contrast])
    return np.tile(np.rint(line).astype(np.uint8), (64, 1))


@pytest.mark.parametrize(
    ("contrast", "width", "seen"),
    [(100, 1, 1.0), (100, 3, 1.0), (100, 4, 0.0), (100, 7, 0.0), (40, 3, 1.0), (40, 5, 1.0), (40, 6, 0.0)],
)
def test_the_just_noticeable_width_is_3_pixels_and_5_at_low_contrast(
    contrast: int, width: int, seen: float
) -> None:
    assert cpbd(ramp(width, contrast)) == seen


@pytest.mark.parametrize("width", [1, 2, 4, 6])
def test_the_width_of_a_ramp(width: int) -> None:
    picture = ramp(width, 90)
    assert edge_widths(picture, np.array([5]), np.array([31])).tolist() == [width]
    assert edge_widths(255 - picture, np.array([5]), np.array([31])).tolist() == [width]


def test_more_blur_is_never_sharper() -> None:
    picture = portrait()
    blurred = [cpbd(cv2.GaussianBlur(picture, (0, 0), sigma)) for sigma in (0.6, 1.0, 1.5, 2.5)]
    scores = [cpbd(picture), *blurred]
    assert all(score is not None for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.2 > 0.02 > scores[-1]


def test_without_an_edge_there_is_no_sharpness() -> None:
    assert cpbd(np.full((70, 90), 128, np.uint8)) is None
    assert cpbd(noisy(np.full((70, 90), 128, np.uint8), 2)) is None


def test_a_window_smaller_than_a_block_has_a_sharpness() -> None:
    score = cpbd(portrait()[60:100, 20:80])
    assert score is not None
    assert 0 < score < 1


def test_lip_motion_of_series() -> None:
    energy = np.random.default_rng(0).uniform(0, 3, 60)
    energy[20:25] = np.nan
    same = lip_motion(energy, 0.5 * energy)
    assert same.correlation == pytest.approx(1.0)
    assert same.energy_ratio == pytest.approx(0.5)
    assert same.lag_frames == 0
    assert lip_motion(energy, -energy + 3).correlation == pytest.approx(-1.0)
    early = lip_motion(energy, np.roll(energy, -4))
    assert early.lag_frames == -4
    still = lip_motion(energy, np.full(60, 0.3))
    assert still.correlation == 0.0
    assert still.lag_frames is None


def test_series_that_say_nothing_have_no_correlation() -> None:
    assert pearson(np.full(30, 0.2), np.full(30, 0.2)) is None
    assert lip_motion(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])).correlation is None
    assert lip_motion(np.full(9, np.nan), np.ones(9)).energy_ratio is None


def test_brightness_of_the_whole_mouth_is_no_motion() -> None:
    patch = portrait(64).astype(np.float32)
    assert motion_energy(patch + 5, patch) == pytest.approx(0, abs=1e-4)
    assert motion_energy(np.roll(patch, 2, axis=0), patch) > 2


def test_a_rectangle_shows_and_noise_does_not() -> None:
    difference = np.random.default_rng(1).integers(-3, 4, (120, 140)).astype(np.int16)
    box = (30, 20, 100, 90)
    assert seam_step(difference, [box]) < 0.6
    difference[20:90, 30:100] += 6
    assert seam_step(difference, [box]) > 2.5
    # The same rectangle with its edge faded over 12 pixels is none.
    soft = np.zeros((120, 140), np.float32)
    soft[32:78, 42:88] = 6
    assert seam_step(np.rint(cv2.blur(soft, (13, 13))).astype(np.int16), [box]) < 0.6


@pytest.mark.parametrize("box", [(0, 0, 140, 120), (-5, -5, 160, 130), (1, 1, 139, 119)])
def test_the_pictures_own_border_is_no_seam(box: tuple[int, int, int, int]) -> None:
    assert seam_step(np.full((120, 140), 50, np.int16), [box]) == 0.0


def test_flicker_is_alternation_not_drift_and_not_lips() -> None:
    flat = np.zeros(16)
    assert flicker(flat, flat + 3, flat) == 3
    assert flicker(flat, flat + 3, flat + 6) == 0
    lips = flat.copy()
    lips[9:11] = 40
    assert flicker(flat, lips, flat) == 0
    difference = np.zeros((40, 40), np.int16)
    difference[:10, :10] = 8
    assert cell_means(difference, (0, 0, 40, 40)).tolist() == [8, *[0] * 15]


def test_background_is_everything_outside_the_window_once() -> None:
    first = np.full((50, 60, 3), 100, np.uint8)
    second = first.copy()
    second[10:40, 10:50] = 0  # inside
    window = (10, 10, 50, 40)
    clean = background(first, second, window, 0)
    assert (clean.largest, clean.share) == (0, 0.0)
    outside = 50 * 60 - 30 * 40
    for row, column in ((9, 30), (40, 30), (20, 9), (20, 50)):
        second[row, column, 1] += 9
    touched = background(first, second, window, 0)
    assert touched.largest == 9
    assert touched.share == pytest.approx(4 / outside)
    assert background(first, second, window, 9).share == 0.0
    assert background(first, second, None, 9).share == pytest.approx(30 * 40 / 3000)


def test_the_mouth_stays_where_it_is_when_the_head_moves() -> None:
    size = (240, 240)
    picture = cv2.GaussianBlur(cv2.resize(portrait(), size), (0, 0), 1.0)
    windows = windows_of(POINTS, *size)
    moved = windows_of(POINTS + np.array([3.0, -2.0]), *size)
    assert windows is not None
    assert moved is not None
    shifted = cv2.warpAffine(picture, np.array([[1.0, 0, 3], [0, 1, -2]]), size)
    here, there = mouth_patch(picture, windows), mouth_patch(shifted, moved)
    assert here.shape == MOUTH_SIZE[::-1]
    assert motion_energy(here, there) < 0.05
    assert motion_energy(here, mouth_patch(shifted, windows)) > 1


def test_memory_does_not_grow_with_pictures() -> None:
    """A frame leaves its numbers behind, a hundred bytes, and nothing of its 43200."""
    frames = 40
    track = Track(np.arange(1), np.ones(1, np.bool_), np.zeros((1, 4)), POINTS[None] / 2)
    meter = Meter(track, 120, 120, Pads(), 24)
    picture = np.repeat(portrait(120)[..., None], 3, axis=2)
    draw = np.random.default_rng(0)
    meter.add(picture, picture, 0)
    tracemalloc.start()
    for _ in range(frames):
        meter.add(picture, np.roll(picture, draw.integers(0, 3)), 0)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    series = meter.series()
    assert len(series["ssim"]) == frames + 1
    assert np.isfinite(series["flicker"][1:-1]).all()
    assert np.isfinite(series["motion_a"]).sum() == frames
    # Two worst pairs, the last patches, and the numbers.
    assert grown < 4 * picture.nbytes + 200 * frames


def test_a_cut_is_no_motion_of_lips() -> None:
    track = Track(np.arange(1), np.ones(1, np.bool_), np.zeros((1, 4)), POINTS[None] / 2)
    meter = Meter(track, 120, 120, Pads(), 24)
    picture = np.repeat(portrait(120)[..., None], 3, axis=2)
    for shown in (picture, picture, 255 - picture, 255 - picture):
        meter.add(shown, shown, 0)
    assert np.isnan(meter.series()["motion_a"]).tolist() == [True, False, True, False]


def test_windows_lie_in_each_other_and_in_the_frame() -> None:
    windows = windows_of(POINTS, 240, 240)
    assert windows is not None
    for inner, outer in (
        (windows.mouth, windows.mask),
        (windows.mask, windows.face),
        (windows.face, windows.blend),
    ):
        assert outer[0] <= inner[0] < inner[2] <= outer[2]
        assert outer[1] <= inner[1] < inner[3] <= outer[3]
    edge = windows_of(POINTS - np.array([80, 0]), 240, 240)
    assert edge is not None
    assert edge.mouth[0] == 0
    assert windows_of(POINTS - np.array([400, 0]), 240, 240) is None
    assert windows_of(POINTS * 0, 240, 240) is None
