"""What the links of a chain are run on: seeded, adversarial and real inputs.

A constant picture has no variance: what an instance norm then divides by is rounding noise, and two correct
backends may differ visibly. Such probes are `amplifying` and judged by a rule of their own, see
`dubstream.export.verify.agreement`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.export.fidelity import Array, fidelity_cases

CHANNELS = (3, 6)  # one picture, or two of them in one tensor
_SMALLEST_SIDE = 8  # pixels; below, three numbers of something are no picture
LARGE_FLOW = 8.0
"""Factor on the driving window: D-Net's flow grows with it until its mapping saturates."""

SEEDED = "uniform"
"""The probe that is made anew from its seed anywhere."""

_PLAUSIBLE = (SEEDED, "real", "clip")


@dataclass(frozen=True)
class Probe:
    """Inputs of one run.

    Attributes:
        name: the kind and the batch, e.g. ``"real/2"``.
        inputs: arrays by input name, as the spec says.
        amplifying: whether correct backends may differ beyond the tolerance here.
    """

    name: str
    inputs: dict[str, Array]
    amplifying: bool = False

    @property
    def kind(self) -> str:
        """The name without the batch."""
        return self.name.partition("/")[0]

    @property
    def adversarial(self) -> bool:
        """Whether no picture looks like this."""
        return self.kind not in _PLAUSIBLE

    def first_item(self) -> Probe:
        """The same with its first item alone."""
        return Probe(f"{self.kind}/1", _items(self.inputs, 1), self.amplifying)


def probes(spec: NetworkSpec, real: Mapping[str, Array] | None, *, quick: bool = False) -> list[Probe]:
    """Inputs for a network in the domain of `spec`.

    Args:
        spec: names, dtypes, shapes and ranges.
        real: real inputs of at least one item; None where there are none.
        quick: the seeded and the real ones alone, one item each.

    Returns:
        Batches of three, two and one, so that a wrong batch axis cannot hide.
    """
    uniform, ends = fidelity_cases(spec)
    if quick:
        found = [_probe(SEEDED, _items(uniform.inputs, 1))]
        return found if real is None else [*found, _probe("real", _items(real, 1))]
    found = [_probe(SEEDED, uniform.inputs), _probe("ends", ends.inputs)]
    if real is not None:
        found.append(_probe("real", dict(real)))
    base = _items(uniform.inputs if real is None else real, 1)
    return found + _pictures(spec, base) + _signals(spec, base)


def is_picture(tensor: TensorSpec) -> bool:
    """Whether the tensor is planes (N, 3 or 6, H, W) or pixels (N, H, W, 3)."""
    if len(tensor.shape) != 4:
        return False
    first, second, last = (int(axis) for axis in tensor.shape[1:])
    sides = (first, second) if last in CHANNELS else (second, last)
    return (first in CHANNELS or last in CHANNELS) and min(sides) >= _SMALLEST_SIDE


def ends_of(tensor: TensorSpec) -> tuple[float, float]:
    """The tensor's range, -1 to 1 where it is unbounded."""
    return (-1.0 if tensor.low is None else tensor.low, 1.0 if tensor.high is None else tensor.high)


def _pictures(spec: NetworkSpec, base: Mapping[str, Array]) -> list[Probe]:
    shown = [tensor for tensor in spec.inputs if is_picture(tensor)]
    if not shown:
        return []
    kinds: tuple[tuple[str, Callable[[TensorSpec], Array], bool], ...] = (
        ("constant", lambda tensor: _filled(tensor, sum(ends_of(tensor)) / 2), True),
        ("saturated", lambda tensor: _filled(tensor, ends_of(tensor)[1]), True),
        ("checkerboard", _checkerboard, True),
    )
    return [
        _probe(name, {**base, **{tensor.name: make(tensor) for tensor in shown}}, amplifying)
        for name, make, amplifying in kinds
    ]


def _signals(spec: NetworkSpec, base: Mapping[str, Array]) -> list[Probe]:
    found = []
    for tensor in spec.inputs:
        if tensor.name == "mel":
            low, high = ends_of(tensor)
            found.append(_probe("silence", {**base, "mel": _filled(tensor, low)}))
            found.append(_probe("full scale", {**base, "mel": _filled(tensor, high)}))
        if tensor.name == "coefficients":
            driven = (base["coefficients"] * LARGE_FLOW).astype(tensor.dtype)
            found.append(_probe("large flow", {**base, "coefficients": driven}))
    return found


def _probe(name: str, inputs: dict[str, Array], amplifying: bool = False) -> Probe:
    items = len(next(iter(inputs.values())))
    return Probe(f"{name}/{items}", inputs, amplifying)


def _items(inputs: Mapping[str, Array], count: int) -> dict[str, Array]:
    return {name: values[:count] for name, values in inputs.items()}


def _filled(tensor: TensorSpec, value: float) -> Array:
    return np.full(tensor.concrete(1), value, tensor.dtype)


def _checkerboard(tensor: TensorSpec) -> Array:
    """Single pixels in turn at the low and the high end: the finest pattern there is."""
    low, high = ends_of(tensor)
    shape = tensor.concrete(1)
    rows, columns = (1, 2) if shape[3] in CHANNELS else (2, 3)
    parity = np.indices(shape)[rows] + np.indices(shape)[columns]
    return np.where(parity % 2, high, low).astype(tensor.dtype)


def clip_inputs(
    spec: NetworkSpec, real: Mapping[str, Array] | None, frames: Sequence[Array]
) -> dict[str, Array]:
    """`real` with every picture replaced by the middle of the frames, as large as its form allows.

    Args:
        spec: of pixels, (N, H, W, 3) uint8; other pictures stay those of `real`.
        real: what the network's other inputs are taken from.
        frames: uint8 BGR (height, width, 3), at least one.
    """
    import cv2

    inputs = dict(real or {})
    count = len(frames)
    for tensor in spec.inputs:
        if tensor.dtype == "uint8" and is_picture(tensor):
            height, width = int(tensor.shape[1]), int(tensor.shape[2])
            inputs[tensor.name] = np.stack(
                [
                    cv2.resize(_middle(frame, width / height), (width, height), interpolation=cv2.INTER_AREA)
                    for frame in frames
                ]
            )
    repeated = {name: np.resize(values, (count, *values.shape[1:])) for name, values in inputs.items()}
    return {tensor.name: repeated[tensor.name] for tensor in spec.inputs}


def _middle(frame: Array, aspect: float) -> Array:
    """The largest centred part that is `aspect` times as wide as high."""
    height, width = frame.shape[:2]
    high, wide = min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect)))
    top, left = (height - high) // 2, (width - wide) // 2
    return frame[top : top + high, left : left + wide]
