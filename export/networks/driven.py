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
    """Rule for `AdaIN`: remembers the norms in the order they are met, for the `DriverBank`."""

    def __init__(self) -> None:
        self.norms: list[AdaIN] = []

    def __call__(self, norm: AdaIN, _: Rewriter) -> DrivenNorm:
        self.norms.append(norm)
        return DrivenNorm(len(self.norms) - 1)


class DriverBank(nn.Module):
    """Driving vector (N, F) to the `Driven` of every norm, in the order of `norms`."""

    def __init__(self, norms: Sequence[AdaIN]) -> None:
        super().__init__()
        widths = sorted({norm.mlp_gamma.out_features for norm in norms})
        groups = [[n for n in norms if n.mlp_gamma.out_features == width] for width in widths]
        ordered = [norm for group in groups for norm in group]
        self.places = [ordered.index(norm) for norm in norms]
        self.sizes = [len(group) for group in groups]
        first = [norm.mlp_shared[0] for norm in ordered]
        self.hidden_weight = constant(torch.cat([layer.get_parameter("weight") for layer in first]))
        self.hidden_bias = constant(torch.cat([layer.get_parameter("bias") for layer in first]))
        self.weights = nn.ParameterList([constant(_outer_weights(group)) for group in groups])
        self.biases = nn.ParameterList([constant(_outer_biases(group)) for group in groups])

    def forward(self, driver: Tensor) -> list[Driven]:
        hidden = F.relu(F.linear(driver, self.hidden_weight, self.hidden_bias))
        by_norm = hidden.reshape(-1, sum(self.sizes), AdaIN.HIDDEN).transpose(0, 1)
        driven: list[Driven] = []
        for part, weight, bias in zip(
            torch.split(by_norm, self.sizes), self.weights, self.biases, strict=True
        ):
            driven += _pairs(torch.matmul(part, weight) + bias)
        return [driven[place] for place in self.places]


def _outer_weights(group: Sequence[AdaIN]) -> Tensor:
    """(norms, hidden, 2 * width): columns of the scales, then of the shifts."""
    return torch.stack([torch.cat([n.mlp_gamma.weight, n.mlp_beta.weight]).T for n in group])


def _outer_biases(group: Sequence[AdaIN]) -> Tensor:
    """(norms, 1, 2 * width), with the 1 that is added to every scale."""
    return torch.stack([torch.cat([n.mlp_gamma.bias + 1, n.mlp_beta.bias])[None] for n in group])


def _pairs(outer: Tensor) -> list[Driven]:
    """(norms, N, 2 * width) to scale and shift of each norm."""
    norms, _, both = outer.shape
    rows = outer.reshape(norms, -1, 2, both // 2).transpose(1, 2).reshape(2 * norms, -1, both // 2)
    single = torch.split(rows, 1)
    return [(single[2 * index], single[2 * index + 1]) for index in range(norms)]
