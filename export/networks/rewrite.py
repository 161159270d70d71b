"""Makes a deployable network from a plain one by replacing blocks and copying the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dubstream.export.networks.blocks import NORM_EPSILON


class Rewriter:
    """Copies a tree of modules, replacing those for which there is a rule.

    The plain blocks hand the driving vector on without looking at it, so a network's own `forward`
    stays valid when only its leaves are replaced.

    Args:
        rules: by exact type; a rule gets the plain module and this rewriter (for its parts) and
            returns the replacement. The outermost rule wins; nothing inside is visited for it.
    """

    def __init__(self, rules: Mapping[type[nn.Module], Callable[[Any, Rewriter], nn.Module]]) -> None:
        self._rules = rules

    def __call__(self, module: nn.Module) -> nn.Module:
        """The replacement or copy; shares no memory with `module`, wants no gradients, is in eval mode."""
        rule = self._rules.get(type(module))
        if rule is not None:
            return rule(module, self).eval()
        return twin(module, {name: self(child) for name, child in module.named_children()})


_Module = TypeVar("_Module", bound=nn.Module)


def twin(module: _Module, children: Mapping[str, nn.Module]) -> _Module:
    """A copy of `module` with its own tensors and the given children."""
    copied = copy.copy(module)
    copied.__dict__ = dict(module.__dict__)
    copied._parameters = {
        name: None if value is None else constant(value) for name, value in module._parameters.items()
    }
    copied._buffers = {
        name: None if value is None else value.clone() for name, value in module._buffers.items()
    }
    copied._modules = dict.fromkeys(module._modules) | dict(children)
    return copied.eval()


def constant(value: Tensor) -> nn.Parameter:
    """A private, contiguous copy of `value` that wants no gradient."""
    return nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)


def fixed_conv(
    weight: Tensor, bias: Tensor | None = None, *, stride: tuple[int, int] = (1, 1), padding: int = 0
) -> nn.Conv2d:
    """A convolution with the given constants; `weight` is (out, in, height, width)."""
    channels_out, channels_in, height, width = weight.shape
    with torch.device("meta"):
        conv = nn.Conv2d(channels_in, channels_out, (height, width), stride, padding, bias=bias is not None)
    conv.weight = constant(weight)
    conv.bias = None if bias is None else constant(bias)
    return conv


def folded_batch_norm(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes the batch norm after it, at inference.

    Computed in float64 and rounded once.
    """
    variance = norm.get_buffer("running_var").double()
    scale = norm.get_parameter("weight").double() / torch.sqrt(variance + NORM_EPSILON)
    mean = norm.get_buffer("running_mean").double()
    start = -mean if bias is None else bias.double() - mean
    column = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * column).float(), (start * scale + norm.get_parameter("bias").double()).float()


def merged_batch_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """A convolution and the batch norm after it, as one convolution of the same geometry."""
    weight, bias = folded_batch_norm(conv.weight, conv.bias, norm)
    stride, padding = (conv.stride[0], conv.stride[1]), int(conv.padding[0])
    return fixed_conv(weight, bias, stride=stride, padding=padding)
