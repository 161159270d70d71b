"""The original's lip synthesis around its networks: inputs, upper face, paste."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.runtime.upstream.lips import (
    face_at,
    lip_input,
    paste_face,
    reduced_faces,
    upper_face_input,
    upper_face_planes,
    with_upper_face,
)

BOX = (20, 10, 404, 394)  # 384 x 384: nothing is resized


def picture(seed: int = 0, height: int = 400, width: int = 450) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_lower_half_of_the_face_is_black_and_the_reference_whole() -> None:
    frame, reference = picture(0), picture(1)
    given = lip_input(frame, reference, BOX)
    assert given.shape == (6, 384, 384)
    assert given.dtype == np.float32
    face = (frame[10:394, 20:404] / 255.0).astype(np.float32).transpose(2, 0, 1)
    assert np.array_equal(given[:3, :192], face[:, :192])
    assert not given[:3, 192:].any()
    assert np.array_equal(
        given[3:], (reference[10:394, 20:404] / 255.0).astype(np.float32).transpose(2, 0, 1)
    )
    assert frame[300, 100].any()  # the frame itself was not blackened


@pytest.mark.parametrize("box", [(-1, 0, 100, 100), (0, 0, 451, 100), (0, 0, 100, 401), (5, 5, 5, 9)])
def test_boxes_outside_the_frame_are_refused(box: tuple[int, ...]) -> None:
    with pytest.raises(InternalError, match="face box"):
        face_at(picture(), box)


def test_faces_are_reduced_as_pytorch_interpolates_to_the_last_bit() -> None:
    torch = pytest.importorskip("torch")
    faces = np.random.default_rng(5).random((6, 384, 384), dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(faces)[None], (96, 96), mode="bilinear", align_corners=False
    )
    assert np.array_equal(reduced_faces(faces), expected[0].numpy())


def test_the_upper_face_is_reduced_to_every_third_pixel() -> None:
    face = picture(2, 384, 384)
    planes = upper_face_input(face)
    assert planes.shape == (3, 128, 128)
    # Bilinear: pixel i lies at (i + 0.5) * 3 - 0.5 = 3 i + 1.
    expected = face[1::3, 1::3].astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
    assert np.array_equal(planes, expected.transpose(2, 0, 1))


def test_the_edited_face_is_enlarged_bilinearly_up_to_its_edges() -> None:
    ramp = np.tile(np.linspace(-1, 1, 128, dtype=np.float32), (3, 128, 1))
    planes = upper_face_planes(ramp)
    positions = np.clip((np.arange(384) + 0.5) / 3 - 0.5, 0, 127)
    np.testing.assert_allclose(planes, np.broadcast_to(positions / 127, (3, 384, 384)), atol=1e-6)


def test_black_pixels_of_the_upper_half_take_the_prediction_channel_by_channel() -> None:
    frame = np.full((400, 450, 3), 90, np.uint8)
    frame[60, 70] = (0, 90, 90)
    given = lip_input(frame, frame, BOX)
    predicted, upper = np.full((3, 384, 384), 0.25, np.float32), np.full((3, 384, 384), 0.75, np.float32)
    mixed = with_upper_face(predicted, given, upper)
    assert mixed[:, 50, 50].tolist() == [0.25, 0.75, 0.75]
    assert np.all(mixed[:, 192:] == 0.25)
    mixed[0, 50, 50] = 0.75
    assert np.all(mixed[:, :192] == 0.75)


def test_the_face_is_truncated_before_it_is_resized() -> None:
    frame = picture(3)
    predicted = np.full((3, 384, 384), 100.99 / 255, np.float32)
    predicted[:, :, ::2] = 103.99 / 255  # resized before truncation, halves would be 102.49
    pasted = paste_face(frame, predicted, (50, 30, 50 + 192, 30 + 192))
    assert set(np.unique(pasted[30:222, 50:242])) <= {101, 102}  # 101.5, rounded by OpenCV
    pasted[30:222, 50:242] = frame[30:222, 50:242]
    assert np.array_equal(pasted, frame)
    assert np.all(paste_face(frame, predicted + 2, BOX)[10:394, 20:404] == 255)


def test_a_face_of_nan_is_refused() -> None:
    with pytest.raises(InternalError, match="not finite"):
        paste_face(picture(), np.full((3, 384, 384), np.nan, np.float32), BOX)
    with pytest.raises(InternalError, match="predicted face"):
        paste_face(picture(), np.zeros((3, 96, 96), np.float32), BOX)
