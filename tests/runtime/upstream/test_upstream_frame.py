"""A frame through all of the original's stages, with toy networks in place of the trained ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dubstream.engines.errors import NoFaceError
from dubstream.kernels.face_align import GFPGAN_POINTS, GPEN_POINTS
from dubstream.runtime.upstream.five_points import Faces
from dubstream.runtime.upstream.frame import (
    UpstreamNetworks,
    enhanced_reference,
    finished_frame,
    synthesised_frame,
    upstream_frame,
)

SKIN, UPPER_LIP = 1, 11
SOURCE_BOX = (60, 40, 460, 440)
FACE_BOX = (64, 64, 448, 448)  # 384 x 384: nothing is resized
MEL = np.zeros((1, 80, 16), np.float32)
NOBODY = Faces(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))


def picture(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


FRAME = picture(512, 1)
STABILISED = picture(256, 2)


class Toys:
    """Networks that leave their pictures as they are, and a record of who was called with what."""

    def __init__(self, *, mouth: int = UPPER_LIP, lips: Any = None, edit: Any = None) -> None:
        self.calls: list[str] = []
        self.given: dict[str, Any] = {}
        self._lips = lips
        self.mouth = mouth
        self.networks = UpstreamNetworks(
            landmarks=self.landmarks,
            lips=self.lips,
            faces=lambda levels: self.detected("faces", levels, GPEN_POINTS),
            strict_faces=lambda levels: self.detected("strict_faces", levels, GFPGAN_POINTS),
            restore_reference=lambda planes: self.passed("restore_reference", planes),
            restore_mouth=lambda planes: self.passed("restore_mouth", planes),
            parse=self.parse,
            edit_upper_face=edit,
        )

    def passed(self, name: str, value: Any) -> Any:
        self.calls.append(name)
        self.given[name] = value
        return value

    def landmarks(self, found_in: np.ndarray) -> np.ndarray:
        self.passed("landmarks", found_in)
        points = np.zeros((68, 2), np.int32)
        points[36:42], points[42:48], points[30], points[48], points[54] = (
            (112, 121), (144, 121), (128, 130), (116, 145), (140, 145),
        )  # fmt: skip
        return points

    def lips(self, mel: np.ndarray, given: np.ndarray) -> np.ndarray:
        self.passed("lips", given)
        if self._lips is not None:
            return np.full((3, 384, 384), self._lips, np.float32)
        part = FRAME[64:448, 64:448].transpose(2, 0, 1).astype(np.float32)
        return np.asarray((part + np.float32(0.25)) / np.float32(255))  # a level that truncation keeps

    def detected(self, name: str, levels: np.ndarray, points: np.ndarray) -> Faces:
        self.passed(name, levels)
        placed = points * (levels.shape[0] / 512)
        return Faces(np.array([[50.0, 50, 450, 450]]), np.array([0.99]), placed[None])

    def parse(self, planes: np.ndarray) -> np.ndarray:
        self.passed("parse", planes)
        found = np.full((512, 512), SKIN, np.uint8)
        found[330:400, 180:330] = self.mouth
        return found


def test_networks_that_change_nothing_lose_a_level_here_and_there_at_most() -> None:
    toys = Toys()
    out = upstream_frame(FRAME, STABILISED, SOURCE_BOX, FACE_BOX, MEL, toys.networks)
    # a m + a (1 - m) is not always a in float32; what falls short of a level is truncated.
    lost = FRAME.astype(int) - out
    assert set(np.unique(lost)) <= {0, 1}
    assert np.count_nonzero(lost) < 1e-3 * lost.size
    assert toys.calls == [
        "faces", "restore_reference", "parse", "landmarks", "lips", "strict_faces", "restore_mouth",
        "parse", "faces", "parse",
    ]  # fmt: skip


def test_every_network_is_given_what_the_stage_before_made() -> None:
    toys = Toys(lips=0.6)
    enhanced = enhanced_reference(STABILISED, toys.networks)
    assert toys.given["restore_reference"].shape == (3, 512, 512)
    upstream_frame(FRAME, STABILISED, SOURCE_BOX, FACE_BOX, MEL, toys.networks)
    assert np.array_equal(toys.given["landmarks"], enhanced)  # BGR, as it is
    given = toys.given["lips"]
    face = (FRAME[64:448, 64:448] / 255.0).astype(np.float32).transpose(2, 0, 1)
    assert np.array_equal(given[:3, :192], face[:, :192])
    # The reference is the stabilised face inside its small quad. Outside it the source, blurred by 256 x 256.
    assert not np.array_equal(given[3:], face)
    assert toys.given["strict_faces"][256, 256].tolist() == [153, 153, 153]  # 0.6 * 255, in the frame
    assert np.array_equal(toys.given["strict_faces"][:64], FRAME[:64])


def test_the_synthesised_face_reaches_the_middle_and_not_the_corners() -> None:
    grey = np.full((512, 512, 3), 50, np.uint8)
    out = upstream_frame(grey, picture(256, 3), SOURCE_BOX, FACE_BOX, MEL, Toys(lips=0.5).networks)
    assert np.all(out[240:260, 240:260] == 127)  # 127.5 truncated
    assert np.all(out[:4, :4] == 50)
    changed = np.nonzero((out != 50).any(axis=2))[0]
    assert changed.min() > 20


def test_of_the_restored_mouth_detail_is_taken_and_brightness_is_not() -> None:
    grey = np.full((512, 512, 3), 102, np.uint8)
    stripes = np.where(np.arange(512) // 4 % 2, 40, -40).astype(np.float32) * np.float32(2 / 255)

    def finished(change: Any, mouth: int = UPPER_LIP) -> np.ndarray:
        networks = replace(Toys(mouth=mouth).networks, restore_mouth=lambda planes: planes + change)
        return finished_frame(grey, grey, FACE_BOX, networks)[..., 0].astype(int)

    striped = finished(stripes)
    # In the box, 384 pixels for the parser's 512, the mouth is at rows 312..363 and columns 199..310.
    assert striped[325:350, 220:290].std() > 30
    assert striped[100:250, 70:440].std() < 1
    # The coarsest of ten levels is one pixel, whose mask is the mouth's share of the frame.
    assert np.abs(finished(np.float32(40 * 2 / 255)) - 102).max() <= 1  # of 40
    assert set(np.unique(finished(stripes, SKIN))) <= {101, 102}  # truncated, as above


@pytest.mark.parametrize("edited", [None, 0.5])
def test_the_upper_face_is_replaced_only_when_asked(edited: float | None) -> None:
    edit = None if edited is None else lambda planes: np.full_like(planes, edited)
    networks = Toys(lips=0.4, edit=edit).networks
    bright = np.full((512, 512, 3), 201, np.uint8)
    kept = synthesised_frame(bright, bright, FACE_BOX, MEL, networks)
    assert np.all(kept[64:448, 64:448] == 102)
    replaced = synthesised_frame(bright, bright, FACE_BOX, MEL, networks, replace_upper_face=True)
    upper = 191 if edited else 201  # (0.5 / 2 + 0.5) * 255 = 191.25
    assert np.all(np.abs(replaced[64:256, 64:448].astype(int) - upper) <= (0 if edited else 1))
    assert np.all(replaced[256:448, 64:448] == 102)


def test_frames_in_which_no_face_is_found() -> None:
    toys = Toys(lips=0.5)
    nobody = replace(toys.networks, faces=lambda levels: NOBODY)
    assert np.array_equal(enhanced_reference(STABILISED, nobody), STABILISED)
    out = upstream_frame(FRAME, STABILISED, SOURCE_BOX, FACE_BOX, MEL, nobody)
    assert np.array_equal(out, FRAME)
    blind = replace(toys.networks, landmarks=lambda found: np.full((68, 2), -1))
    with pytest.raises(NoFaceError):
        upstream_frame(FRAME, STABILISED, SOURCE_BOX, FACE_BOX, MEL, blind)
