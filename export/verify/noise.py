"""How far rounding alone moves a network's outputs on given inputs: the floor no backend can go below.

Where a picture is constant, an instance norm divides by the root of nearly nothing and shows rounding
several hundred times enlarged. Which rounding that is depends on a backend's kernels: in PyTorch the mean of
equal numbers is exact, in ONNX Runtime, which sums in another order, it is not. So the PyTorch network is run
with rounding errors put in on purpose, and the floor is what becomes of its outputs:

- results of convolutions and products are off by up to one rounding step of their largest magnitude;
- means inside norms are off by what a sum of n terms may lose, the square root of n steps (N. Higham and
  T. Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019).

A half precision has a floor where a picture is clamped that the network itself does not bound. On a white
picture GFPGAN's values reach 450 where 1 is white; rounding is in proportion, and the pixels that cross
from black to white show it. There the plain network with its products rounded is the measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.sidecar import FidelityRow
from dubstream.export.fidelity import Run, measure, peak_of
from dubstream.export.verify.inputs import Probe

STEP = 2.0**-24
"""Largest relative error of one float32 rounding."""

_SEED = 1
_PRODUCTS = {torch.conv2d, torch.conv_transpose2d, F.linear, torch.matmul, torch.bmm, Tensor.matmul}
_NORMS: dict[Callable[..., Tensor], Callable[[Tensor], tuple[int, ...]]] = {
    F.instance_norm: lambda x: tuple(range(2, x.ndim)),
    F.layer_norm: lambda x: tuple(range(1, x.ndim)),
}
"""Functions, and the axes whose mean they take; a layer norm of tokens is close enough to one of pictures."""


class RoundingNoise(TorchFunctionMode):
    """While entered, PyTorch's products and norms err by seeded rounding errors; see the module.

    Args:
        step: largest relative error of one rounding, see `STEP`.
    """

    def __init__(self, step: float = STEP) -> None:
        super().__init__()
        self._step = step
        self._draw = torch.Generator().manual_seed(_SEED)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _PRODUCTS:
            return result + self._uniform(result) * (self._step * result.abs().amax())
        if func in _NORMS:
            return result + self._mean_error(args[0], _NORMS[func](args[0]))
        return result

    def _mean_error(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        mean = x.mean(axes, keepdim=True)
        deviation = torch.sqrt(x.var(axes, correction=0, keepdim=True) + 1e-5)
        terms = math.prod(x.shape[axis] for axis in axes)
        return self._uniform(mean) * (self._step * math.sqrt(terms)) * mean.abs() / deviation

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self._draw, dtype=like.dtype).mul_(2).sub_(1)


class HalfRounding(TorchFunctionMode):
    """While entered, the results of PyTorch's products are rounded to a half precision.

    The plain network thus shows what this precision does to it, without the exported graph.

    Args:
        dtype: ``torch.float16`` or ``torch.bfloat16``.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.to(self._dtype).to(result.dtype) if func in _PRODUCTS else result


def rounding_floors(
    run: Run,
    spec: NetworkSpec,
    outputs: Collection[str],
    probes: Sequence[Probe],
    reference: Sequence[Mapping[str, Any]],
    dtype: torch.dtype,
) -> dict[tuple[str, str], FidelityRow]:
    """How far a half precision moves PyTorch's outputs on adversarial probes, by (probe, output).

    Args:
        run: the PyTorch root.
        spec: its outputs and their tolerances.
        outputs: names of those wanted.
        probes, reference: inputs, and what `run` gave for them undisturbed.
        dtype: of the precision.
    """
    floors: dict[tuple[str, str], FidelityRow] = {}
    for probe, want in zip(probes, reference, strict=True):
        if outputs and probe.adversarial:
            with HalfRounding(dtype):
                got = run(probe.inputs)
            for name in outputs:
                tolerance, peak = spec.tolerances[name], peak_of(spec.output(name))
                row = measure(probe.name, name, want[name], got[name], tolerance, peak)
                floors[probe.name, name] = row
    return floors


def noise_floors(
    run: Run, probes: Sequence[Probe], reference: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], float]:
    """Largest absolute change of every output on the amplifying probes, by (probe, output).

    Args:
        run: the PyTorch root.
        probes, reference: inputs, and what `run` gave for them undisturbed.
    """
    floors: dict[tuple[str, str], float] = {}
    for probe, want in zip(probes, reference, strict=True):
        if probe.amplifying:
            with RoundingNoise():
                got = run(probe.inputs)
            for name, values in got.items():
                floors[probe.name, name] = float(np.abs(values - want[name]).max(initial=0.0))
    return floors
