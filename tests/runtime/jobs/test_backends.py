"""Choosing what computes a dub: the choice, what is refused, and that precision changes nothing visible."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clips import QUICK, frames_of, write_portrait, write_speech
from toy_half_networks import publish_half_toys
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import ArtifactError, DeviceError, UsageError
from dubstream.kernels.face_inputs import face_inputs_batch
from dubstream.runtime.artifacts import find_artifacts
from dubstream.runtime.cli.app import run
from dubstream.runtime.job.dub import dub
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubOptions, DubRequest, StreamOptions
from dubstream.runtime.platforms.platform import open_platform
from dubstream.runtime.platforms.stages import face_inputs_stage
from dubstream.runtime.streaming.host import HostDevice
from dubstream.runtime.streaming.slots import BufferSpec, SlotRing

FRAMES = 16
TEST_GPU: Any = SimpleNamespace(name="cuda:0 Test GPU", index=0)
STREAM = StreamOptions(batch=3, slots=2, threads=1, segment_s=0.32)
LOSSLESS = replace(QUICK, crf=0, pix_fmt="yuv444p")
HALF = Backend("onnxruntime", wanted="fp16")
OPTIONS = DubOptions(stream=STREAM, encode=LOSSLESS)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("media")
    return write_portrait(folder / "talk.mp4", FRAMES), write_speech(folder / "voice.wav", FRAMES / 25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toys of all networks in both precisions."""
    folder = tmp_path_factory.mktemp("toys")
    publish_half_toys(folder)
    return folder


def toys(folder: Path, precision: str) -> dict[str, Artifact]:
    return find_artifacts(folder, None, None, precision=precision)


