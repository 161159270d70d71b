"""A device with the engines that run on it: all the job knows about where it computes.

The passes ask a platform for engines, buffers and stages and are the same on every backend. What is of
CUDA lies in `dubstream.runtime.platforms.cuda_platform`, which is imported only when it was chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dubstream.engines.artifact import Artifact
from dubstream.engines.engine import Engine
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import StreamOptions
from dubstream.runtime.platforms.emotion_stages import Emotion, emotion_buffers, emotion_stages
from dubstream.runtime.platforms.finish_stages import Finish, finish_buffers, finish_stages
from dubstream.runtime.platforms.stages import blend_stage, face_inputs_stage, synthesis_buffers
from dubstream.runtime.progress import Progress, silent
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.host import HostDevice
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import EngineStage, Stage


class Platform(ABC):
    """Where a job computes.

    Args:
        backend: the choice it was opened for.
        device: where buffers live; attached in the thread that opened the platform.
        hardware: the device's model, without its number.
    """

    def __init__(self, backend: Backend, device: Device, hardware: str) -> None:
        self.backend = backend
        self.device = device
        self.hardware = hardware

    @property
    def identity(self) -> dict[str, str]:
        """What of it can change a result; GPUs of one model may take over from each other."""
        return {
            "backend": self.backend.name,
            "precision": self.backend.precision,
            "device": self.hardware,
        }

    @property
    def title(self) -> str:
        """In a few words, e.g. ``tensorrt fp16 on NVIDIA H200``."""
        return f"{self.backend.name} {self.backend.precision} on {self.hardware}"

    @contextmanager
    def opened(self, *artifacts: Artifact) -> Iterator[list[Engine]]:
        """Engines of verified artifacts that will run one after another **on one stream**.

        They are closed when the block ends, so streamers over them have to be closed inside it.

        Raises:
            DeviceError: the backend is not there, or not on this device.
            ArtifactError: an artifact the backend cannot load.
        """
        with ExitStack() as stack:
            yield [stack.enter_context(engine) for engine in self._engines(artifacts)]

    @abstractmethod
    def network_stages(self, *engines: Engine) -> list[Stage]:
        """The engines as stages that follow one another."""

    @abstractmethod
    def synthesis_buffers(self, lnet: Engine, enet: Engine, height: int, width: int) -> list[BufferSpec]:
        """The slot buffers of the second pass for frames of that size."""

    @abstractmethod
    def synthesis_stages(self, lnet: Engine, enet: Engine) -> list[Stage]:
        """Crop, L-Net, E-Net and blend."""

    @abstractmethod
    def finished(self, finish: Finish) -> tuple[list[BufferSpec], list[Stage]]:
        """A finish by networks: its slot buffers, and the stages that take the blend's place at the end."""

    @abstractmethod
    def emotional(self, emotion: Emotion) -> tuple[list[BufferSpec], list[Stage]]:
        """An emotion of the upper face: its slot buffers, and the stages that go before blend or finish."""

    def finish_fill(self, slot: Slot) -> None:  # noqa: B027
        """Last step of the second pass's `fill`: what the stages need beside the buffers of the host."""

    @abstractmethod
    def _engines(self, artifacts: tuple[Artifact, ...]) -> Iterator[Engine]:
        """Load them, one by one."""


class HostPlatform(Platform):
    """ONNX Runtime and numpy on the CPU.

    Args:
        backend, device: see `Platform`.
        stream: threads and the largest batch that will be asked for.
    """

    def __init__(self, backend: Backend, device: HostDevice, stream: StreamOptions) -> None:
        super().__init__(backend, device, device.name)
        self._stream = stream

    def network_stages(self, *engines: Engine) -> list[Stage]:
        """The engines as stages that follow one another."""
        return [EngineStage(engine) for engine in engines]

    def synthesis_buffers(self, lnet: Engine, enet: Engine, height: int, width: int) -> list[BufferSpec]:
        """The slot buffers of the second pass for frames of that size."""
        return synthesis_buffers(lnet.spec, enet.spec, height, width)

    def synthesis_stages(self, lnet: Engine, enet: Engine) -> list[Stage]:
        """Crop, L-Net, E-Net and blend."""
        return [face_inputs_stage(), *self.network_stages(lnet, enet), blend_stage()]

    def finished(self, finish: Finish) -> tuple[list[BufferSpec], list[Stage]]:
        """A finish by networks; see `dubstream.runtime.platforms.finish_stages`."""
        return finish_buffers(finish), finish_stages(finish)

    def emotional(self, emotion: Emotion) -> tuple[list[BufferSpec], list[Stage]]:
        """An emotion of the upper face; see `dubstream.runtime.platforms.emotion_stages`."""
        return emotion_buffers(emotion), emotion_stages(emotion)

    def _engines(self, artifacts: tuple[Artifact, ...]) -> Iterator[Engine]:
        for artifact in artifacts:
            yield OnnxRuntimeEngine(
                artifact.path,
                artifact.spec,
                threads=self._stream.threads,
                max_batch=min(self._stream.batch, artifact.spec.max_batch),
            )


@contextmanager
def open_platform(
    backend: Backend,
    stream: StreamOptions,
    *,
    plans: Path | None = None,
    secret: Path | None = None,
    progress: Progress = silent,
) -> Iterator[Platform]:
    """The platform of a backend; this thread is attached to its device until the block ends.

    Args:
        backend: the choice.
        stream: threads and batch of the networks.
        plans: folder of built TensorRT plans; None for the one in the cache.
        secret: key file of a folder of plans that others can write.
        progress: told about plans that have to be built first.

    Raises:
        DeviceError: no driver, no such device, or the backend's library is missing. Nothing else is tried.
    """
    if backend.on_gpu:
        from dubstream.runtime.platforms.cuda_platform import open_cuda

        with open_cuda(backend, stream, plans=plans, secret=secret, progress=progress) as platform:
            yield platform
    else:
        with HostDevice() as device:
            yield HostPlatform(backend, device, stream)
