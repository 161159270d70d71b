"""What this installation has: versions, backends, GPU, and the licence of every checkpoint."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from dubstream.engines.specs import SPECS

PACKAGES = (
    "dubstream", "numpy", "av", "opencv-python-headless", "librosa", "scipy", "onnxruntime",
    "onnxruntime-gpu", "tensorrt", "pycuda", "cuda-bindings", "torch", "onnx", "polygraphy",
)  # fmt: skip

MEDIA_LICENCE = (
    "the `av` wheel links libx264 and libx265 (GPL-2.0+): redistributing an image that contains it is a "
    "GPL redistribution"
)


@dataclass
class Diagnosis:
    """Everything `dubstream doctor` prints.

    Attributes:
        versions: package name to version, or None where it is not installed.
        providers: ONNX Runtime's execution providers; empty where it is not installed.
        gpu: one line per GPU, or why there is none.
        checkpoints: network name to (file found or None, licence).
        problems: what stops or endangers a dub, each with the next command.
    """

    versions: dict[str, str | None]
    providers: list[str]
    gpu: list[str]
    checkpoints: dict[str, tuple[str | None, str]]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def diagnose(checkpoints: Path | None = None) -> Diagnosis:
    """Look at this machine; imports nothing heavy but ONNX Runtime, and changes nothing."""
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    diagnosis = Diagnosis(
        versions=versions,
        providers=_providers(),
        gpu=_gpus(),
        checkpoints=_checkpoints(checkpoints),
        notes=[MEDIA_LICENCE],
    )
    diagnosis.problems = _problems(diagnosis)
    return diagnosis


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return [str(name) for name in onnxruntime.get_available_providers()]


def _gpus() -> list[str]:
    """Names and drivers as nvidia-smi gives them; where it is missing, whether the driver library is."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return ["none: no NVIDIA driver (libcuda.so.1) on this machine"]
        return ["an NVIDIA driver is installed, but nvidia-smi is not"]
    query = [tool, "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    return (
        lines if answer.returncode == 0 and lines else [f"none: {answer.stderr.strip() or 'no GPU listed'}"]
    )


def _checkpoints(folder: Path | None) -> dict[str, tuple[str | None, str]]:
    found: dict[str, tuple[str | None, str]] = {}
    for name, spec in SPECS.items():
        path = None if folder is None else folder / spec.checkpoint
        found[name] = (str(path) if path is not None and path.is_file() else None, spec.licence)
    return found


def _problems(diagnosis: Diagnosis) -> list[str]:
    problems = []
    has_cpu, has_gpu = diagnosis.versions["onnxruntime"], diagnosis.versions["onnxruntime-gpu"]
    if has_cpu and has_gpu:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall onnxruntime onnxruntime-gpu, then install one of dubstream[cpu], dubstream[gpu]"
        )
    if not has_cpu and not has_gpu:
        problems.append('no ONNX Runtime: pip install "dubstream[cpu]" (or "dubstream[gpu]" on a GPU server)')
    if diagnosis.versions["torch"] is None:
        problems.append('no torch: artifacts cannot be exported here; pip install "dubstream[export]"')
    return problems
