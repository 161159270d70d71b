"""How far an exported network is from its PyTorch original: cases, metrics, verdict."""

from __future__ import annotations

import math
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

_UNBOUNDED = 1.0  # inputs without a range are tried in -1..1


@dataclass(frozen=True)
class Case:
    """Inputs that the original sees once, as one batch, and the export in several batches.

    Attributes:
        name: short name; with a batch behind it, e.g. ``"uniform/2"``, it names a row of the report.
        inputs: arrays by input name.
        batches: (first, end) of the items in each batch the export gets.
    """

    name: str
    inputs: dict[str, Array]
    batches: tuple[tuple[int, int], ...]


def fidelity_cases(spec: NetworkSpec) -> list[Case]:
    """Seeded inputs: uniform over the spec's ranges, and every value at one end of its range.

    Constant pictures are no case: they have no variance, and what instance norms then divide by is
    rounding noise of the backend's convolutions, not a property of the export.
    """
    uniform = {
        tensor.name: _generator(spec, tensor).uniform(*_range(tensor), tensor.concrete(3))
        for tensor in spec.inputs
    }
    ends = {
        tensor.name: _generator(spec, tensor).choice(_range(tensor), tensor.concrete(1))
        for tensor in spec.inputs
    }
    return [
        Case("uniform", _typed(spec, uniform), ((0, 1), (1, 3), (0, 3))),
        Case("ends", _typed(spec, ends), ((0, 1),)),
    ]


def compare(
    case: str, output: str, want: Array, got: Array, tolerance: Tolerance, peak: float | None = None
) -> tuple[FidelityRow, str | None]:
    """Metrics of one output and, if it is not within `tolerance`, the problem in words.

    Non-finite values are counted apart and always a problem; metrics are then over the finite rest.

    Args:
        case, output: what is compared, for the row.
        want, got: the original's output and the export's, of one shape and dtype.
        tolerance: what is allowed.
        peak: see `measure`.
    """
    label = f"{case} {output}"
    if want.shape != got.shape or want.dtype != got.dtype:
        row = FidelityRow(case, output, 0.0, 0.0, 0.0, 0.0, 0.0)
        return row, f"{label}: expected {want.dtype} {want.shape}, got {got.dtype} {got.shape}"
    finite = np.isfinite(want) & np.isfinite(got)
    row = measure(case, output, want[finite], got[finite], tolerance, peak)
    if not finite.all():
        bad = (int(want.size - np.isfinite(want).sum()), int(got.size - np.isfinite(got).sum()))
        return row, f"{label}: {bad[0]} non-finite values in the original, {bad[1]} in the export"
    return row, None if _within(row, tolerance) else f"{label}: {_in_words(row, tolerance)}"


def _within(row: FidelityRow, tolerance: Tolerance) -> bool:
    return (
        row.max_abs <= tolerance.max_abs
        and row.cosine >= tolerance.cosine
        and (tolerance.relative_l2 is None or row.relative_l2 <= tolerance.relative_l2)
        and (tolerance.psnr is None or row.psnr is None or row.psnr >= tolerance.psnr)
    )


def _in_words(row: FidelityRow, tolerance: Tolerance) -> str:
    words = [
        f"max abs {row.max_abs:.3g} (allowed {tolerance.max_abs:g})",
        f"cosine {row.cosine:.8f} (allowed {tolerance.cosine})",
    ]
    if tolerance.relative_l2 is not None:
        words.append(f"relative L2 {row.relative_l2:.2e} (allowed {tolerance.relative_l2:g})")
    if tolerance.psnr is not None and row.psnr is not None:
        words.append(f"PSNR {row.psnr:.1f} dB (allowed {tolerance.psnr:g})")
    return ", ".join(words)


def measure(
    case: str, output: str, want: Array, got: Array, tolerance: Tolerance, peak: float | None = None
) -> FidelityRow:
    """All metrics of two equally shaped finite arrays, in float64.

    `peak` is what the signal-to-noise ratio relates the noise to; None for the width of `want`'s values.
    """
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
        _psnr(difference, float(np.ptp(reference)) if peak is None and reference.size else peak),
    )


def _psnr(difference: Array, peak: float | None) -> float | None:
    power = float(np.mean(np.square(difference))) if difference.size else 0.0
    return 10 * math.log10(peak * peak / power) if power and peak else None


def peak_of(tensor: TensorSpec) -> float | None:
    """Width of the tensor's range, None where it is unbounded."""
    return None if tensor.low is None or tensor.high is None else tensor.high - tensor.low


def cosine(a: Array, b: Array) -> float:
    """Cosine similarity of two flat arrays; 1 for two zero arrays, 0 for a zero and a non-zero one."""
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if lengths == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.dot(a, b)) / lengths


def judge(
    spec: NetworkSpec, cases: Sequence[Case], reference: Sequence[Mapping[str, Array]], run: Run
) -> tuple[FidelityRow, ...]:
    """Run every batch of every case and compare it with the original's outputs for the whole case.

    Raises:
        FidelityError: at least one output of one case is not within the spec's tolerance; lists all.
    """
    rows, problems = assess(spec, cases, reference, run)
    if problems:
        raise FidelityError(
            f"{spec.name}: the export is not its PyTorch original; {'; '.join(problems)}",
            hint="nothing was published; please report this with the versions from 'dubstream doctor'",
        )
    return rows


def assess(
    spec: NetworkSpec, cases: Sequence[Case], reference: Sequence[Mapping[str, Array]], run: Run
) -> tuple[tuple[FidelityRow, ...], list[str]]:
    """As `judge`, with the problems in words instead of an error."""
    rows: list[FidelityRow] = []
    problems: list[str] = []
    for case, whole in zip(cases, reference, strict=True):
        for first, end in case.batches:
            name = f"{case.name}/{end - first}"
            got = run({key: value[first:end] for key, value in case.inputs.items()})
            for tensor in spec.outputs:
                want = whole[tensor.name][first:end]
                row, problem = compare(
                    name, tensor.name, want, got[tensor.name], spec.tolerances[tensor.name], peak_of(tensor)
                )
                rows.append(row)
                problems += [problem] if problem else []
    return tuple(rows), problems


def _ratio(error: float, norm: float) -> float:
    # A zero reference has no relative error; its absolute one is judged by max_abs.
    return error / norm if norm else 0.0


def _range(tensor: TensorSpec) -> tuple[float, float]:
    low = -_UNBOUNDED if tensor.low is None else tensor.low
    return low, _UNBOUNDED if tensor.high is None else tensor.high


def _generator(spec: NetworkSpec, tensor: TensorSpec) -> np.random.Generator:
    return np.random.default_rng(list(f"fidelity:{spec.name}:{tensor.name}".encode()))


def _typed(spec: NetworkSpec, values: Mapping[str, Array]) -> dict[str, Array]:
    return {tensor.name: values[tensor.name].astype(tensor.dtype) for tensor in spec.inputs}
