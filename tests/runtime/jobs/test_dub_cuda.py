"""The whole job on the CUDA platform, over the fake driver: our kernels as C++, toy networks in between.

The stand-in for TensorRT computes with ONNX Runtime on the fake device's memory the moment it is enqueued, so
the driver has to run all work at once here; the order of work is tested in `test_streaming_cuda_order.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from clips import QUICK, write_portrait, write_speech
from fake_cuda.control import FakeCuda
from fake_cuda.cubins import build_kernels
from fake_cuda.fixture import over_fake_cuda
from toy_half_networks import publish_half_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.engines.tensorrt.executor import Workspace
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.artifacts import open_all
from dubstream.runtime.job.dub import dub
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.platforms import cuda_platform

FRAMES = 14
STREAM = StreamOptions(batch=3, slots=2, threads=1)
OPTIONS = DubOptions(stream=STREAM, encode=replace(QUICK, crf=0, pix_fmt="yuv444p"))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our kernels, compiled once; the path goes to the subprocess."""
    return str(build_kernels(tmp_path_factory.mktemp("kernels") / "kernels.so"))


class StandIn(Engine):
    """Computes on the host in TensorRT's place; wants every output, and one stream per workspace."""

    backend = "tensorrt"

    def __init__(self, artifact: Artifact, workspace: Workspace) -> None:
        super().__init__(artifact.spec)
        self.inner = OnnxRuntimeEngine(artifact.path, artifact.spec, threads=1)
        self.workspace = workspace
        workspace.reserve(1000)

    def _bind(self, tensors: Any, batch: int) -> Binding:
        return StandInBinding(self, tensors, batch)

    def _close(self) -> None:
        self.inner.close()


class StandInBinding(Binding):
    def __init__(self, engine: StandIn, tensors: Any, batch: int) -> None:
        super().__init__(engine.spec.name, tensors, batch)
        self.workspace = engine.workspace
        block, nbytes = self.workspace.lend()
        assert block.nbytes >= nbytes >= 1000
        views = {name: _view(array) for name, array in tensors.items()}
        self.inner = engine.inner.bind(views, batch)

    def _run(self, handle: int | None) -> None:
        assert handle
        self.workspace.enter(handle)
        self.inner._run(None)

    def _release(self) -> None: ...


def _view(array: Any) -> np.ndarray:
    memory = (ctypes.c_char * array.nbytes).from_address(array.ptr)
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


def pictures(path: Path) -> np.ndarray:
    limits = MediaLimits()
    with VideoReader(probe_video(path, limits), limits) as reader:
        return np.stack([picture for _, picture in reader.frames()]).astype(int)


def dubs(folder: Path, kernels: str, backend: Backend) -> Iterator[np.ndarray]:
    """The frames of a dub on the host, then of the same dub on CUDA."""
    video = write_portrait(folder / "talk.mp4", FRAMES)
    audio = write_speech(folder / "voice.wav", FRAMES / 25, rate=16_000)  # nothing to resample
    publish_half_toys(folder / "toys")
    toys = open_all(folder / "toys", backend.precision)
    for number, choice in enumerate((Backend(wanted=backend.precision), backend)):
        output, cache = folder / f"{number}.mp4", folder / f"cache{number}"
        cache.mkdir()
        options = replace(OPTIONS, backend=choice)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                cuda_platform,
                "load_kernels",
                lambda _: KernelModules(lambda subject: kernels.encode() + b"\0"),
            )
            patch.setattr(
                "dubstream.engines.tensorrt.provision.load_tensorrt_engine",
                lambda artifact, options, store, workspace, **_: StandIn(artifact, workspace),
            )
            patch.setattr(cuda_platform.TensorrtPlatform, "check", lambda self: None)
            patch.setattr(cuda_platform, "graphed", list)
            patch.setattr("dubstream.runtime.platforms.cuda_stages.graphed", list)
            patch.setenv("DUBSTREAM_CACHE", str(folder / "cache"))
            summary = dub(DubRequest(video, audio, output, toys, cache, options))
        assert summary.backend.startswith(f"{choice.name} {choice.precision} on ")
        assert {"prepare/recon", "prepare/dnet", "synthesise/crop"} <= summary.busy_s.keys()
        yield pictures(output)


@over_fake_cuda()
def test_a_dub_with_uint8_pictures_equals_the_hosts(fake: FakeCuda, kernels: str) -> None:
    check(fake, kernels, "fp16")


@over_fake_cuda()
def test_a_dub_with_float_planes_equals_the_hosts(fake: FakeCuda, kernels: str) -> None:
    check(fake, kernels, "fp32")


def check(fake: FakeCuda, kernels: str, precision: str) -> None:
    fake.policy("eager")
    with TemporaryDirectory() as folder, fake.nothing_left():
        host, cuda = dubs(Path(folder), kernels, Backend("tensorrt", wanted=precision))
    change = np.abs(host - cuda)
    # Sums in another order round the other way at a tie, by one level; then the encoder's colours.
    assert change.max() <= 4
    assert np.count_nonzero(change) < change.size / 1000
