from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from kernels_reference import classic_blend, noise_picture, outside, pyr_down, pyr_up, random_box

from dubstream.engines.errors import InternalError
from dubstream.kernels.blend import BlendSettings, blend_face, blend_window
from dubstream.kernels.face_mask import FaceMaskShape, face_mask
from dubstream.kernels.multiband import blend_bands, pyramid_reach
from dubstream.kernels.upstream_blend import laplacian_blend_uint8
from dubstream.kernels.workspace import Workspace


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 5), (16, 16), (37, 22), (50, 51)])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_bands_equal_the_textbook_blend_of_two_pictures(size: tuple[int, int], levels: int) -> None:
    rng = np.random.default_rng(levels)
    inside, source = noise_picture(rng, *size), noise_picture(rng, *size)
    mask = rng.random(size, dtype=np.float32)
    blended = blend_bands(inside.astype(np.float32) - source, mask, levels) + source
    assert np.abs(blended - classic_blend(inside, source, mask, levels, rounded=False)).max() < 2e-4


@pytest.mark.parametrize("size", [(8, 8), (13, 20), (64, 64)])
@pytest.mark.parametrize("levels", [1, 3, 6])
def test_upstream_blend_equals_its_definition(size: tuple[int, int], levels: int) -> None:
    rng = np.random.default_rng(levels)
    inside, source = noise_picture(rng, *size), noise_picture(rng, *size)
    mask = np.round(rng.random(size, dtype=np.float32))
    blended = laplacian_blend_uint8(inside, source, mask, levels)
    assert np.abs(blended - classic_blend(inside, source, mask, levels, rounded=True)).max() < 2e-4
    assert (laplacian_blend_uint8(source, source, mask, levels) == source).all()


def test_the_independent_pyramid_is_the_usual_one() -> None:
    flat = np.full((9, 6), 7.0)
    assert (pyr_down(flat) == 7).all()
    assert (pyr_up(flat, 17, 12) == 7).all()
    spike = np.zeros((9, 9))
    spike[4, 4] = 256
    assert pyr_down(spike)[2, 2] == 36
    assert pyr_down(spike)[1, 2] == 6


@pytest.mark.parametrize("seed", range(16))
def test_outside_the_window_every_byte_is_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(1, 160, 2))
    frame = noise_picture(rng, height, width)
    box = random_box(rng, width, height)
    result = frame.copy()
    window = blend_face(result, rng.random((3, 48, 48), dtype=np.float32), box)
    kept = outside(frame, window)
    assert (result[kept] == frame[kept]).all()


def test_bands_reach_as_far_as_promised_and_no_further() -> None:
    for levels in (1, 2, 3, 5):
        for start in range(60, 76):
            mask = np.zeros((140, 3), np.float32)
            mask[start : start + 3] = 1
            rng = np.random.default_rng(start)
            changed = np.flatnonzero(
                blend_bands(rng.random((140, 3, 3), dtype=np.float32), mask, levels).any(axis=(1, 2))
            )
            assert changed[0] >= start - pyramid_reach(levels)
            assert changed[-1] <= start + 2 + pyramid_reach(levels)


@pytest.mark.parametrize("side", [96, 200, 301])
def test_the_change_ends_before_the_windows_edge(side: int) -> None:
    rng = np.random.default_rng(side)
    frame = noise_picture(rng, side + 80, side + 90)
    result = frame.copy()
    window = blend_face(result, rng.random((3, 96, 96), dtype=np.float32), (35, 33, 35 + side, 33 + side))
    inner = (window[0] + 1, window[1] + 1, window[2] - 1, window[3] - 1)
    kept = outside(frame, inner)
    assert (result[kept] == frame[kept]).all()
    assert (result != frame).any()


def test_a_prediction_equal_to_the_source_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    frame = noise_picture(rng, 420, 450)
    enhanced = np.ascontiguousarray(frame[20:404, 30:414].transpose(2, 0, 1)) / np.float32(255)
    result = frame.copy()
    blend_face(result, enhanced, (30, 20, 414, 404))
    assert (result == frame).all()


