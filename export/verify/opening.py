"""Production's engines, opened for a verification."""

from __future__ import annotations

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import InternalError
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.export.fidelity import Run
from dubstream.export.verify.runners import HostMemory, engine_run


def open_backend(name: str, artifact: Artifact, threads: int, device: int = 0) -> Run:
    """The engine of an artifact in the backend called `name`, ready to run.

    Raises:
        DeviceError: the backend's library, driver or device is not here.
    """
    if name == "onnxruntime":
        return engine_run(OnnxRuntimeEngine(artifact.path, artifact.spec, threads=threads), HostMemory())
    from dubstream.export.verify.cuda_memory import CudaMemory  # only where a GPU was asked for

    memory = CudaMemory(device)
    if name == "onnxruntime-cuda":
        from dubstream.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

        return engine_run(OnnxRuntimeCudaEngine(artifact.path, artifact.spec, index=device), memory)
    if name == "tensorrt":
        from dubstream.engines.cache import cache_root
        from dubstream.engines.store import PlanStore
        from dubstream.engines.tensorrt.executor import Workspace
        from dubstream.engines.tensorrt.options import BuildOptions
        from dubstream.engines.tensorrt.provision import load_tensorrt_engine

        store, workspace = PlanStore(cache_root() / "engines"), Workspace(memory.block)
        engine = load_tensorrt_engine(artifact, BuildOptions(), store, workspace, device=device)
        return engine_run(engine, memory)
    raise InternalError(f"no backend '{name}'")
