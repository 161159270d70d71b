"""What a dub may be asked for on the CUDA platform, over the fake driver, against the same on the host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cuda_dub_parts import OPTIONS, assert_close, dubbed, host_and_cuda, tensorrt_stands_in
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda

from dubstream.engines.errors import StageError
from dubstream.runtime.emotion import parse_emotion
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import FaceOptions
from dubstream.runtime.options.finish import FinishOptions

FRAMES = 5


@over_fake_cuda()
def test_an_emotion(fake: FakeCuda, kernels: str) -> None:
    options = replace(OPTIONS, emotion=parse_emotion("angry:0.8"))
    (_, expected), (summary, found) = host_and_cuda(fake, kernels, "fp16", FRAMES, options)
    assert {"synthesise/look", "synthesise/ganimation", "synthesise/emotion"} <= summary.busy_s.keys()
    assert_close(found, expected)


@over_fake_cuda()
def test_a_parsed_mask(fake: FakeCuda, kernels: str) -> None:
    options = replace(OPTIONS, finish=FinishOptions("parse"))
    (host, expected), (summary, found) = host_and_cuda(fake, kernels, "fp16", FRAMES, options)
    assert host.busy_s.keys() == summary.busy_s.keys() >= {"synthesise/align", "synthesise/finish"}
    assert_close(found, expected)


@over_fake_cuda()
def test_faces_found_by_networks_take_one_item_a_call_on_one_stream(fake: FakeCuda, kernels: str) -> None:
    """What TensorRT is asked for."""
    fake.policy("eager")
    options = replace(
        OPTIONS, face=FaceOptions(finder="networks", detect_every=2), backend=Backend("tensorrt")
    )
    with TemporaryDirectory() as scratch, tensorrt_stands_in(kernels, Path(scratch)) as seen:
        summary, _ = dubbed(Path(scratch), FRAMES, options)
    work = summary.timing.networks()
    streams = set()
    for name, shape in (("s3fd", (1, 384, 640, 3)), ("fan4", (1, 256, 256, 3))):
        calls = seen[name].calls
        assert {call[2] for call in calls if call[0] == "set_input_shape"} == {shape}
        runs = [call[1] for call in calls if call[0] == "execute_async_v3"]
        assert len(runs) == work[name].calls == work[name].items == 3  # frames 0, 2, 4
        streams |= {*runs}
    assert len(streams) == 1


@over_fake_cuda()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_everything_at_once(fake: FakeCuda, kernels: str, precision: str) -> None:
    options = replace(
        OPTIONS,
        face=FaceOptions(finder="networks"),
        finish=FinishOptions("parse", "both"),
        emotion=parse_emotion("angry"),
    )
    (host, expected), (summary, found) = host_and_cuda(fake, kernels, precision, FRAMES, options)
    assert host.busy_s.keys() == summary.busy_s.keys() >= {"track/s3fd", "track/fan4", "prepare/gpen"}
    assert host.frames == summary.frames == summary.dubbed
    assert_close(found, expected)


@over_fake_cuda()
@pytest.mark.parametrize(
    ("network", "stage"), [("ganimation", "emotion"), ("gfpgan", "blend"), ("gpen", "restore")]
)
def test_a_network_that_gives_nan_is_named(fake: FakeCuda, kernels: str, network: str, stage: str) -> None:
    """Kernels raise nothing: what they leave in the slot tells."""
    fake.policy("eager")
    options = replace(
        OPTIONS,
        finish=FinishOptions("parse", "gpen" if network == "gpen" else "gfpgan"),
        emotion=parse_emotion("sad"),
        backend=Backend("tensorrt", wanted="fp32"),
    )
    with TemporaryDirectory() as scratch, tensorrt_stands_in(kernels, Path(scratch)):
        with pytest.raises(StageError, match=f"stage '{stage}' failed at frame 0"):
            dubbed(Path(scratch), FRAMES, options, broken=network)
        assert not list(Path(scratch).glob("tensorrt.mp4*"))
