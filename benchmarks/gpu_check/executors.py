"""Networks bound to a device, and which backends a setting has for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.benchmarks.gpu_check.journal import NotRunError
from dubstream.benchmarks.gpu_check.setting import Setting, require_package
from dubstream.engines.artifact import Artifact, artifact_paths, open_artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine import Engine
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.engines.specs import spec_of
from dubstream.runtime.streaming.device import Device

Arrays = dict[str, npt.NDArray[Any]]
HOST_BACKENDS = ("onnxruntime-cpu",)
GPU_BACKENDS = ("onnxruntime-cuda", "tensorrt")


class BoundNetwork:
    """One engine with buffers on a device; the stream and the pinned arrays are its own.

    Args:
        device: attached to this thread.
        engine: closed by the caller, after `close`.
        inputs: by tensor name, one batch.
    """

    def __init__(self, device: Device, engine: Engine, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        spec, batch = engine.spec, len(next(iter(inputs.values())))
        self._device, self._stream = device, device.stream(spec.name)
        self._inputs = {t.name: device.pinned(t.concrete(batch), t.dtype) for t in spec.inputs}
        self._outputs = {t.name: device.pinned(t.concrete(batch), t.dtype) for t in spec.outputs}
        tensors = spec.inputs + spec.outputs
        self._memory = {t.name: device.empty(t.concrete(batch), t.dtype) for t in tensors}
        for name, array in self._inputs.items():
            array[...] = inputs[name]
        self._binding = engine.bind(self._memory, batch)
        self.through_host()

    def compute(self) -> None:
        """Run on what lies on the device, and wait."""
        self._binding.enqueue(self._stream)
        self._stream.synchronize()

    def through_host(self) -> None:
        """Upload, run, download, and wait: how a driver without a streamer uses an engine."""
        for name, array in self._inputs.items():
            self._device.upload(self._memory[name], array, self._stream)
        self._binding.enqueue(self._stream)
        for name, array in self._outputs.items():
            self._device.download(array, self._memory[name], self._stream)
        self._stream.synchronize()

    def outputs(self) -> Arrays:
        """What the last `through_host` brought, copied."""
        return {name: array.copy() for name, array in self._outputs.items()}

    def close(self) -> None:
        """Free the stream and the binding."""
        self._stream.close()
        self._binding.release()


def backends(setting: Setting) -> tuple[str, ...]:
    """Names of the backends of a device."""
    return HOST_BACKENDS if setting.host else GPU_BACKENDS


@contextmanager
def engine_of(backend: str, setting: Setting, artifact: Artifact, device: Device) -> Iterator[Engine]:
    """A running engine; `NotRunError` when its library is lacking, any other error when it fails."""
    with ExitStack() as stack:
        yield stack.enter_context(_OPENERS[backend](setting, artifact, device))


def _on_cpu(setting: Setting, artifact: Artifact, device: Device) -> Engine:
    return OnnxRuntimeEngine(artifact.path, artifact.spec)


def _on_cuda(setting: Setting, artifact: Artifact, device: Device) -> Engine:
    import onnxruntime

    from dubstream.engines.onnxruntime_cuda import PROVIDER, OnnxRuntimeCudaEngine

    if PROVIDER not in onnxruntime.get_available_providers():
        raise NotRunError(f"ONNX Runtime {onnxruntime.__version__} here has no {PROVIDER}")
    return OnnxRuntimeCudaEngine(artifact.path, artifact.spec, index=setting.index)


def _on_tensorrt(setting: Setting, artifact: Artifact, device: Device) -> Engine:
    require_package("tensorrt", "its engines are built and run by it")
    from dubstream.engines.cache import cache_root
    from dubstream.engines.store import PlanStore
    from dubstream.engines.tensorrt.executor import Workspace
    from dubstream.engines.tensorrt.options import BuildOptions
    from dubstream.engines.tensorrt.provision import load_tensorrt_engine

    store = PlanStore(cache_root() / "engines")
    # A workspace of its own: engines that share one must run on one stream.
    workspace = Workspace(lambda nbytes: device.empty((nbytes,), np.uint8))
    options = BuildOptions(optimisation_level=0 if setting.quick else BuildOptions.optimisation_level)
    return load_tensorrt_engine(artifact, options, store, workspace, device=setting.index)


_OPENERS: dict[str, Callable[[Setting, Artifact, Device], Engine]] = {
    "onnxruntime-cpu": _on_cpu,
    "onnxruntime-cuda": _on_cuda,
    "tensorrt": _on_tensorrt,
}


def artifact_of(setting: Setting, name: str, precision: str) -> Artifact:
    """The verified artifact; `NotRunError` where there is no folder or no such file in it."""
    if setting.artifacts is None:
        raise NotRunError("no artifacts were given: --artifacts DIR")
    if not artifact_paths(setting.artifacts, name, precision)[0].exists():
        raise NotRunError(
            f"{setting.artifacts} holds no {precision} artifact of {name} "
            f"(dubstream export {name} --precision {precision})"
        )
    return open_artifact(setting.artifacts, spec_of(name, precision), precision)


def seeded_inputs(spec: NetworkSpec, batch: int) -> Arrays:
    """Uniform over the ranges of the spec, -1 to 1 where there is none; whole levels in pictures."""
    draw = np.random.default_rng([batch, *spec.name.encode()])
    return {
        tensor.name: draw.uniform(
            -1.0 if tensor.low is None else tensor.low,
            1.0 if tensor.high is None else tensor.high,
            tensor.concrete(batch),
        ).astype(tensor.dtype)
        for tensor in spec.inputs
    }
