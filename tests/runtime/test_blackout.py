"""Networks that return NaN in a picture of bytes, and black pictures that are right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import QUICK, write_portrait, write_speech
from toy_half_networks import publish_half_toys

from dubstream.engines.errors import InternalError, StageError
from dubstream.kernels.blend import blend_face
from dubstream.runtime.artifacts import open_all
from dubstream.runtime.blackout import check_dubbed, check_edited
from dubstream.runtime.job.dub import dub
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions

BOXES = [(100, 80, 400, 420), (200, 150, 300, 280), (60, 60, 92, 101), (0, 0, 511, 511), (5, 5, 14, 17)]


def blended(box: tuple[int, int, int, int], level: float) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(2).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    dubbed = np.empty_like(source)
    face = np.full((3, 384, 384), level / 255, np.float32)
    blend_face(source, face, np.array(box, np.int32), out=dubbed)
    return dubbed, source


@pytest.mark.parametrize("box", BOXES)
def test_a_black_face_is_found_at_every_size_behind_the_blend(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InternalError, match="'enhanced' is black"):
        check_dubbed(*blended(box, 0.0), box)


@pytest.mark.parametrize("box", BOXES)
def test_a_dark_face_is_a_face(box: tuple[int, int, int, int]) -> None:
    check_dubbed(*blended(box, 3.0), box)


def test_black_is_right_where_the_source_is_black() -> None:
    black = np.zeros((256, 256, 3), np.uint8)
    check_dubbed(black, black, (10, 10, 200, 200))
    check_edited(black, black)
    with pytest.raises(InternalError, match="'edited' is black"):
        check_edited(black, black + np.uint8(9))


@pytest.mark.parametrize(("network", "stage"), [("enet", "blend"), ("lnet", "blend"), ("dnet", "reference")])
def test_a_half_network_that_returns_nan_is_named_with_stage_and_frame(
    tmp_path: Path, network: str, stage: str
) -> None:
    publish_half_toys(tmp_path / "toys", broken=network)
    options = DubOptions(
        stream=StreamOptions(batch=3, threads=1), backend=Backend(wanted="fp16"), encode=replace(QUICK)
    )
    request = DubRequest(
        write_portrait(tmp_path / "talk.mp4", 6), write_speech(tmp_path / "voice.wav", 6 / 25),
        tmp_path / "out.mp4", open_all(tmp_path / "toys", "fp16"), tmp_path / "cache", options,
    )  # fmt: skip
    with pytest.raises(StageError, match=f"stage '{stage}' failed at frame 0.*is black") as caught:
        dub(request)
    assert caught.value.exit_code == 70
    assert not request.output.exists()
