"""Whether a half-precision graph may be published: its ranges, and how far it is from float32."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np
import onnx
import torch

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import FidelityError
from dubstream.engines.sidecar import FidelityRow, RangeRow
from dubstream.export.fidelity import Array, Case, Run, assess, fidelity_cases
from dubstream.export.half_graph import (
    HalfTensor,
    divergence_model,
    half_tensors,
    peak_name,
    peaks_model,
    rounding_model,
)
from dubstream.export.pictures import PictureNetwork
from dubstream.export.precision import ISLAND_HINT, PrecisionRecipe
from dubstream.export.session import onnx_session

KEPT_RANGES = 8
"""Of hundreds of tensors, the largest ones go into the sidecar."""

_NAMED = 3
Inputs = Mapping[str, Array]


def half_cases(spec: NetworkSpec, real: Inputs) -> list[Case]:
    """The real inputs as one batch, and one item of uniform ones.

    Few, because emulated rounding takes ten times as long as the network.
    """
    items = len(next(iter(real.values())))
    return [
        Case("real", {tensor.name: real[tensor.name] for tensor in spec.inputs}, ((0, items),)),
        _first_item(fidelity_cases(spec)[0]),
    ]


def extreme_case(spec: NetworkSpec) -> Case:
    """One item whose every value is at one end of its range: for the range audit only."""
    return _first_item(fidelity_cases(spec)[1])


def _first_item(case: Case) -> Case:
    return Case(case.name, {name: values[:1] for name, values in case.inputs.items()}, ((0, 1),))


def levels_runner(network: PictureNetwork, spec: NetworkSpec) -> Run:
    """Run a network in PyTorch up to where its outputs would be rounded; float32, axes as in the spec."""

    def run(inputs: Inputs) -> dict[str, Array]:
        with torch.inference_mode():
            got = network.levels(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
        made = (got,) if isinstance(got, torch.Tensor) else got
        return {
            output.name: (levels.permute(0, 2, 3, 1) if output.dtype == "uint8" else levels).float().numpy()
            for output, levels in zip(spec.outputs, made, strict=True)
        }

    return run


def audit(
    model: onnx.ModelProto, recipe: PrecisionRecipe, cases: Sequence[Case], threads: int
) -> tuple[RangeRow, ...]:
    """Largest magnitude of every half-precision tensor over all cases, computed in float32.

    Returns:
        The `KEPT_RANGES` largest, largest first.

    Raises:
        FidelityError: a tensor reaches the recipe's limit, or is not finite; names tensor, node and module.
    """
    tensors = half_tensors(model)
    session = onnx_session(peaks_model(model), threads)
    names = [peak_name(tensor) for tensor in tensors]
    rows: dict[str, RangeRow] = {}
    for case in cases:
        for tensor, peak in zip(tensors, session.run(names, _widened(case.inputs)), strict=True):
            reached = float(peak) if np.isfinite(peak) else math.inf
            if tensor.name not in rows or reached > rows[tensor.name].max_abs:
                row = RangeRow(tensor.name, tensor.node, tensor.module, case.name, reached)
                rows[tensor.name] = row
    _refuse_large([row for row in rows.values() if row.max_abs >= recipe.limit], recipe)
    return tuple(sorted(rows.values(), key=attrgetter("max_abs"), reverse=True)[:KEPT_RANGES])


def compare_half(
    model: onnx.ModelProto,
    recipe: PrecisionRecipe,
    spec: NetworkSpec,
    cases: Sequence[Case],
    reference: Sequence[Mapping[str, Array]],
    threads: int,
) -> tuple[FidelityRow, ...]:
    """Compare with the original in float32: rounding emulated on all cases, the file itself on the first.

    Rows are called ``rounded/real/2`` and ``file/real/2``. ONNX Runtime's CPU has no bfloat16 convolution, so
    such a file is not run.

    Raises:
        FidelityError: not within the spec's tolerance; names the modules in which the error grows most.
    """
    runs = [("rounded", _runner(rounding_model(model), spec, threads, optimised=False), cases)]
    if recipe.precision == "fp16":
        runs.append(("file", _runner(model, spec, threads, optimised=True), cases[:1]))
    rows: list[FidelityRow] = []
    problems: list[str] = []
    for name, run, some in runs:
        found, wrong = assess(spec, some, reference[: len(some)], run)
        rows += [replace(row, case=f"{name}/{row.case}") for row in found]
        problems += [f"{name}/{problem}" for problem in wrong]
    if problems:
        grown = growth(model, cases[0].inputs, threads)[:_NAMED]
        where = ", ".join(f"{_place(tensor)} (to {error:.1e})" for tensor, error in grown)
        raise FidelityError(
            f"{recipe.name} is not its float32 original: {'; '.join(problems)}; "
            f"the relative error grows most in {where}",
            hint=ISLAND_HINT,
        )
    return tuple(rows)


def growth(model: onnx.ModelProto, inputs: Inputs, threads: int) -> list[tuple[HalfTensor, float]]:
    """Half-precision tensors and their relative errors, those first whose node adds most to it."""
    tensors = [tensor for tensor in half_tensors(model) if tensor.node != "input"]
    session = onnx_session(divergence_model(model), threads, optimised=False)
    values = session.run([peak_name(tensor) for tensor in tensors], _widened(inputs))
    measured = {
        tensor.name: float(value) for tensor, value in zip(tensors, values, strict=True) if np.isfinite(value)
    }
    error, added = dict(measured), {}
    for node in model.graph.node:
        entering = max((error.get(name, 0.0) for name in node.input), default=0.0)
        for name in node.output:
            added[name] = measured.get(name, entering) - entering
            error.setdefault(name, entering)
    ordered = sorted(tensors, key=lambda tensor: added[tensor.name], reverse=True)
    return [(tensor, error[tensor.name]) for tensor in ordered]


def _runner(model: onnx.ModelProto, spec: NetworkSpec, threads: int, *, optimised: bool) -> Run:
    """Outputs come in float32 with the values of the spec's type; for a widened model inputs are, too."""
    session = onnx_session(model, threads, optimised=optimised)
    wide = {value.name for value in session.get_inputs() if value.type == "tensor(float)"}

    def run(inputs: Inputs) -> dict[str, Array]:
        feeds = {name: value.astype(np.float32) if name in wide else value for name, value in inputs.items()}
        names = [tensor.name for tensor in spec.outputs]
        return {
            name: got.astype(np.float32) for name, got in zip(names, session.run(names, feeds), strict=True)
        }

    return run


def _widened(inputs: Inputs) -> dict[str, Array]:
    return {
        name: value.astype(np.float32) if value.dtype == np.float16 else value
        for name, value in inputs.items()
    }


def _refuse_large(rows: Sequence[RangeRow], recipe: PrecisionRecipe) -> None:
    if rows:
        named = "; ".join(
            f"tensor '{row.tensor}' of node {row.node} in module '{row.module}' reaches {row.max_abs:.3g} "
            f"on {row.case} inputs"
            for row in rows[:_NAMED]
        )
        raise FidelityError(
            f"{recipe.name}: {len(rows)} tensors beyond {recipe.limit:.0e}: {named}", hint=ISLAND_HINT
        )


def _place(tensor: HalfTensor) -> str:
    return f"module '{tensor.module}', node {tensor.node}"