@pytest.mark.parametrize("box", [(3, 4, 20, 21), (10, 5, 190, 150), (0, 0, 201, 160)])
@pytest.mark.parametrize("level", [0, 1, 77, 128, 255])
def test_a_constant_prediction_on_a_constant_frame_changes_nothing(box: tuple[int, ...], level: int) -> None:
    frame = np.full((160, 201, 3), level, np.uint8)
    blend_face(frame, np.full((3, 64, 64), level / 255, np.float32), box)
    assert (frame == level).all()


def test_where_the_mask_is_full_the_prediction_arrives() -> None:
    frame = np.full((300, 300, 3), 100, np.uint8)
    enhanced = np.full((3, 384, 384), 0.8, np.float32)
    blend_face(frame, enhanced, (40, 40, 260, 260))
    assert (frame[200:215, 130:170] == 204).all()
    assert (frame[40:100] == 100).all()


@pytest.mark.parametrize("side", [150, 301, 384, 500])
def test_deep_inside_the_mask_only_the_prediction_is_left(side: int) -> None:
    rng = np.random.default_rng(side)
    enhanced = rng.random((3, 384, 384), dtype=np.float32)
    frame = noise_picture(rng, side + 40, side + 40)
    blend_face(frame, enhanced, (20, 20, 20 + side, 20 + side))
    how = cv2.INTER_AREA if side <= 384 else cv2.INTER_CUBIC
    expected = cv2.resize(enhanced.transpose(1, 2, 0) * 255, (side, side), interpolation=how).clip(0, 255)
    rows, columns = slice(int(side * 0.72), int(side * 0.78)), slice(int(side * 0.45), int(side * 0.55))
    error = frame[20:-20, 20:-20][rows, columns] - expected[rows, columns]
    assert np.abs(error).max() < 0.51


def test_seam_is_far_below_a_hard_paste() -> None:
    ramp = np.linspace(60, 180, 400)[None, :, None] + np.linspace(-20, 20, 360)[:, None, None]
    frame = np.broadcast_to(np.rint(ramp), (360, 400, 3)).astype(np.uint8)
    x1, y1, x2, y2 = box = (90, 50, 310, 290)
    face = frame[y1:y2, x1:x2].astype(np.float32) + 25  # a prediction that is a little too bright
    enhanced = np.ascontiguousarray(face.transpose(2, 0, 1)) / np.float32(255)
    hard = frame.copy()
    hard[y1:y2, x1:x2] = np.rint(face)
    soft = frame.copy()
    blend_face(soft, enhanced, box)

    def seam(picture: np.ndarray) -> float:
        """The largest jump between neighbours that the source does not have."""
        change = picture.astype(np.float64) - frame
        return max(np.abs(np.diff(change, axis=axis)).max() for axis in (0, 1))

    assert seam(hard) == 25
    assert seam(soft) <= 3


def test_empty_mask_leaves_the_frame_alone() -> None:
    rng = np.random.default_rng(9)
    frame = noise_picture(rng, 90, 80)
    result = frame.copy()
    nothing = BlendSettings(mask=FaceMaskShape(top=1, top_feather=0, bottom=0, bottom_feather=0))
    blend_face(result, rng.random((3, 40, 40), dtype=np.float32), (5, 5, 75, 85), settings=nothing)
    assert (result == frame).all()


@pytest.mark.parametrize(
    "box", [(-30, -20, 50, 60), (60, 50, 140, 130), (-10, -10, 110, 100), (99, 89, 180, 170)]
)
def test_faces_that_leave_the_frame_equal_the_same_face_on_a_larger_one(
    box: tuple[int, int, int, int],
) -> None:
    """With one band nothing is mirrored at the frame's edge, so the cut of the larger picture is exact."""
    rng = np.random.default_rng(10)
    large = noise_picture(rng, 290, 300)
    frame = large[100:190, 100:200].copy()
    enhanced = rng.random((3, 64, 64), dtype=np.float32)
    flat = BlendSettings(coarsest=0)
    blend_face(frame, enhanced, box, settings=flat)
    blend_face(large, enhanced, tuple(n + 100 for n in box), settings=flat)
    assert (frame == large[100:190, 100:200]).all()


