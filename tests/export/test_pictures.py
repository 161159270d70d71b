"""What surrounds a network in half-precision artifacts does the same as the kernels' references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubstream.engines.face_specs import DETECTOR_SIZE
from dubstream.engines.specs import SPECS, spec_of
from dubstream.export.face_pictures import DetectorPictures, ParseNetPictures
from dubstream.export.half_check import extreme_case, half_cases, levels_runner
from dubstream.export.pictures import (
    DNetPictures,
    ENetPictures,
    LNetPictures,
    PictureNetwork,
    ReconPictures,
    clamped,
    planes,
    reduced,
    shown,
)
from dubstream.export.real_inputs import real_inputs
from dubstream.kernels.face_inputs import face_inputs
from dubstream.kernels.planes import BGR_UNIT, RGB_SIGNED, RGB_UNIT, from_planes, to_planes

DRAW = np.random.default_rng(9)


def noise(side: int, count: int = 2) -> Any:
    pictures = DRAW.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pictures[0, 0, :4, 0] = [0, 255, 1, 254]
    return pictures


class Spy(nn.Module):
    """Remembers what it was given and answers with what it was made with."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        self.seen: tuple[Tensor, ...] = ()

    def forward(self, *inputs: Tensor) -> Any:
        self.seen = inputs
        return self.answer


def call(network: PictureNetwork, *inputs: Any) -> Any:
    with torch.inference_mode():
        return network(*(torch.from_numpy(each) for each in inputs)).numpy()


def as_planes(pictures: Any, layout: Any) -> Any:
    shape = (3, *pictures.shape[1:3])
    return np.stack([to_planes(each, layout, out=np.empty(shape, np.float32)) for each in pictures])


def as_pictures(values: Any, layout: Any) -> Any:
    shape = (*values.shape[2:], 3)
    return np.stack([from_planes(each, layout, out=np.empty(shape, np.uint8)) for each in values])


def test_dnet_sees_and_shows_what_the_kernels_would() -> None:
    edited = DRAW.uniform(-1.1, 1.1, (2, 3, 32, 32)).astype(np.float32)
    spy, image = Spy((torch.from_numpy(edited), None, None)), noise(32)
    got = call(DNetPictures(spy, torch.float32), image, np.zeros((2, 73, 26), np.float32))
    # (x - 127.5) / 127.5 here, x / 255 * 2 - 1 there: the last bit of numbers up to 1 may differ.
    assert np.abs(spy.seen[0].numpy() - as_planes(image, RGB_SIGNED)).max() <= 2**-23
    assert np.array_equal(got, as_pictures(edited, RGB_SIGNED))


def test_enet_sees_and_shows_what_the_kernels_would() -> None:
    enhanced = DRAW.uniform(-0.1, 1.1, (2, 3, 32, 32)).astype(np.float32)
    spy, reference = Spy(torch.from_numpy(enhanced)), noise(32)
    lips = DRAW.uniform(0, 1, (2, 3, 8, 8)).astype(np.float16)
    got = call(ENetPictures(spy, torch.float32), lips, reference)
    assert np.array_equal(spy.seen[0].numpy(), lips.astype(np.float32))
    assert np.array_equal(spy.seen[1].numpy(), as_planes(reference, BGR_UNIT))
    assert np.array_equal(got, as_pictures(enhanced, BGR_UNIT))


def test_recon_sees_red_first() -> None:
    spy, image = Spy(torch.zeros(2, 257)), noise(16)
    assert call(ReconPictures(spy, torch.float32), image).dtype == np.float32
    assert np.array_equal(spy.seen[0].numpy(), as_planes(image, RGB_UNIT))


def test_lnet_sees_exactly_the_kernels_six_planes() -> None:
    # A face box that is the frame, and a reference pasted nowhere near it: pictures go through unchanged.
    frame, other = noise(384, 1)[0], noise(384, 1)[0]
    seen_face, seen_reference = (np.empty((6, 96, 96), np.float32) for _ in range(2))
    for picture, faces in ((frame, seen_face), (other, seen_reference)):
        face_inputs(
            picture, noise(256, 1)[0], (380, 380, 384, 384), (0, 0, 384, 384),
            faces_96=faces, reference_384=np.empty((3, 384, 384), np.float32),
        )  # fmt: skip
    spy = Spy(torch.rand(1, 3, 96, 96))
    lips = call(
        LNetPictures(spy, torch.float32), np.zeros((1, 1, 80, 16), np.float32), frame[None], other[None]
    )
    faces = spy.seen[1].numpy()[0]
    assert np.array_equal(faces[:3], seen_face[:3])
    assert np.array_equal(faces[3:, :95, :95], seen_reference[3:, :95, :95])
    assert lips.dtype == np.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_mouth_of_the_target_is_never_read(dtype: torch.dtype) -> None:
    face = noise(384, 1)
    blackened = face.copy()
    blackened[:, 192:] = 0
    seen = []
    for each in (face, blackened):
        spy = Spy(torch.rand(1, 3, 96, 96))
        call(LNetPictures(spy, dtype), np.zeros((1, 1, 80, 16), np.float32), each, face)
        seen.append(spy.seen[1])
    assert torch.equal(seen[0], seen[1])
    assert not seen[0][:, :3, 48:].any()
    assert seen[0][:, :3, :48].any()