@pytest.mark.parametrize(
    ("name", "wanted", "precision", "on_gpu"),
    [
        ("onnxruntime", None, "fp32", False),
        ("onnxruntime", "fp16", "fp16", False),
        ("onnxruntime-cuda", None, "fp32", True),
        ("onnxruntime-cuda", "fp16", "fp16", True),
        ("tensorrt", None, "fp16", True),
        ("tensorrt", "fp32", "fp32", True),
    ],
)
def test_every_backend_has_a_precision_of_its_own(
    name: str, wanted: str | None, precision: str, on_gpu: bool
) -> None:
    backend = Backend(name, wanted=wanted)
    assert (backend.precision, backend.on_gpu) == (precision, on_gpu)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "cuda"], "expected one of onnxruntime, onnxruntime-cuda, tensorrt"),
        (["--precision", "int8"], "expected one of fp32, fp16 with --backend onnxruntime"),
        (["--backend", "onnxruntime-cuda", "--precision", "bf16"], "expected one of fp32, fp16"),
        (["--device", "1"], "runs on the CPU"),
        (["--backend", "tensorrt", "--device", "-1"], "expected 0 or more"),
    ],
)
def test_senseless_choices_are_usage_errors(
    options: list[str], words: str, folder: Path, media: tuple[Path, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "out.mp4"
    code = run(["dub", *map(str, media), "-o", str(output), "--artifacts", str(folder), *options])
    errors = " ".join(capsys.readouterr().err.split())
    assert (code, words in errors, output.exists()) == (2, True, False), errors


def _has_driver() -> bool:
    try:
        with open_platform(Backend("onnxruntime-cuda"), STREAM):
            return True
    except DeviceError:
        return False


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime-cuda"])
def test_without_a_driver_a_gpu_backend_ends_with_69_before_any_work(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if _has_driver():
        pytest.skip("this machine has a GPU")
    monkeypatch.setenv("DUBSTREAM_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "out.mp4"
    # Neither the media nor the weights are there: the device is asked for first, nothing is exported.
    code = run(["dub", "no.mp4", "no.wav", "-o", str(output), "--weights", "seeded", "--backend", backend])
    errors = capsys.readouterr().err
    assert code == 69, errors
    assert "Traceback" not in errors
    assert "pip install" in errors or "--backend onnxruntime" in errors
    assert not output.exists()
    assert not (tmp_path / "cache" / "artifacts").exists()


def test_an_onnxruntime_without_cuda_is_a_device_error_before_any_engine() -> None:
    import onnxruntime

    from dubstream.runtime.platforms.cuda_platform import OnnxRuntimeCudaPlatform

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(DeviceError, match="no CUDA provider, only"):
        OnnxRuntimeCudaPlatform(Backend("onnxruntime-cuda"), TEST_GPU, STREAM).check()


def test_waiting_for_a_plan_that_another_process_builds_is_in_the_log(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dubstream.engines.tensorrt import provision
    from dubstream.runtime.platforms.cuda_platform import TensorrtPlatform

    def load(*_: Any, on_wait: Callable[[], None], **__: Any) -> AbstractContextManager[None]:
        on_wait()
        return nullcontext()

    monkeypatch.setattr(provision, "load_tensorrt_engine", load)
    platform = TensorrtPlatform(Backend("tensorrt"), TEST_GPU, STREAM, tmp_path, None, lambda *_: None)
    with platform.opened(toys(folder, "fp16")["lnet"]):
        pass
    assert caplog.messages == ["another process is building the plan of lnet, waiting for it"]
    assert caplog.records[0].levelname == "WARNING", "shown without --verbose"


def test_a_missing_tensorrt_is_a_device_error() -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed")
    from dubstream.runtime.platforms.cuda_platform import TensorrtPlatform

    platform = TensorrtPlatform(Backend("tensorrt"), TEST_GPU, STREAM, None, None, lambda *_: None)
    with pytest.raises(DeviceError, match="TensorRT cannot be imported") as caught:
        platform.check()
    assert "--backend onnxruntime" in str(caught.value.hint)
    assert platform.identity == {"backend": "tensorrt", "precision": "fp16", "device": "Test GPU"}


def test_a_device_without_facts_is_a_device_error_before_any_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dubstream.runtime.platforms.cuda_platform import TensorrtPlatform

    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "11.4.0.106", raising=False)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    platform = TensorrtPlatform(Backend("tensorrt"), TEST_GPU, STREAM, tmp_path / "p", None, lambda *_: None)
    with pytest.raises(DeviceError, match="cuda-bindings cannot be imported"):
        platform.check()
    assert not (tmp_path / "p").exists()


def test_artifacts_of_another_precision_are_refused(folder: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, backend=HALF)
    command = rf"dubstream export --artifacts {folder} --precision fp16 --weights seeded"
    with pytest.raises(UsageError, match=rf"lnet in fp32.*expected fp16.*{command}"):
        DubRequest(tmp_path, tmp_path, tmp_path, toys(folder, "fp32"), tmp_path, options)


def test_artifacts_are_looked_for_in_their_precision(folder: Path, tmp_path: Path) -> None:
    assert {one.precision for one in toys(folder, "fp16").values()} == {"fp16"}
    publish_toys(tmp_path)
    with pytest.raises(ArtifactError, match="fp16") as caught:
        toys(tmp_path, "fp16")
    command = f"dubstream export --artifacts {tmp_path} --precision fp16 --weights seeded"
    assert caught.value.hint == f"remake it: {command}"


def test_half_precision_on_the_host_gives_nearly_the_same_frames(
    folder: Path, media: tuple[Path, Path], tmp_path: Path
) -> None:
    """The GPU's data path without a GPU: pictures go straight into and out of the networks."""
    full = DubRequest(*media, tmp_path / "full.mp4", toys(folder, "fp32"), tmp_path / "cache", OPTIONS)
    half = replace(
        full, output=tmp_path / "half.mp4", artifacts=toys(folder, "fp16"),
        options=replace(OPTIONS, backend=HALF),
    )  # fmt: skip
    assert dub(full).backend == "onnxruntime fp32 on host"
    summary = dub(half)
    assert summary.backend == "onnxruntime fp16 on host"
    assert summary.reused == {"segments": 0}
    assert "prepare/dnet" in summary.busy_s, "a preparation belongs to the networks it was made by"
    expected, found = frames_of(full.output), frames_of(half.output)
    change = np.abs(expected - found)
    # uint8 between the networks, float16 lips; then the colour conversion of the encoder.
    assert change.max() <= 8
    assert change.mean() < 0.1
    assert np.abs(expected - frames_of(media[0])).max() > 20, "the toys do change the mouth"


def test_segments_of_another_backend_are_not_taken_over(
    folder: Path, media: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same artifacts, same inputs, another device: the preparation serves, half a job does not."""

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "synthesise" and done > 10:
            raise KeyboardInterrupt

    request = DubRequest(*media, tmp_path / "out.mp4", toys(folder, "fp32"), tmp_path / "cache", OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        dub(request, interrupt)
    with monkeypatch.context() as patch:
        patch.setattr(HostDevice, "name", "another")
        summary = dub(request)
    assert summary.reused == {"segments": 0}
    assert "prepare/dnet" not in summary.busy_s
    assert dub(replace(request, output=tmp_path / "again.mp4")).reused == {"segments": 1}


def test_pictures_and_planes_show_the_same() -> None:
    """The half networks' inputs are the 8 bits that the float networks get as planes."""
    random = np.random.default_rng(3)
    count, height, width = 3, 90, 120
    frames = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    references = random.integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
    crops = np.array([(5, 5, 100, 80), (-4, 10, 70, 95), (30, 0, 119, 60)], np.int32)
    faces = np.array([(10, 10, 60, 70), (-9, 20, 50, 99), (60, -5, 130, 50)], np.int32)
    planes = np.empty((count, 6, 96, 96), np.float32)
    reference = np.empty((count, 3, 384, 384), np.float32)
    face_inputs_batch(frames, references, crops, faces, faces_96=planes, references_384=reference)

    names = {"frames": frames, "references": references, "crop_boxes": crops, "face_boxes": faces}
    buffers = [BufferSpec(name, each.shape[1:], each.dtype.name, "input") for name, each in names.items()]
    buffers += [BufferSpec(name, (384, 384, 3), "uint8", "scratch") for name in ("face", "reference")]
    with HostDevice() as device:
        slot = SlotRing(device, buffers, count, 1).slots[0]
        slot.count = count
        for name, each in names.items():
            slot.device[name][:] = each
        stream = device.stream("test")
        face_inputs_stage().enqueue(slot, stream)
        event = device.event()
        event.record(stream)
        event.synchronize()
    shown = slot.device["reference"].transpose(0, 3, 1, 2) / np.float32(255)
    assert np.array_equal(shown, reference)
    face = slot.device["face"].astype(np.float64)[:, :192]
    centres = (face[:, 1::4, 1::4] + face[:, 1::4, 2::4] + face[:, 2::4, 1::4] + face[:, 2::4, 2::4]) / 1020
    assert np.abs(centres.transpose(0, 3, 1, 2) - planes[:, :3, :48]).max() < 1e-6
