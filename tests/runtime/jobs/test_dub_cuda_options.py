"""What a dub may be asked for on the CUDA platform, over the fake driver, against the same on the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_dub_parts import OPTIONS, assert_close, host_and_cuda
from fake_cuda.control import FakeCuda
from fake_cuda.cubins import build_kernels
from fake_cuda.fixture import over_fake_cuda

from dubstream.runtime.emotion import parse_emotion
from dubstream.runtime.options.finish import FinishOptions

FRAMES = 5


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our kernels, compiled once; the path goes to the subprocess."""
    return str(build_kernels(tmp_path_factory.mktemp("kernels") / "kernels.so"))


@over_fake_cuda()
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_emotions(fake: FakeCuda, kernels: str, precision: str) -> None:
    options = replace(OPTIONS, emotion=parse_emotion("angry:0.8"))
    (_, expected), (summary, found) = host_and_cuda(fake, kernels, precision, FRAMES, options)
    assert {"synthesise/look", "synthesise/ganimation", "synthesise/emotion"} <= summary.busy_s.keys()
    assert_close(found, expected)


@over_fake_cuda()
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_restored_references(fake: FakeCuda, kernels: str, precision: str) -> None:
    options = replace(OPTIONS, finish=FinishOptions(restore="gpen"))
    (_, expected), (summary, found) = host_and_cuda(fake, kernels, precision, FRAMES, options)
    assert {"prepare/dnet", "prepare/parsenet", "prepare/gpen", "synthesise/blend"} <= summary.busy_s.keys()
    assert_close(found, expected)
