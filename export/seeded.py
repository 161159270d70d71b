"""Reproducible stand-in weights and inputs, for everybody without the trained checkpoints.

`--weights seeded` fills a network from a documented rule instead of a file. Every value depends only
on the salt and on the tensor's own name and shape, so two implementations of one network can be
compared bit for bit without sharing a single weight file. The picture such a network produces is
noise; its speed, its memory and its numerical errors are those of the trained one.

The rule: a tensor called `name` of shape `s` starts from standard normal numbers `w`, drawn by
numpy's Philox generator whose key is the first 8 bytes (little endian) of SHA-256 of
``"<salt>:<name>"``. Then `leaf` being the part of the name after the last dot, the first case that
matches gives the value:

    integer buffer (num_batches_tracked)    0
    one of `SeedRule.fixed_buffers`         the constant it is defined as
    one of `SeedRule.zero_buffers`          0
    running_var                             1 + |w| / 10
    running_mean                            w / 10
    weight_v                                w / norm(w)
    weight_u                                so that the spectral norm it stands for is 1
    two or more dimensions                  gain * w / sqrt(fan in)
    leaf "weight"                           1 + w / 10
    anything else                           w / 10

Networks that hold per-channel scales of shape (n, 1, 1) treat those as one-dimensional; see
`SeedRule.channel_scales`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dubstream.engines.errors import UsageError

SALT = "retalk"
"""The salt of the published reference outputs."""

_WORKERS = 2  # numpy draws without the GIL; more threads than this only fight over memory
_Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SeedRule:
    """What differs between networks in the rule above.

    Attributes:
        channel_scales: shapes (n, 1, 1) are per-channel scales, not matrices (D-, L- and E-Net).
        gain: factor on the tensors of two or more dimensions; chosen so that activations neither
            explode nor vanish.
        gain_overrides: (regular expression, gain) pairs, searched in the full name; first match wins.
        fixed_buffers: (regular expression, values) pairs, searched likewise: buffers that no training
            changes. Values are rows of numbers.
        zero_buffers: regular expressions, searched likewise: buffers that are zero.
    """

    channel_scales: bool = True
    gain: float = 1.0
    gain_overrides: tuple[tuple[str, float], ...] = ()
    fixed_buffers: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...] = ()
    zero_buffers: tuple[str, ...] = ()

    def gain_of(self, name: str) -> float:
        """The gain of the tensor called `name`."""
        matches = (gain for pattern, gain in self.gain_overrides if re.search(pattern, name))
        return next(matches, self.gain)

    def constant_of(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """The value of a buffer that is not drawn; None for a tensor that is."""
        for pattern, values in self.fixed_buffers:
            if re.search(pattern, name):
                return torch.tensor(values).reshape(shape)
        if any(re.search(pattern, name) for pattern in self.zero_buffers):
            return torch.zeros(shape)
        return None


MAIN = SeedRule()
"""The rule of D-Net, L-Net and E-Net."""

AUXILIARY = SeedRule(channel_scales=False)
"""The rule of the other networks; `dataclasses.replace` it for one that needs a gain other than 1."""


def seeded_state(
    network: nn.Module | Mapping[str, Sequence[int]], rule: SeedRule = MAIN, *, salt: str = SALT
) -> dict[str, Tensor]:
    """A complete state dict by the rule of this module.

    Args:
        network: a module (its own keys and shapes are used), or shapes by name.
        rule: the network's variant of the rule.
        salt: text in front of every name; another salt gives another set of weights.

    Returns:
        float32 tensors (int64 zeros for `num_batches_tracked`) on the CPU, in the order given.

    Raises:
        UsageError: a `weight_u` without its `weight_orig` and `weight_v`.
    """
    shapes = _shapes(network)
    with ThreadPoolExecutor(_WORKERS) as pool:
        made = pool.map(lambda name: _value(name, shapes[name], rule, salt), shapes)
        state = dict(zip(shapes, made, strict=True))
    for name in shapes:
        if name.endswith("weight_u"):
            state[name] = _left_vector(name, state)
    return state


def seeded_input(
    network: str, name: str, shape: Sequence[int], low: float, high: float, *, salt: str = SALT
) -> Tensor:
    """Reproducible input: uniform in [low, high), drawn in float64 and rounded to float32.

    Args:
        network, name: short names of the network and of its input; they pick the numbers.
        shape: the tensor's shape, batch included.
        low, high: range of the values.
        salt: as for `seeded_state`.
    """
    drawn = _generator(f"{salt}:input:{network}:{name}").uniform(low, high, tuple(shape))
    return torch.from_numpy(drawn.astype(np.float32))


def _shapes(network: nn.Module | Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    if isinstance(network, nn.Module):
        return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return {name: tuple(shape) for name, shape in network.items()}


def _generator(text: str) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(key=key))


def _value(name: str, shape: tuple[int, ...], rule: SeedRule, salt: str) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    constant = rule.constant_of(name, shape)
    if constant is not None:
        return constant
    drawn = _generator(f"{salt}:{name}").standard_normal(shape).astype(np.float32)
    return torch.from_numpy(_shaped(drawn, name, leaf, rule))


def _shaped(drawn: _Array, name: str, leaf: str, rule: SeedRule) -> _Array:
    if leaf == "running_var":
        return 1 + np.float32(0.1) * np.abs(drawn)
    if leaf == "weight_v":
        return drawn / np.linalg.norm(drawn)
    channel_scale = rule.channel_scales and drawn.shape[1:] == (1, 1)
    if leaf not in ("running_mean", "weight_u") and drawn.ndim >= 2 and not channel_scale:
        drawn *= np.float32(rule.gain_of(name) / math.sqrt(math.prod(drawn.shape[1:])))
        return drawn
    small = np.float32(0.1) * drawn
    return 1 + small if leaf == "weight" else small


def _left_vector(name: str, state: Mapping[str, Tensor]) -> Tensor:
    """u = W v / |W v|², so that u . (W v) = 1 and the stored weight is the effective one."""
    stem = name.removesuffix("weight_u")
    try:
        weight, right = state[stem + "weight_orig"], state[stem + "weight_v"]
    except KeyError as missing:
        raise UsageError(f"'{name}' needs {missing} to be seeded, which the network does not have") from None
    image = weight.flatten(1).double() @ right.double()
    return (image / image.dot(image)).float()
