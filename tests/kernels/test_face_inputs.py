from __future__ import annotations

import numpy as np
import pytest
from kernels_reference import bilinear, noise_picture, random_box

from dubstream.engines.errors import InternalError
from dubstream.kernels.face_inputs import face_inputs, face_inputs_batch
from dubstream.kernels.resample import crop_resize


def outputs(count: int | None = None) -> dict[str, np.ndarray]:
    lead = () if count is None else (count,)
    name = "reference_384" if count is None else "references_384"
    return {
        "faces_96": np.full((*lead, 6, 96, 96), np.nan, np.float32),
        name: np.full((*lead, 3, 384, 384), np.nan, np.float32),
    }


def plain_inputs(frame, reference, crop_box, face_box) -> tuple[np.ndarray, np.ndarray]:
    """The definition, word by word: paste into a copy of the frame, cut, resize, mask, stack, reduce."""
    x1, y1, x2, y2 = crop_box
    pasted = crop_resize(reference, (0, 0, 256, 256), np.empty((y2 - y1, x2 - x1, 3), np.uint8))
    with_reference = frame.copy()
    with_reference[y1:y2, x1:x2] = pasted
    face, ref = (
        crop_resize(picture, face_box, np.empty((384, 384, 3), np.uint8))
        for picture in (frame, with_reference)
    )
    face[192:] = 0
    stacked = np.concatenate([face, ref], axis=2) / 255
    small = bilinear(stacked, 96, 96)
    return small.transpose(2, 0, 1), ref.transpose(2, 0, 1) / 255


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_on_random_boxes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(20, 400, 2))
    frame, reference = noise_picture(rng, height, width), noise_picture(rng, 256, 256)
    crop_box, face_box = random_box(rng, width, height), random_box(rng, width, height)
    out = outputs()
    untouched = frame.copy()

    face_inputs(frame, reference, crop_box, face_box, **out)

    faces, ref = plain_inputs(frame, reference, crop_box, face_box)
    assert np.abs(out["faces_96"] - faces).max() < 2e-7
    assert np.abs(out["reference_384"] - ref).max() < 1e-7
    assert (frame == untouched).all()


def test_lower_half_of_the_face_is_black_and_the_reference_is_not() -> None:
    frame = np.full((50, 60, 3), 200, np.uint8)
    out = outputs()
    face_inputs(frame, np.full((256, 256, 3), 100, np.uint8), (0, 0, 60, 50), (10, 5, 50, 45), **out)
    assert (out["faces_96"][:3, 48:] == 0).all()
    assert (out["faces_96"][:3, :48] == np.float32(200 / 255)).all()
    assert (out["faces_96"][3:] == np.float32(100 / 255)).all()


@pytest.mark.parametrize("crop_box", [(0, 0, 8, 8), (40, 30, 60, 50), (30, 0, 60, 50), (-9, -7, 70, 44)])
def test_crop_boxes_that_cover_none_or_some_or_all_of_the_face(crop_box: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(5)
    wide = noise_picture(rng, 90, 100)
    reference = noise_picture(rng, 256, 256)
    frame, moved = wide[20:70, 20:80], tuple(n + 20 for n in crop_box)
    out, expected = outputs(), outputs()
    face_inputs(frame, reference, crop_box, (20, 10, 60, 50), **out)
    face_inputs(wide, reference, moved, (40, 30, 80, 70), **expected)
    for name, values in out.items():
        assert (values == expected[name]).all()


def test_a_face_that_leaves_the_frame_repeats_the_pasted_edge() -> None:
    rng = np.random.default_rng(6)
    frame, reference = noise_picture(rng, 40, 50), noise_picture(rng, 256, 256)
    padded = np.pad(frame, ((8, 8), (8, 8), (0, 0)), mode="edge")
    pasted = crop_resize(reference, (0, 0, 256, 256), np.empty((40, 50, 3), np.uint8))
    out = outputs()
    face_inputs(frame, reference, (0, 0, 50, 40), (-8, 10, 30, 48), **out)
    cut = np.pad(pasted, ((0, 8), (8, 0), (0, 0)), mode="edge")
    expected = crop_resize(cut, (0, 10, 38, 48), np.empty((384, 384, 3), np.uint8))
    assert (out["reference_384"] == (expected.transpose(2, 0, 1) / np.float32(255))).all()
    face = crop_resize(padded, (0, 18, 38, 56), np.empty((384, 384, 3), np.uint8))
    assert (
        np.abs(out["faces_96"][:3, :48] - bilinear(face, 96, 96).transpose(2, 0, 1)[:, :48] / 255).max()
        < 2e-7
    )


def test_a_batch_equals_single_calls() -> None:
    rng = np.random.default_rng(7)
    frames, references = (
        rng.integers(0, 256, (3, 70, 90, 3), np.uint8),
        rng.integers(0, 256, (3, 256, 256, 3), np.uint8),
    )
    crop_boxes, face_boxes = (np.array([random_box(rng, 90, 70) for _ in range(3)]) for _ in range(2))
    batch = outputs(3)
    face_inputs_batch(frames, references, crop_boxes, face_boxes, **batch)
    for item in range(3):
        single = outputs()
        face_inputs(frames[item], references[item], crop_boxes[item], face_boxes[item], **single)
        assert (batch["faces_96"][item] == single["faces_96"]).all()
        assert (batch["references_384"][item] == single["reference_384"]).all()


def test_wrong_arguments_are_named() -> None:
    frame, reference = np.zeros((40, 50, 3), np.uint8), np.zeros((256, 256, 3), np.uint8)
    with pytest.raises(InternalError, match="outside a frame of 50x40"):
        face_inputs(frame, reference, (0, 0, 50, 40), (50, 0, 70, 20), **outputs())
    with pytest.raises(InternalError, match="expected uint8 256 x 256 x 3"):
        face_inputs(frame, reference[:255], (0, 0, 50, 40), (0, 0, 20, 20), **outputs())
    with pytest.raises(InternalError, match="one length"):
        face_inputs_batch(
            frame[None], reference[None], np.zeros((2, 4), int), np.zeros((1, 4), int), **outputs(1)
        )
