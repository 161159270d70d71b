"""The pixel work of one 720p frame, on the host. Each result is checked; a wrong one fails its benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np

from dubstream.kernels.blend import blend_face
from dubstream.kernels.composite import composite
from dubstream.kernels.face_inputs import face_inputs
from dubstream.kernels.multiband import blend_bands
from dubstream.kernels.nv12 import BT709, bgr_to_nv12, nv12_to_bgr
from dubstream.kernels.planes import BGR_UNIT, RGB_SIGNED, from_planes, to_planes
from dubstream.kernels.resample import crop_resize

Array = np.ndarray[Any, Any]

FACE_BOX = (490, 180, 790, 480)
"""300 pixels a side: a head that fills about half the height of a 720p frame."""
CROP_BOX = (440, 100, 840, 520)


def test_crop_resize_of_a_face(benchmark: Any, frame: Array) -> None:
    out = np.empty((384, 384, 3), np.uint8)
    benchmark(crop_resize, frame, FACE_BOX, out)
    face = frame[180:480, 490:790]
    assert abs(float(out.mean()) - float(face.mean())) < 0.5


def test_planes_of_a_face_and_back(benchmark: Any, frame: Array) -> None:
    picture = np.ascontiguousarray(frame[:384, :384])
    planes, back = np.empty((3, 384, 384), np.float32), np.empty_like(picture)

    def both() -> None:
        to_planes(picture, RGB_SIGNED, out=planes)
        from_planes(planes, RGB_SIGNED, out=back)

    benchmark(both)
    np.testing.assert_array_equal(back, picture)


def test_network_inputs_of_a_frame(benchmark: Any, frame: Array) -> None:
    reference = crop_resize(frame, CROP_BOX, np.empty((256, 256, 3), np.uint8))
    faces, large = np.empty((6, 96, 96), np.float32), np.empty((3, 384, 384), np.float32)
    benchmark(face_inputs, frame, reference, CROP_BOX, FACE_BOX, faces_96=faces, reference_384=large)
    assert not faces[:3, 48:].any(), "the lower half of the face is black"
    assert faces[:3, :48].any()
    assert abs(float(large.mean()) - float(frame[180:480, 490:790].mean()) / 255) < 0.02


def test_composite_of_a_reference(benchmark: Any, frame: Array) -> None:
    inside, outside = (np.ascontiguousarray(frame[k : k + 256, :256]) for k in (0, 300))
    mask = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1))
    out = np.empty_like(inside)
    benchmark(composite, inside, outside, mask, out=out)
    np.testing.assert_array_equal(out[:, 0], outside[:, 0])
    np.testing.assert_array_equal(out[:, -1], inside[:, -1])


def test_bands_of_a_face(benchmark: Any) -> None:
    mask = np.ones((396, 396), np.float32)
    difference = np.random.default_rng(1).normal(0, 20, (396, 396, 3)).astype(np.float32)

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (difference.copy(), mask, 4), {}

    blended = benchmark.pedantic(blend_bands, setup=fresh, rounds=20)
    np.testing.assert_allclose(blended, difference, atol=1e-3)


def test_blend_of_a_face_into_its_frame(benchmark: Any, frame: Array) -> None:
    face = np.ascontiguousarray(255 - crop_resize(frame, FACE_BOX, np.empty((384, 384, 3), np.uint8)))
    enhanced = to_planes(face, BGR_UNIT, out=np.empty((3, 384, 384), np.float32))
    out = np.empty_like(frame)
    x1, y1, x2, y2 = benchmark(blend_face, frame, enhanced, FACE_BOX, out=out)
    changed = np.abs(out.astype(int) - frame).max(axis=2)
    assert changed[y1:y2, x1:x2].max() > 100
    changed[y1:y2, x1:x2] = 0
    assert not changed.any(), "outside the window every pixel is the source's"


def test_nv12_of_a_frame_and_back(benchmark: Any, frame: Array) -> None:
    grey = np.repeat(frame[:, :, :1], 3, axis=2)
    height, width = grey.shape[:2]
    luma, chroma = np.empty((height, width), np.uint8), np.empty((height // 2, width), np.uint8)
    back = np.empty_like(grey)

    def both() -> None:
        bgr_to_nv12(grey, BT709, luma=luma, chroma=chroma)
        nv12_to_bgr(luma, chroma, BT709, out=back)

    benchmark.pedantic(both, rounds=5, warmup_rounds=1)
    assert np.abs(back.astype(int) - grey).max() <= 1
