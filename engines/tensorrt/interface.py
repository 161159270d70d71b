"""Inputs and outputs of a parsed network or a plan, compared with the spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's names of element types, and numpy's."""


def signature(dtype: Any, shape: Iterable[int]) -> str:
    """Element type and shape in one word, e.g. "float16 (-1, 3, 96, 96)"; -1 is a dynamic axis."""
    return f"{DTYPES.get(dtype.name, dtype.name)} {tuple(shape)}"


def differences(found: Mapping[str, Mapping[str, str]], spec: NetworkSpec) -> list[str]:
    """What is not as in `spec`, one sentence each.

    Args:
        found: `signature` by tensor name, under "input" and "output".
        spec: what was expected.
    """
    wrong = []
    for side, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        have, want = found[side], {tensor.name: _wanted(tensor) for tensor in tensors}
        wrong += [f"{side} '{name}' is missing" for name in want.keys() - have.keys()]
        wrong += [f"{side} '{name}' is not in the spec" for name in have.keys() - want.keys()]
        wrong += [
            f"{side} '{name}' is {have[name]}, expected {want[name]}"
            for name in want.keys() & have.keys()
            if have[name] != want[name]
        ]
    return sorted(wrong)


def _wanted(tensor: TensorSpec) -> str:
    return f"{tensor.dtype} {tuple(-1 if axis == BATCH else axis for axis in tensor.shape)}"
