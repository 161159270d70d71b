"""From a verified artifact to its plan in the store, and to an engine that runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dubstream.engines.artifact import Artifact
from dubstream.engines.engine_key import EngineKey, Environment
from dubstream.engines.errors import ArtifactError
from dubstream.engines.storage import make_private_folder, storage_errors
from dubstream.engines.store import PlanStore, StoredPlan
from dubstream.engines.tensorrt import compat
from dubstream.engines.tensorrt.builder import build_plan
from dubstream.engines.tensorrt.environment import current_environment, timing_cache_file
from dubstream.engines.tensorrt.executor import PlanRejectedError, TensorrtEngine, Workspace
from dubstream.engines.tensorrt.options import BuildOptions
from dubstream.engines.tensorrt.watch import Progress


def plan_key(artifact: Artifact, options: BuildOptions, environment: Environment) -> EngineKey:
    """The identity of the plan of `artifact` built with `options` in `environment`."""
    return EngineKey(
        network=artifact.spec.name,
        onnx_sha256=artifact.digest,
        recipe=f"{artifact.sidecar.recipe} {artifact.sidecar.recipe_version}",
        options=options.as_key(artifact.spec),
        environment=environment,
    )


def obtain_plan(
    artifact: Artifact,
    options: BuildOptions,
    store: PlanStore,
    *,
    device: int = 0,
    progress: Progress | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> StoredPlan:
    """The plan of `artifact` for CUDA device `device`, from the store or built into it.

    Args:
        artifact: from `open_artifact`.
        options: builder settings; without a timing cache they get the one of this device and version.
        store: where plans are kept.
        device: CUDA ordinal.
        progress: see `build_plan`.
        on_wait: called once when another process is building this very plan.

    Raises:
        DeviceError: no usable TensorRT, driver or device.
        ArtifactError, InternalError, KeyboardInterrupt: see `build_plan`.
        RetryError, StorageError: see `PlanStore.obtain`.
    """
    environment = current_environment(compat.load(), device)
    options = replace(options, device=device)
    if options.timing_cache is None:
        folder = make_private_folder(store.root / "timing")
        options = replace(options, timing_cache=timing_cache_file(folder, environment))

    def build() -> bytes:
        return build_plan(_model(artifact), artifact.spec, options, progress=progress)

    return store.obtain(plan_key(artifact, options, environment), build, on_wait=on_wait)


def load_tensorrt_engine(
    artifact: Artifact,
    options: BuildOptions,
    store: PlanStore,
    workspace: Workspace,
    *,
    device: int = 0,
    progress: Progress | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> TensorrtEngine:
    """The running engine of `artifact`; a plan that TensorRT rejects is discarded and built once more.

    Arguments as of `obtain_plan`. The calling thread must have made `device` current; raises as `obtain_plan`
    and `TensorrtEngine` do.
    """
    plan = obtain_plan(artifact, options, store, device=device, progress=progress, on_wait=on_wait)
    try:
        return TensorrtEngine(plan, artifact.spec, workspace=workspace)
    except PlanRejectedError as error:
        store.discard(plan.key, error.message)
    plan = obtain_plan(artifact, options, store, device=device, progress=progress, on_wait=on_wait)
    return TensorrtEngine(plan, artifact.spec, workspace=workspace)


def _model(artifact: Artifact) -> bytes | Path:
    """The bytes that were verified; a path only where weights lie in files beside the ONNX file."""
    if len(artifact.sidecar.files) > 1:
        return artifact.path
    with storage_errors(artifact.path, "reading"):
        content = artifact.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != artifact.digest:
        raise ArtifactError(f"{artifact.path} was changed after it had been verified")
    return content
