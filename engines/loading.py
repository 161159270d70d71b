"""From an artifact folder to a running engine."""

from __future__ import annotations

from pathlib import Path

from dubstream.engines.artifact import open_artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine import Engine
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine


def load_engine(
    folder: Path,
    spec: NetworkSpec,
    *,
    precision: str = "fp32",
    threads: int | None = None,
    spin: bool = False,
    max_batch: int | None = None,
) -> Engine:
    """Verify the artifact of `spec` in `folder` and load it on the CPU; the caller closes the engine.

    Args:
        folder: where ``<name>.<precision>.onnx`` and its sidecar are.
        spec: the network.
        precision: the artifact's precision recipe.
        threads, spin: see `OnnxRuntimeEngine`.
        max_batch: largest batch the engine accepts; None for the spec's own limit.

    Raises:
        ArtifactError: missing, damaged, or made for another spec; nothing was parsed before the digest
            was found right.
        DeviceError: ONNX Runtime is missing or installed twice.
        StorageError: the files cannot be read.
        UsageError: `threads` or `max_batch` out of range.
    """
    artifact = open_artifact(folder, spec, precision)
    return OnnxRuntimeEngine(artifact.path, spec, threads=threads, spin=spin, max_batch=max_batch)
