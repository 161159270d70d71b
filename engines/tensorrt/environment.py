"""The machine's part of a plan's key, asked from TensorRT and the CUDA runtime."""

from __future__ import annotations

import importlib
import platform
import re
from pathlib import Path
from typing import Any

from dubstream.engines.engine_key import Environment
from dubstream.engines.errors import DeviceError

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_INSTALL = "check the driver with nvidia-smi and install with pip install 'dubstream[gpu]'"


def use_device(ordinal: int | None) -> None:
    """Make CUDA device `ordinal` the calling thread's current one; None leaves it. DeviceError on failure."""
    if ordinal is not None:
        _checked(_runtime(), "cudaSetDevice", ordinal)


def finish_default_stream() -> None:
    """Wait for the default stream: for set-up work only, nothing of a job runs there."""
    _checked(_runtime(), "cudaStreamSynchronize", 0)


def current_environment(trt: Any, ordinal: int) -> Environment:
    """Versions and facts of CUDA device `ordinal`. DeviceError when there is no such device or driver."""
    runtime = _runtime()
    properties = _checked(runtime, "cudaGetDeviceProperties", ordinal)
    name = properties.name
    return Environment(
        tensorrt=trt.__version__,
        parser=str(trt.get_nv_onnx_parser_version()),
        cuda=_cuda_version(_checked(runtime, "cudaRuntimeGetVersion")),
        driver=_driver(_cuda_version(_checked(runtime, "cudaDriverGetVersion"))),
        device=name.decode().rstrip("\0") if isinstance(name, bytes) else str(name),
        compute_capability=f"{properties.major}.{properties.minor}",
        multiprocessors=int(properties.multiProcessorCount),
        platform=f"{platform.system()}-{platform.machine()}".lower(),
    )


def timing_cache_file(folder: Path, environment: Environment) -> Path:
    """Where timings of this device and version lie. They hold for every model, so no model is named."""
    device = re.sub(r"[^a-z0-9]+", "-", environment.device.lower()).strip("-")
    return folder / f"{device}-sm{environment.compute_capability}-trt{environment.tensorrt}.timing"


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver(cuda: str) -> str:
    """The driver's branch, e.g. "580"; where the kernel does not tell, its CUDA level, e.g. "cuda13.0"."""
    try:
        found = re.search(r"Kernel Module[^\d]*(?:x86_64|aarch64)?\s*(\d+)\.", _DRIVER_FILE.read_text())
    except OSError:
        found = None
    return found[1] if found else f"cuda{cuda}"


def _runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        raise DeviceError(f"cuda-bindings cannot be imported: {error}", hint=_INSTALL) from error


def _checked(runtime: Any, call: str, *arguments: Any) -> Any:
    try:
        status, *values = getattr(runtime, call)(*arguments)
    except RuntimeError as error:  # cuda-bindings raises it where it cannot load the driver's library at all
        raise DeviceError(f"{call} failed: {error}", hint=_INSTALL) from error
    if int(status) != 0:
        raise DeviceError(f"{call}{arguments} failed: {getattr(status, 'name', status)}", hint=_INSTALL)
    return values[0] if values else None
