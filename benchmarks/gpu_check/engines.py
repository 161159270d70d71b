"""Executors against ONNX Runtime on the CPU, on the same artifact and the same inputs."""

from __future__ import annotations

from typing import Any

from dubstream.benchmarks.gpu_check.executors import (
    Arrays,
    BoundNetwork,
    artifact_of,
    backends,
    engine_of,
    seeded_inputs,
)
from dubstream.benchmarks.gpu_check.journal import Journal
from dubstream.benchmarks.gpu_check.setting import Setting, opened
from dubstream.engines.artifact import Artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.export.fidelity import compare, peak_of

PRECISIONS = ("fp32", "fp16")
BATCHES = (1, 3)
"""One, and one that no optimisation profile was tuned for."""


def check(setting: Setting, journal: Journal) -> None:
    """Rows ``engines/NETWORK.PRECISION/BACKEND/OUTPUT``: errors at the tolerances of the spec."""
    for name in setting.networks:
        for precision in PRECISIONS:
            stage = f"engines/{name}.{precision}"
            with journal.guard(stage):
                artifact = artifact_of(setting, name, precision)
                for batch in BATCHES[:1] if setting.small else BATCHES:
                    inputs = seeded_inputs(artifact.spec, batch)
                    wanted = session_outputs(artifact, inputs)
                    for backend in backends(setting):
                        with journal.guard(f"{stage}/{backend}", batch=batch):
                            got = engine_outputs(setting, backend, artifact, inputs)
                            compared(journal, f"{stage}/{backend}", artifact.spec, wanted, got, batch=batch)


def session_outputs(artifact: Artifact, inputs: Arrays) -> Arrays:
    """What ONNX Runtime's own `session.run` makes of the artifact on the CPU."""
    import onnxruntime

    names = [tensor.name for tensor in artifact.spec.outputs]
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, inputs), strict=True))


def engine_outputs(setting: Setting, backend: str, artifact: Artifact, inputs: Arrays) -> Arrays:
    """What a backend makes of it, by way of the device's memory."""
    with opened(setting) as device, engine_of(backend, setting, artifact, device) as engine:
        bound = BoundNetwork(device, engine, inputs)
        try:
            return bound.outputs()
        finally:
            bound.close()


def compared(
    journal: Journal,
    stage: str,
    spec: NetworkSpec,
    wanted: Arrays,
    got: Arrays,
    *,
    case: str = "seeded",
    **facts: Any,
) -> None:
    """One row per output, judged at the spec's tolerance; `case` says which inputs."""
    for tensor in spec.outputs:
        tolerance = spec.tolerances[tensor.name]
        row, problem = compare(
            case, tensor.name, wanted[tensor.name], got[tensor.name], tolerance, peak_of(tensor)
        )
        figures = {
            "max_abs": row.max_abs,
            "relative_l2": row.relative_l2,
            "cosine": row.cosine,
            "psnr_db": row.psnr,
            "of_tolerance": row.max_abs / tolerance.max_abs,
        }
        journal.judged(f"{stage}/{tensor.name}", problem, case=case, **figures, **facts)
