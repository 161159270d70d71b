"""The float32 links in the domain of half-precision artifacts: pictures in, levels out.

A half-precision artifact takes and gives uint8 pictures, its float32 twin planes. To compare them, a float32
link is put into the place of the network inside `PictureNetwork`, so that the conversions are the very ones
that the half-precision graph holds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dubstream.engines.contract import NetworkSpec
from dubstream.export.fidelity import Array, Run
from dubstream.export.half_check import levels_runner
from dubstream.export.recipes import HalfForm


class RunCore(nn.Module):
    """Any way to run a network, in the place of the PyTorch module.

    Args:
        run: inputs by name to outputs by name, as in `spec`.
        spec: the network's float32 spec; it gives the order of the tensors.
    """

    def __init__(self, run: Run, spec: NetworkSpec) -> None:
        super().__init__()
        self._run, self._spec = run, spec

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        named = {
            tensor.name: np.ascontiguousarray(value.numpy())
            for tensor, value in zip(self._spec.inputs, tensors, strict=True)
        }
        got = self._run(named)
        outputs = tuple(torch.from_numpy(np.asarray(got[tensor.name])) for tensor in self._spec.outputs)
        return outputs if len(outputs) > 1 else outputs[0]


def in_pictures(run: Run, spec: NetworkSpec, form: HalfForm) -> Run:
    """`run` of the float32 `spec`, taking the inputs of `form.spec` and giving levels before rounding."""
    return levels_runner(form.pictures(RunCore(run, spec), torch.float32), form.spec)


def planes_of(inputs: Mapping[str, Array], spec: NetworkSpec, form: HalfForm) -> dict[str, Array]:
    """What the network itself gets when `inputs` of `form.spec` are given: inputs of the float32 `spec`."""
    seen: dict[str, Array] = {}

    def look(given: Mapping[str, Array]) -> dict[str, Array]:
        seen.update({name: np.array(values, np.float32) for name, values in given.items()})
        items = len(next(iter(given.values())))
        return {tensor.name: np.zeros(tensor.concrete(items), np.float32) for tensor in spec.outputs}

    in_pictures(look, spec, form)(inputs)
    return seen
