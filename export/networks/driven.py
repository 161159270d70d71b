"""The driven norms of a deployable network: every scale and shift is made in one place.

Scales and shifts of `AdaIN` depend on the driving vector only, so they need not be computed where
they are used. `DriverBank` makes all of them from one matrix product and one batched product per width:
a handful of operations in place of four per norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubstream.export.networks.blocks import NORM_EPSILON, AdaIN
from dubstream.export.networks.rewrite import Rewriter, constant

Driven = tuple[Tensor, Tensor]
"""Scale and shift of one norm, (N, C) each, possibly with axes of length 1 in front."""


class DrivenNorm(nn.Module):
    """`AdaIN` that finds its scale and shift at `place` in the list it is driven by."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor, driven: Sequence[Driven]) -> Tensor:
        return driven_norm(x, *driven[self.place])


def driven_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Instance norm of (N, C, H, W) with (N, C) scales and shifts, as one norm over N * C channels."""
    flat = x.reshape(1, -1, *x.shape[2:])
    y = F.instance_norm(flat, weight=scale.reshape(-1), bias=shift.reshape(-1), eps=NORM_EPSILON)
    return y.reshape(x.shape)


class NormCollector:
    """Remembers the norms of a network in the order they are met, for its `DriverBank`."""

    def __init__(self) -> None:
        self.norms: list[tuple[AdaIN, ...]] = []

    def __call__(self, norm: AdaIN, _: Rewriter) -> DrivenNorm:
        """Rule for `AdaIN`."""
        return self.joint(norm)

    def joint(self, *parts: AdaIN) -> DrivenNorm:
        """One norm for a picture whose channels belong to several `AdaIN`, in this order."""
        self.norms.append(parts)
        return DrivenNorm(len(self.norms) - 1)


class DriverBank(nn.Module):
    """Driving vector (N, F) to the `Driven` of every norm, in the order of `norms`."""

    def __init__(self, norms: Sequence[tuple[AdaIN, ...]]) -> None:
        super().__init__()
        kinds = sorted({_widths(norm) for norm in norms})
        groups = [[norm for norm in norms if _widths(norm) == kind] for kind in kinds]
        ordered = [norm for group in groups for norm in group]
        self.places = [ordered.index(norm) for norm in norms]
        self.kinds = nn.ModuleList(_KindBank(group) for group in groups)
        first = [part.mlp_shared[0] for group in groups for part in _by_part(group)]
        self.hidden_weight = constant(torch.cat([layer.get_parameter("weight") for layer in first]))
        self.hidden_bias = constant(torch.cat([layer.get_parameter("bias") for layer in first]))
        self.sizes = [sum(map(len, group)) for group in groups]

    def forward(self, driver: Tensor) -> list[Driven]:
        hidden = F.relu(F.linear(driver, self.hidden_weight, self.hidden_bias))
        by_norm = hidden.reshape(-1, sum(self.sizes), AdaIN.HIDDEN).transpose(0, 1)
        driven: list[Driven] = []
        for kind, part in zip(self.kinds, torch.split(by_norm, self.sizes), strict=True):
            driven += kind(part)
        return [driven[place] for place in self.places]


class _KindBank(nn.Module):
    """Hidden layers (parts * norms, N, hidden), first parts first, to the `Driven` of equal norms."""

    def __init__(self, group: Sequence[tuple[AdaIN, ...]]) -> None:
        super().__init__()
        self.norms = len(group)
        columns = list(zip(*group, strict=True))
        self.weights = nn.ParameterList([constant(_outer_weights(column)) for column in columns])
        self.biases = nn.ParameterList([constant(_outer_biases(column)) for column in columns])

    def forward(self, hidden: Tensor) -> list[Driven]:
        parts = []
        for part, weight, bias in zip(
            torch.split(hidden, self.norms), self.weights, self.biases, strict=True
        ):
            outer = torch.matmul(part, weight) + bias
            parts.append(outer.reshape(self.norms, -1, 2, bias.shape[-1] // 2))
        rows = torch.cat(parts, dim=3).transpose(1, 2).flatten(0, 1)
        single = torch.split(rows, 1)
        return list(zip(single[::2], single[1::2], strict=True))


def _widths(norm: tuple[AdaIN, ...]) -> tuple[int, ...]:
    return tuple(part.mlp_gamma.out_features for part in norm)


def _by_part(group: Sequence[tuple[AdaIN, ...]]) -> list[AdaIN]:
    """All first parts, then all second parts."""
    return [part for column in zip(*group, strict=True) for part in column]


def _outer_weights(column: Sequence[AdaIN]) -> Tensor:
    """(norms, hidden, 2 * width): columns of the scales, then of the shifts."""
    return torch.stack([torch.cat([n.mlp_gamma.weight, n.mlp_beta.weight]).T for n in column])


def _outer_biases(column: Sequence[AdaIN]) -> Tensor:
    """(norms, 1, 2 * width), with the 1 that is added to every scale."""
    return torch.stack([torch.cat([n.mlp_gamma.bias + 1, n.mlp_beta.bias])[None] for n in column])
