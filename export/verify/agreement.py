"""One output compared with another: figures, the rule that judges them, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dubstream.engines.contract import NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.sidecar import FidelityRow
from dubstream.export.fidelity import Array, compare, peak_of
from dubstream.export.verify.inputs import CHANNELS, Probe, ends_of, is_picture
from dubstream.export.verify.result import CaseRow, Rule

FLOOR_FACTOR = 32.0
"""Multiple of the noise floor that is allowed. The floor is a model of rounding, and a backend's kernels lose
more or less than it says: ONNX Runtime came to 14 floors on D-Net's flow of a grey picture, to 9 else."""

ROUNDING_FACTOR = 4.0
"""Multiple of the rounding floor that is allowed: a graph also rounds weights, sums, and what lies between
products, three or four roundings where the floor has one. GFPGAN's came to 2.0 to 3.4 on absurd pictures."""

_WORST_PIXEL = 2.0
"""Times the factor, for the largest difference: one pixel of a million scatters more than the mean of all.
GFPGAN's worst pixel of a white picture came to 4.3 floors, the root of its mean square to 2.8."""

_HALF_LEVEL = 0.5
"""Bytes no further from what they are rounded from are the right ones, also where a picture is nearly black
and this is a tenth of its norm."""

WINDOW = 7  # pixels; the side of the structural similarity's window


@dataclass(frozen=True)
class Judge:
    """Compares outputs in the domain of one spec.

    Attributes:
        spec: outputs, ranges and tolerances.
        floors: per amplifying probe and output, how far rounding alone moves the PyTorch network; see
            `dubstream.export.verify.noise`. Probes without one are judged by the tolerance.
        rounding: the same for a half precision, of pictures that the network does not bound itself.
        factor: of `rounding`.
    """

    spec: NetworkSpec
    floors: Mapping[tuple[str, str], float] = field(default_factory=dict)
    rounding: Mapping[tuple[str, str], FidelityRow] = field(default_factory=dict)
    factor: float = ROUNDING_FACTOR

    def __call__(self, probe: Probe, want: Mapping[str, Array], got: Mapping[str, Array]) -> list[CaseRow]:
        """Rows of all outputs; `want` is the other link's, both in float32 and the units of the spec."""
        return [self._row(probe, tensor, want[tensor.name], got[tensor.name]) for tensor in self.spec.outputs]

    def _row(self, probe: Probe, tensor: TensorSpec, want: Array, got: Array) -> CaseRow:
        rule, tolerance = self._rule(probe, tensor.name)
        return row_of(probe.name, tensor, want, got, tolerance, rule=rule, allowed=tolerance.max_abs)

    def _rule(self, probe: Probe, output: str) -> tuple[Rule, Tolerance]:
        tolerance, key = self.spec.tolerances[output], (probe.name, output)
        if key in self.floors:
            allowed = max(tolerance.max_abs, FLOOR_FACTOR * self.floors[key])
            return "noise floor", replace(tolerance, max_abs=allowed)
        if key in self.rounding:
            floored = _floored(tolerance, self.rounding[key], self.factor)
            return ("tolerance" if floored == tolerance else "rounding floor"), floored
        return "tolerance", tolerance


def _floored(tolerance: Tolerance, floor: FidelityRow, factor: float) -> Tolerance:
    """The tolerance with each of its measures at least `factor` times the floor's amplitude."""
    noise = None if floor.psnr is None else floor.psnr - 20 * math.log10(factor)
    psnr, relative = tolerance.psnr, tolerance.relative_l2
    return replace(
        tolerance,
        max_abs=max(tolerance.max_abs, _WORST_PIXEL * factor * floor.max_abs),
        cosine=min(tolerance.cosine, 1 - factor**2 * (1 - floor.cosine)),
        relative_l2=None if relative is None else max(relative, factor * floor.relative_l2),
        psnr=psnr if psnr is None or noise is None else min(psnr, noise),
    )


def row_of(
    case: str,
    tensor: TensorSpec,
    want: Array,
    got: Array,
    tolerance: Tolerance,
    *,
    rule: Rule,
    allowed: float,
) -> CaseRow:
    """Compare one output by one rule.

    Args:
        case: for the row.
        tensor: what it is.
        want, got: the other link's output and this one's.
        tolerance: what is allowed; under the rule ``noise floor`` the largest difference alone.
        rule: what judges.
        allowed: largest absolute difference.
    """
    same = want.shape == got.shape
    row, problem = compare(case, tensor.name, want, got, tolerance, peak_of(tensor))
    nan = _counts(np.isnan, want, got)
    inf = _counts(np.isinf, want, got)
    if same and not any((*nan, *inf)) and rule == "noise floor":
        excess = f"{case} {tensor.name}: max abs {row.max_abs:.3g} (allowed {allowed:.3g})"
        problem = None if row.max_abs <= allowed else excess
    right_bytes = tensor.dtype == "uint8" and row.max_abs <= _HALF_LEVEL
    if right_bytes and same and not any((*nan, *inf)):
        problem = None
    return CaseRow(
        case,
        tensor.name,
        row.max_abs,
        row.mean_abs,
        row.relative_l2,
        row.cosine,
        row.psnr,
        similarity(want, got, tensor) if same else None,
        allowed,
        _share(row, tolerance, "noise floor" if right_bytes else rule, allowed),
        nan,
        inf,
        rule,
        problem or "",
    )


def _share(row: FidelityRow, tolerance: Tolerance, rule: Rule, allowed: float) -> float:
    """How much of the most exhausted allowance is used."""
    shares = [row.max_abs / allowed]
    if rule != "noise floor":
        shares.append((1 - row.cosine) / (1 - tolerance.cosine))
        if tolerance.relative_l2 is not None:
            shares.append(row.relative_l2 / tolerance.relative_l2)
        if tolerance.psnr is not None and row.psnr is not None:
            shares.append(10 ** ((tolerance.psnr - row.psnr) / 20))  # of the noise's amplitude
    return max(shares)


def similarity(want: Array, got: Array, tensor: TensorSpec) -> float | None:
    """Mean structural similarity (Wang et al. 2004) over items and channels; None for what is no picture.

    The dynamic range is that of the tensor; values that are not finite count as the range's low end.
    """
    if not is_picture(tensor):
        return None
    from skimage.metrics import structural_similarity

    compared: Any = structural_similarity  # it has no types

    low, high = ends_of(tensor)
    channels = -1 if tensor.shape[-1] in CHANNELS else 0
    window = min(WINDOW, (min(want.shape[-2:]) if channels == 0 else min(want.shape[1:3])) // 2 * 2 - 1)
    pairs = zip(_finite(want, low), _finite(got, low), strict=True)
    scores = [compared(a, b, data_range=high - low, channel_axis=channels, win_size=window) for a, b in pairs]
    return float(np.mean(scores))


def _finite(values: Array, low: float) -> Array:
    return np.where(np.isfinite(values), values, low).astype(np.float64)


def _counts(test: Callable[[Array], Array], want: Array, got: Array) -> tuple[int, int]:
    return int(test(want).sum()), int(test(got).sum())
