"""The two GPU backends as platforms; imported when one of them was chosen.

No machine of the test suite has a GPU: the passes are tested on this platform over the fake driver, with
stand-ins for the engines. TensorRT and ONNX Runtime behind it have tests of their own.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from dubstream.engines.artifact import Artifact
from dubstream.engines.cache import cache_root
from dubstream.engines.engine import Engine
from dubstream.engines.store import PlanStore
from dubstream.kernels import nvrtc
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.options.backend import TENSORRT, Backend
from dubstream.runtime.options.dub import StreamOptions
from dubstream.runtime.platforms.cuda_emotion_stages import (
    emotion_buffers,
    emotion_stages,
    fill_emotion_table,
)
from dubstream.runtime.platforms.cuda_finish_stages import finish_buffers, finish_stages
from dubstream.runtime.platforms.cuda_stages import (
    NetworkStage,
    fill_tables,
    load_kernels,
    synthesis_buffers,
    synthesis_stages,
)
from dubstream.runtime.platforms.emotion_stages import Emotion
from dubstream.runtime.platforms.finish_stages import Finish
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.progress import Progress
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.cuda_graph import graphed
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import Stage

_log = logging.getLogger(__name__)


class CudaPlatform(Platform):
    """Our kernels on a CUDA device, between networks of whichever library.

    Args:
        backend: the choice.
        device: attached in this thread.
        stream: the largest batch that will be asked for.
    """

    def __init__(self, backend: Backend, device: CudaDevice, stream: StreamOptions) -> None:
        super().__init__(backend, device, device.name.partition(" ")[2])
        self._cuda = device
        self._stream = stream

    def network_stages(self, *engines: Engine) -> list[Stage]:
        """The engines as stages that follow one another, in CUDA graphs where that is possible."""
        return graphed(NetworkStage(engine) for engine in engines)

    def synthesis_buffers(self, lnet: Engine, enet: Engine, height: int, width: int) -> list[BufferSpec]:
        """The slot buffers of the second pass for frames of that size."""
        return synthesis_buffers(lnet.spec, enet.spec, height, width)

    def synthesis_stages(self, lnet: Engine, enet: Engine) -> list[Stage]:
        """Crop, L-Net, E-Net and blend."""
        return synthesis_stages(self._cuda, lnet, enet, modules=self._kernels)

    def finished(self, finish: Finish) -> tuple[list[BufferSpec], list[Stage]]:
        """A finish by networks; see `dubstream.runtime.platforms.cuda_finish_stages`."""
        return finish_buffers(finish), finish_stages(self._cuda, finish, modules=self._kernels)

    def emotional(self, emotion: Emotion) -> tuple[list[BufferSpec], list[Stage]]:
        """An emotion of the upper face; see `dubstream.runtime.platforms.cuda_emotion_stages`."""
        return emotion_buffers(emotion), emotion_stages(self._cuda, emotion, modules=self._kernels)

    def finish_fill(self, slot: Slot) -> None:
        """The tables the kernels read."""
        fill_tables(slot)
        fill_emotion_table(slot)

    @cached_property
    def _kernels(self) -> KernelModules:
        return load_kernels(self._cuda)

    @abstractmethod
    def check(self) -> None:
        """Raise `DeviceError` when a library is missing that the job would ask for only after minutes."""
        nvrtc.version()


class TensorrtPlatform(CudaPlatform):
    """TensorRT; plans come from the store, or are built into it first.

    Args:
        backend, device, stream: see `CudaPlatform`.
        plans, secret, progress: see `open_platform`.
    """

    def __init__(
        self,
        backend: Backend,
        device: CudaDevice,
        stream: StreamOptions,
        plans: Path | None,
        secret: Path | None,
        progress: Progress,
    ) -> None:
        super().__init__(backend, device, stream)
        self._plans, self._secret, self._progress = plans, secret, progress

    def check(self) -> None:
        """Raise `DeviceError` when TensorRT is missing or of a wrong version, or the device without facts.

        A store that nobody may trust is a StorageError already here, too.
        """
        from dubstream.engines.tensorrt import compat
        from dubstream.engines.tensorrt.environment import current_environment

        current_environment(compat.load(), self._cuda.index)
        super().check()
        _ = self._store

    @cached_property
    def _store(self) -> PlanStore:
        return PlanStore(self._plans or cache_root() / "engines", secret=self._secret)

    def _engines(self, artifacts: tuple[Artifact, ...]) -> Iterator[Engine]:
        from dubstream.engines.tensorrt.executor import Workspace
        from dubstream.engines.tensorrt.options import BuildOptions
        from dubstream.engines.tensorrt.provision import load_tensorrt_engine

        # One block of scratch memory for the engines of one stream; those of another get their own.
        workspace = Workspace(lambda nbytes: self._cuda.empty((nbytes,), "uint8"))
        for artifact in artifacts:
            # The options of `dubstream build`, so that its plans are found.
            yield load_tensorrt_engine(
                artifact, BuildOptions(), self._store, workspace,
                device=self._cuda.index, progress=self._progress, on_wait=partial(_tell_wait, artifact),
            )  # fmt: skip


class OnnxRuntimeCudaPlatform(CudaPlatform):
    """ONNX Runtime's CUDA provider."""

    def check(self) -> None:
        """Raise `DeviceError` when ONNX Runtime is missing or has no CUDA provider."""
        from dubstream.engines.onnxruntime_cuda import import_with_cuda

        import_with_cuda()
        super().check()

    def _engines(self, artifacts: tuple[Artifact, ...]) -> Iterator[Engine]:
        from dubstream.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

        for artifact in artifacts:
            yield OnnxRuntimeCudaEngine(
                artifact.path,
                artifact.spec,
                index=self._cuda.index,
                max_batch=min(self._stream.batch, artifact.spec.max_batch),
            )


def _tell_wait(artifact: Artifact) -> None:
    _log.warning("another process is building the plan of %s, waiting for it", artifact.spec.name)


@contextmanager
def open_cuda(
    backend: Backend, stream: StreamOptions, *, plans: Path | None, secret: Path | None, progress: Progress
) -> Iterator[CudaPlatform]:
    """See `dubstream.runtime.platforms.platform.open_platform`."""
    with CudaDevice(backend.device) as device:
        platform: CudaPlatform
        if backend.name == TENSORRT:
            platform = TensorrtPlatform(backend, device, stream, plans, secret, progress)
        else:
            platform = OnnxRuntimeCudaPlatform(backend, device, stream)
        platform.check()
        yield platform
