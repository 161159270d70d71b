"""What a check runs on, and what this machine lacks for it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dubstream.benchmarks.gpu_check.journal import NotRunError
from dubstream.benchmarks.rows import machine
from dubstream.engines.errors import UsageError
from dubstream.runtime.streaming.device import Device

_PACKAGES = (
    *("pycuda", "cupy", "cupy-cuda12x", "cupy-cuda13x", "cuda-bindings", "cuda-core", "nvidia-cuda-nvrtc"),
    *("onnxruntime-gpu", "tensorrt", "triton"),
)
_QUERY = ("name", "driver_version", "memory.total", "clocks.max.sm", "power.limit")


@dataclass(frozen=True)
class Setting:
    """Choices of one call.

    Attributes:
        device: ``host`` or ``cuda:N``.
        artifacts: folder of exported networks; None without.
        quick: small shapes and few repeats.
        networks: names of the networks to take.
        batches: at which networks are timed.
    """

    device: str
    artifacts: Path | None = None
    quick: bool = False
    networks: tuple[str, ...] = ("dnet", "lnet", "enet")
    batches: tuple[int, ...] = (1, 4, 8, 16)

    def __post_init__(self) -> None:
        kind, _, number = self.device.partition(":")
        if self.device != "host" and not (kind == "cuda" and number.isdecimal()):
            raise UsageError(f"received device '{self.device}', expected host or cuda:N")
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"received batches {list(self.batches)}, expected whole numbers from 1")

    @property
    def host(self) -> bool:
        """Without a GPU: nothing measured says anything about one."""
        return self.device == "host"

    @property
    def small(self) -> bool:
        """Toy shapes."""
        return self.quick or self.host

    @property
    def index(self) -> int:
        """Number of the CUDA device; 0 on the host."""
        return int(self.device.partition(":")[2] or 0)

    def facts(self) -> dict[str, Any]:
        """For every row: the device, whether it is a dry run, the machine and the versions."""
        found = {"device": self.device, "dry_run": self.small, **machine()}
        found["versions"] |= {name: number for name in _PACKAGES if (number := _version(name))}
        return found if self.host else {**found, **_gpu(self.index)}


@contextmanager
def opened(setting: Setting) -> Iterator[Device]:
    """The streamer's device, attached to this thread; `NotRunError` where it is lacking."""
    if setting.host:
        from dubstream.runtime.streaming.host import HostDevice

        with HostDevice() as host:
            yield host
        return
    require_driver()
    require_package("pycuda", "CudaDevice is made of it")
    from dubstream.runtime.streaming.cuda import CudaDevice

    with CudaDevice(setting.index) as device:
        yield device


def require_driver() -> None:
    """`NotRunError` without an NVIDIA driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NotRunError(f"no NVIDIA driver: {error}") from error


def require_package(name: str, why: str) -> None:
    """`NotRunError` where a package is not installed; one that is installed and broken is a failure."""
    if find_spec(name) is None:
        raise NotRunError(f"{name} is not installed ({why})")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu(index: int) -> dict[str, Any]:
    """What nvidia-smi and the driver say; empty where there is none."""
    facts: dict[str, Any] = {}
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        facts = {"gpu": dict(zip(_QUERY, map(str.strip, answer.split(",")), strict=True))}
        number = ctypes.c_int()
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return facts
    return {**facts, "cuda_driver": f"{number.value // 1000}.{number.value % 1000 // 10}"}
