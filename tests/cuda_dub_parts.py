"""The whole job on the host and on the CUDA platform over the fake driver: our kernels as C++, toy networks.

TensorRT's stand-in computes on the fake device's memory the moment a plan is enqueued, so the driver has to
run all work at once here; the order of work is tested in `test_streaming_cuda_order.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from clips import QUICK, write_portrait, write_speech
from fake_cuda.control import FakeCuda
from toy_half_networks import publish_half_toys
from trt_checker.computing import tensorrt_computes
from trt_checker.fake import Behaviour

from dubstream.kernels.modules import KernelModules
from dubstream.runtime.artifacts import open_all
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.backend import HOST, TENSORRT, Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.platforms import cuda_platform

OPTIONS = DubOptions(
    stream=StreamOptions(batch=3, slots=2, threads=1), encode=replace(QUICK, crf=0, pix_fmt="yuv444p")
)


@contextmanager
def tensorrt_stands_in(kernels: str, cache: Path) -> Iterator[dict[str, Behaviour]]:
    """`--backend tensorrt` runs plans by ONNX Runtime, our kernels are C++, and the cache is elsewhere.

    Gives what TensorRT was asked, by network.
    """
    with tensorrt_computes() as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cuda_platform, "load_kernels", lambda _: KernelModules(lambda subject: kernels.encode() + b"\0")
        )
        patch.setattr(cuda_platform.TensorrtPlatform, "check", lambda self: None)
        for module in ("cuda_platform", "cuda_stages", "cuda_emotion_stages", "cuda_finish_stages"):
            patch.setattr(f"dubstream.runtime.platforms.{module}.graphed", list)
        patch.setenv("DUBSTREAM_CACHE", str(cache))
        yield seen


def pictures(path: Path) -> np.ndarray:
    limits = MediaLimits()
    with VideoReader(probe_video(path, limits), limits) as reader:
        return np.stack([picture for _, picture in reader.frames()]).astype(int)


Dubbed = tuple[DubSummary, np.ndarray]


def host_and_cuda(
    fake: FakeCuda, kernels: str, precision: str, frames: int, options: DubOptions = OPTIONS
) -> tuple[Dubbed, Dubbed]:
    """Summary and frames of a dub on the host, then of the same dub on CUDA.

    The host has no bf16; fp16 stands in for it there, as toys of both compute the same.
    """
    fake.policy("eager")
    with TemporaryDirectory() as scratch, fake.nothing_left(), tensorrt_stands_in(kernels, Path(scratch)):
        folder = Path(scratch)
        on_host = replace(options, backend=Backend(HOST, wanted="fp16" if precision == "bf16" else precision))
        on_cuda = replace(options, backend=Backend(TENSORRT, wanted=precision))
        return dubbed(folder, frames, on_host), dubbed(folder, frames, on_cuda)


def dubbed(folder: Path, frames: int, options: DubOptions, *, broken: str | None = None) -> Dubbed:
    """Summary and frames of a dub of a clip of so many frames; the `broken` network gives NaN."""
    precision, name = options.backend.precision, options.backend.name
    video = write_portrait(folder / "talk.mp4", frames)
    audio = write_speech(folder / "voice.wav", frames / 25, rate=16_000)  # nothing to resample
    publish_half_toys(folder / "toys", "fp16" if precision == "fp32" else precision, broken=broken)
    toys = open_all(folder / "toys", precision, names=options.networks)
    output, cache = folder / f"{name}.mp4", folder / f"{name}.cache"
    cache.mkdir()
    summary = dub(DubRequest(video, audio, output, toys, cache, options))
    assert summary.backend.startswith(f"{name} {precision} on ")
    return summary, pictures(output)


def assert_close(host: np.ndarray, cuda: np.ndarray) -> None:
    """Sums in another order round the other way at a tie, by one level; then the encoder's colours."""
    change = np.abs(host - cuda)
    assert change.max() <= 4
    assert np.count_nonzero(change) < change.size / 1000
