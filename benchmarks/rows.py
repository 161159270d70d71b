"""Rows of measurements: what was measured, how often, on what machine, with which versions."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

_PACKAGES = (
    *(
        "dubstream",
        "torch",
        "onnxruntime",
        "onnxruntime-gpu",
        "tensorrt",
        "pycuda",
        "triton",
        "onnx",
        "numpy",
    ),
    *("av", "opencv-python-headless"),
)
_GPU = ("name", "driver_version", "memory.total", "clocks.max.sm", "power.limit")


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        stage: what was measured, e.g. ``enet/onnx``.
        unit: of the figures.
        n: number of samples.
        median, low, high: 50th, 5th and 95th percentile.
        facts: parameters of the case.
    """

    stage: str
    unit: str
    n: int
    median: float
    low: float
    high: float
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: str, unit: str, samples: Sequence[float], **facts: Any) -> Row:
        """The row of a list of samples."""
        low, median, high = (round(float(value), 4) for value in np.percentile(samples, (5, 50, 95)))
        return cls(stage, unit, len(samples), median, low, high, facts)

    def as_json(self) -> dict[str, Any]:
        """Flat and JSON-serialisable."""
        plain = {key: value for key, value in vars(self).items() if key != "facts"}
        return {**plain, **self.facts}


def measure_in_turn(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every run, measured A B C A B C ... after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            began = perf_counter()
            run()
            times[name].append(perf_counter() - began)
    return times


def machine() -> dict[str, Any]:
    """Processor, cores, system, package versions and commit."""
    return {
        "cpu": _processor(),
        "cores": _cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "commit": _commit(),
    }


def gpu(index: int) -> dict[str, Any]:
    """Name, driver, memory, clock and power limit of a CUDA device, as nvidia-smi says; else nothing."""
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_GPU)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {"gpu": dict(zip(_GPU, map(str.strip, answer.split(",")), strict=True))}
    except (OSError, subprocess.CalledProcessError, ValueError):
        return {}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    from dubstream.engines.onnxruntime_engine import usable_cpus

    return usable_cpus()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
