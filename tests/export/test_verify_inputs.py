"""The probes: of the right form for every network, adversarial where they say so, never outside a range."""

from __future__ import annotations

import numpy as np
import pytest

from dubstream.engines.contract import BATCH, TensorSpec
from dubstream.engines.face_specs import FAN4, S3FD
from dubstream.engines.half_specs import HALF_SPECS
from dubstream.engines.specs import DNET, ENET, LNET, RECON, SPECS
from dubstream.export.real_inputs import real_inputs
from dubstream.export.verify.inputs import clip_inputs, is_picture, probes

PICTURES = ["constant/1", "saturated/1", "checkerboard/1"]


@pytest.mark.parametrize("name", list(SPECS))
def test_probes_fit_both_specs_of_every_network(name: str) -> None:
    for spec, real in ((SPECS[name], None), (HALF_SPECS[name, "fp16"], real_inputs(name))):
        found = probes(spec, real)
        assert len({probe.name for probe in found}) == len(found)
        assert [probe.name for probe in found if probe.amplifying] == PICTURES
        for probe in found:
            for tensor in spec.inputs:
                values = probe.inputs[tensor.name]
                tensor.check(values)
                assert tensor.low is None or values.min() >= tensor.low
                assert tensor.high is None or values.max() <= tensor.high


def test_batches_of_three_two_and_one_are_tried() -> None:
    found = probes(HALF_SPECS["recon", "fp16"], real_inputs("recon"))
    assert [probe.name for probe in found] == ["uniform/3", "ends/1", "real/2", *PICTURES]
    assert [probe.name for probe in probes(RECON, None, quick=True)] == ["uniform/1"]


def test_what_is_special_about_each_network_is_tried() -> None:
    lnet = {probe.name: probe.inputs for probe in probes(LNET, None)}
    assert lnet["silence/1"]["mel"].max() == -4.0
    assert lnet["full scale/1"]["mel"].min() == 4.0
    assert np.array_equal(lnet["silence/1"]["faces"], lnet["full scale/1"]["faces"])
    real = {"image": np.zeros((1, 3, 256, 256), np.float32), "coefficients": np.ones((1, 73, 26), np.float32)}
    dnet = {probe.name: probe.inputs for probe in probes(DNET, real)}
    assert dnet["large flow/1"]["coefficients"].min() == 8.0


def test_a_checkerboard_alternates_in_planes_and_in_pixels() -> None:
    for spec, low, high in ((ENET, 0.0, 1.0), (HALF_SPECS["enet", "fp16"], 0, 255)):
        board = {probe.name: probe.inputs for probe in probes(spec, None)}["checkerboard/1"]["reference"]
        board = board[0, 0] if spec is ENET else board[0, :, :, 0]
        assert set(np.unique(board)) == {low, high}
        assert (board[1:] != board[:-1]).all()
        assert (board[:, 1:] != board[:, :-1]).all()


def test_pictures_are_told_from_other_tensors() -> None:
    assert {tensor.name for tensor in (*LNET.inputs, *DNET.outputs) if is_picture(tensor)} == {
        "faces", "edited", "warped",
    }  # fmt: skip
    assert is_picture(TensorSpec("x", "uint8", (BATCH, 8, 8, 3), 0, 255, ""))
    assert all(is_picture(spec.input("image")) for spec in (S3FD, HALF_SPECS["s3fd", "fp16"]))
    assert not any(is_picture(tensor) for spec in (S3FD, FAN4) for tensor in spec.outputs)
    assert not is_picture(TensorSpec("points", "float32", (BATCH, 5, 2, 3), None, None, ""))


def test_a_detector_sees_the_middle_of_a_frame_in_its_own_form() -> None:
    spec = HALF_SPECS["s3fd", "fp16"]
    for height, width in ((384, 1280), (800, 640)):
        frame = np.zeros((height, width, 3), np.uint8)
        top, left = (height - 384) // 2, (width - 640) // 2
        frame[top : top + 384, left : left + 640] = 200
        image = clip_inputs(spec, real_inputs("s3fd"), [frame])["image"]
        spec.input("image").check(image)
        assert (image == 200).all()


def test_frames_of_a_clip_become_centred_squares() -> None:
    spec, real = HALF_SPECS["lnet", "fp16"], real_inputs("lnet")
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[:, 50:150] = 200  # the centred square
    inputs = clip_inputs(spec, real, [frame] * 3)
    for tensor in spec.inputs:
        tensor.check(inputs[tensor.name])
        assert len(inputs[tensor.name]) == 3
    assert (inputs["face"] == 200).all()
    np.testing.assert_array_equal(inputs["mel"][2], real["mel"][0])
