"""How far an exported network is from its PyTorch original: cases, metrics, verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.contract import NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.errors import FidelityError
from dubstream.engines.sidecar import FidelityRow

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Inputs by name to outputs by name."""

_BATCHES = (1, 2, 3)
_UNBOUNDED = 1.0  # inputs without a range are tried in -1..1


@dataclass(frozen=True)
class Case:
    """Named inputs of one comparison; the name ends with the batch, e.g. ``"uniform/3"``."""

    name: str
    inputs: dict[str, Array]


def fidelity_cases(spec: NetworkSpec) -> list[Case]:
    """Seeded uniform inputs over the spec's ranges at several batches, and the ends of the ranges."""
    cases = [
        Case(f"uniform/{batch}", {tensor.name: _uniform(spec, tensor, batch) for tensor in spec.inputs})
        for batch in _BATCHES
    ]
    for end in (0, 1):
        inputs = {
            tensor.name: np.full(tensor.concrete(1), _range(tensor)[end], tensor.dtype)
            for tensor in spec.inputs
        }
        cases.append(Case(f"{'high' if end else 'low'}/1", inputs))
    return cases


def compare(
    case: str, output: str, want: Array, got: Array, tolerance: Tolerance
) -> tuple[FidelityRow, str | None]:
    """Metrics of one output and, if it is not within `tolerance`, the problem in words.

    Non-finite values are counted apart and always a problem; metrics are then over the finite rest.
    """
    label = f"{case} {output}"
    if want.shape != got.shape or want.dtype != got.dtype:
        row = FidelityRow(case, output, 0.0, 0.0, 0.0, 0.0, 0.0)
        return row, f"{label}: expected {want.dtype} {want.shape}, got {got.dtype} {got.shape}"
    finite = np.isfinite(want) & np.isfinite(got)
    row = measure(case, output, want[finite], got[finite], tolerance)
    if not finite.all():
        bad = (int(want.size - np.isfinite(want).sum()), int(got.size - np.isfinite(got).sum()))
        return row, f"{label}: {bad[0]} non-finite values in the original, {bad[1]} in the export"
    if row.max_abs > tolerance.max_abs or row.cosine < tolerance.cosine:
        return row, (
            f"{label}: max abs {row.max_abs:.2e} (allowed {tolerance.max_abs:.0e}), "
            f"cosine {row.cosine:.8f} (allowed {tolerance.cosine})"
        )
    return row, None


def measure(case: str, output: str, want: Array, got: Array, tolerance: Tolerance) -> FidelityRow:
    """All metrics of two equally shaped finite arrays, in float64."""
    reference, result = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    difference = np.abs(result - reference)
    max_abs = float(difference.max(initial=0.0))
    return FidelityRow(
        case,
        output,
        max_abs,
        float(difference.mean()) if difference.size else 0.0,
        _ratio(float(np.linalg.norm(difference)), float(np.linalg.norm(reference))),
        cosine(reference, result),
        max_abs / tolerance.max_abs,
    )


def cosine(a: Array, b: Array) -> float:
    """Cosine similarity of two flat arrays; 1 for two zero arrays, 0 for a zero and a non-zero one."""
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if lengths == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.dot(a, b)) / lengths


def judge(
    spec: NetworkSpec, cases: Sequence[Case], reference: Sequence[Mapping[str, Array]], run: Run
) -> tuple[FidelityRow, ...]:
    """Run every case and compare it with the reference outputs.

    Raises:
        FidelityError: at least one output of one case is not within the spec's tolerance; lists all.
    """
    rows: list[FidelityRow] = []
    problems: list[str] = []
    for case, want in zip(cases, reference, strict=True):
        got = run(case.inputs)
        for tensor in spec.outputs:
            tolerance = spec.tolerances[tensor.name]
            row, problem = compare(case.name, tensor.name, want[tensor.name], got[tensor.name], tolerance)
            rows.append(row)
            problems += [problem] if problem else []
    if problems:
        raise FidelityError(
            f"{spec.name}: the export is not its PyTorch original; {'; '.join(problems)}",
            hint="nothing was published; please report this with the versions from 'dubstream doctor'",
        )
    return tuple(rows)


def _ratio(error: float, norm: float) -> float:
    # A zero reference has no relative error; its absolute one is judged by max_abs.
    return error / norm if norm else 0.0


def _range(tensor: TensorSpec) -> tuple[float, float]:
    low = -_UNBOUNDED if tensor.low is None else tensor.low
    return low, _UNBOUNDED if tensor.high is None else tensor.high


def _uniform(spec: NetworkSpec, tensor: TensorSpec, batch: int) -> Array:
    seed = list(f"fidelity:{spec.name}:{tensor.name}:{batch}".encode())
    values = np.random.default_rng(seed).uniform(*_range(tensor), tensor.concrete(batch))
    return values.astype(tensor.dtype)