def test_reduction_of_bytes_is_exact_in_float16() -> None:
    picture = torch.from_numpy(noise(64))
    wide, half = (reduced(planes(picture, dtype)) for dtype in (torch.float32, torch.float16))
    assert torch.equal(wide, half.float())


def test_halves_are_rounded_to_even_and_beyond_is_clamped() -> None:
    levels = torch.tensor([0.5, 1.5, 2.5, -9.0, 300.0, 254.5]).reshape(1, 1, 1, 6)
    got = shown(clamped(levels))
    assert (got.dtype, got.shape, got.flatten().tolist()) == (
        torch.uint8, (1, 1, 6, 1), [0, 2, 2, 0, 255, 254],
    )  # fmt: skip


def test_levels_are_the_picture_before_rounding() -> None:
    enhanced = torch.from_numpy(DRAW.uniform(-0.1, 1.1, (1, 3, 384, 384)).astype(np.float32))
    spec = spec_of("enet", "fp16")
    inputs = {"lips": np.zeros((1, 3, 96, 96), np.float16), "reference": noise(384, 1)}
    network = ENetPictures(Spy(enhanced), torch.float32)
    levels = levels_runner(network, spec)(inputs)["enhanced"]
    assert levels.dtype == np.float32
    assert np.array_equal(np.rint(levels).astype(np.uint8), call(network, *inputs.values()))


def test_several_outputs_keep_the_order_of_their_spec() -> None:
    spec = spec_of("retinaface", "fp16")
    made = tuple(torch.full(tensor.concrete(1), float(index)) for index, tensor in enumerate(spec.outputs))
    run = levels_runner(DetectorPictures(Spy(made), torch.float32), spec)
    got = run({"image": np.zeros(spec.inputs[0].concrete(1), np.uint8)})
    assert list(got) == ["boxes", "scores", "points"]
    for (index, tensor), values in zip(enumerate(spec.outputs), got.values(), strict=True):
        tensor.check(values)
        assert np.all(values == index)


def test_masks_are_compared_with_channels_last() -> None:
    probabilities = torch.linspace(0, 1, 2 * 512 * 512).reshape(1, 2, 512, 512)
    spec = spec_of("parsenet", "fp16")
    run = levels_runner(ParseNetPictures(Spy((probabilities, torch.zeros(1))), torch.float32), spec)
    got = run({"image": noise(512, 1)})["masks"]
    assert got.shape == (1, 512, 512, 2)
    assert np.array_equal(got[0, 7, 5], probabilities[0, :, 7, 5].numpy() * np.float32(255))


def test_detectors_see_a_face_in_the_middle_of_a_frame() -> None:
    frames, faces = real_inputs("s3fd")["image"], real_inputs("lnet")["face"]
    rows, columns = DETECTOR_SIZE
    top, left = (rows - 128) // 2, (columns - 128) // 2
    thirds = faces[1].reshape(128, 3, 128, 3, 3).mean(axis=(1, 3))
    far = frames[1, top : top + 128, left : left + 128]
    assert np.abs(far - thirds).max() <= 0.5
    assert np.array_equal(frames[1, :, left - 1], frames[1, :, left])  # mirrored around
    assert np.abs(frames[0, 32:352, 160:480].mean() - faces[0].mean()) < 1


@pytest.mark.parametrize("name", SPECS)
def test_real_inputs_fit_the_specs(name: str) -> None:
    spec = spec_of(name, "fp16")
    cases = [*half_cases(spec, real_inputs(name)), extreme_case(spec)]
    assert [case.name for case in cases] == ["real", "uniform", "ends"]
    for case in cases:
        for tensor in spec.inputs:
            values = case.inputs[tensor.name]
            tensor.check(values)
            if tensor.low is not None and tensor.high is not None:
                assert tensor.low <= values.min() <= values.max() <= tensor.high
            if case.name == "real":
                assert len(values) == 2
                assert values.astype(np.float32).std() > 0.05


def test_real_inputs_can_be_made_again() -> None:
    from dubstream.benchmarks.real_inputs import make

    made = make()
    for stored, name in ((real_inputs("dnet"), "crop"), (real_inputs("recon"), "aligned")):
        assert np.abs(stored["image"].astype(int) - made[name]).mean() < 2  # JPEG, and OpenCV's versions
    for name in ("face", "reference"):
        assert np.abs(real_inputs("lnet")[name].astype(int) - made[name]).mean() < 2
    assert np.abs(real_inputs("lnet")["mel"] - made["mel"]).max() < 1e-3
    assert np.abs(real_inputs("dnet")["coefficients"] - made["coefficients"]).max() < 0.5