def test_out_keeps_the_frame_and_strided_frames_are_written_in_place() -> None:
    rng = np.random.default_rng(11)
    source = noise_picture(rng, 120, 130)
    enhanced = rng.random((3, 64, 64), dtype=np.float32) * 3 - 1
    expected = source.copy()
    window = blend_face(expected, enhanced, (20, 20, 100, 110))
    out = np.empty_like(source)
    frame = source.copy()
    assert blend_face(frame, enhanced, (20, 20, 100, 110), out=out) == window
    assert (frame == source).all()
    assert (out == expected).all()
    wide = np.zeros((240, 260, 3), np.uint8)
    view = wide[::-2, ::2]
    view[...] = source
    blend_face(view, enhanced, (20, 20, 100, 110))
    assert (view == expected).all()
    assert (wide[::2] == 0).all()


def test_threads_give_the_same_bytes_as_one() -> None:
    rng = np.random.default_rng(12)
    frames = rng.integers(0, 256, (4, 200, 210, 3), np.uint8)
    enhanced = rng.random((3, 384, 384), dtype=np.float32)
    expected = frames.copy()
    for frame in expected:
        blend_face(frame, enhanced, (11, 12, 190, 191))
    threads = [
        threading.Thread(target=blend_face, args=(frame, enhanced, (11, 12, 190, 191))) for frame in frames
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (frames == expected).all()


def test_workspace_stops_growing() -> None:
    rng = np.random.default_rng(13)
    frame, enhanced = noise_picture(rng, 200, 210), rng.random((3, 384, 384), dtype=np.float32)
    space = Workspace()
    blend_face(frame, enhanced, (11, 12, 190, 191), workspace=space)
    held = space.nbytes
    for shift in range(3):
        blend_face(frame, enhanced, (11 + shift, 12, 190 - shift, 191), workspace=space)
    assert space.nbytes == held


def test_mask_covers_the_mouth_only() -> None:
    box = (10, 20, 110, 120)
    mask = face_mask(box, (0, 0, 130, 140), FaceMaskShape(), out=np.empty((140, 130), np.float32))
    assert (mask[20:64] == 0).all()
    assert (mask[80:110, 30:90] == 1).all()
    assert (mask[:, :13] == 0).all()
    assert (mask[119:] == 0).all()
    assert (mask == mask[:, ::-1][:, np.r_[10:130, :10]]).all()  # left and right alike


@pytest.mark.parametrize(
    ("side", "levels"), [(1, 1), (16, 1), (47, 1), (48, 2), (96, 3), (300, 4), (1000, 6)]
)
def test_levels_grow_with_the_face(side: int, levels: int) -> None:
    assert BlendSettings().levels((0, 0, side, side + 5)) == levels
    assert pyramid_reach(levels) == 4 * (2 ** (levels - 1) - 1)


def test_a_large_face_fills_a_frame() -> None:
    rng = np.random.default_rng(14)
    frame = noise_picture(rng, 1010, 1030)
    before = frame.copy()
    window = blend_face(frame, rng.random((3, 384, 384), dtype=np.float32), (10, 5, 1015, 1005))
    assert window == (0, 0, 1030, 1010)
    assert (frame[:200] == before[:200]).all()


def test_wrong_arguments_are_named() -> None:
    frame = np.zeros((50, 60, 3), np.uint8)
    enhanced = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(InternalError, match="outside a frame of 60x50"):
        blend_face(frame, enhanced, (70, 0, 90, 20))
    with pytest.raises(InternalError, match="enhanced face is float64"):
        blend_face(frame, enhanced.astype(np.float64), (0, 0, 20, 20))  # type: ignore[arg-type]
    enhanced[0, 0, 0] = np.nan
    with pytest.raises(InternalError, match="not finite"):
        blend_face(frame, enhanced, (0, 0, 20, 20))
    with pytest.raises(InternalError, match="no room"):
        FaceMaskShape(top=0.9)
    with pytest.raises(InternalError, match="fraction"):
        FaceMaskShape(side=-0.1)
    with pytest.raises(InternalError, match="1 or more"):
        blend_bands(np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.float32), 0)
    assert blend_window((10, 10, 20, 20), 60, 50, 3) == (7, 7, 23, 23)
