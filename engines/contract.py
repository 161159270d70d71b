"""What a network is, for everybody who does not need to know torch.

A `NetworkSpec` is the one declaration both sides read: `export/` produces an ONNX file that fits it,
`runtime/` fills buffers by it, tests check against it. Adding a network is one spec here, one module
in `export/networks/` and one recipe in `export/recipes.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import ArtifactError, UsageError

BATCH = "batch"
"""The only symbolic axis; it is always axis 0."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: the tensor's name in the ONNX graph.
        dtype: numpy name of the element type, e.g. ``"float32"``.
        shape: axis lengths; axis 0 is `BATCH`.
        low, high: range of valid values, both included; None where unbounded.
        meaning: layout, colour order and unit, for people.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: float | None
    high: float | None
    meaning: str

    def concrete(self, batch: int) -> tuple[int, ...]:
        """The shape for a batch of `batch` items."""
        return tuple(batch if axis == BATCH else int(axis) for axis in self.shape)

    def nbytes(self, batch: int) -> int:
        """Bytes of the tensor for a batch of `batch` items."""
        return int(np.prod(self.concrete(batch))) * np.dtype(self.dtype).itemsize

    def check(self, array: npt.NDArray[Any]) -> None:
        """Raise `UsageError` unless `array` has this dtype and, apart from the batch, this shape."""
        want = self.concrete(array.shape[0]) if array.ndim else self.concrete(1)
        if array.shape != want or array.dtype != np.dtype(self.dtype):
            raise UsageError(
                f"tensor '{self.name}': received {array.dtype} {array.shape}, "
                f"expected {self.dtype} {self.shape}"
            )


@dataclass(frozen=True)
class Tolerance:
    """How far an output of an exported network may be from its PyTorch original.

    Attributes:
        max_abs: largest absolute difference, in the output's unit.
        cosine: smallest cosine similarity of the flattened outputs.
        reason: why these figures.
        relative_l2: largest norm of the difference over the norm of the original; None: not asked.
        psnr: smallest peak signal-to-noise ratio in decibels; None: not asked. The peak is the width of
            the output's range, or of the original's values where the range is unbounded.
    """

    max_abs: float
    cosine: float
    reason: str
    relative_l2: float | None = None
    psnr: float | None = None


@dataclass(frozen=True)
class NetworkSpec:
    """Name, tensors, batch range, tolerances and cost of one network.

    Attributes:
        name: short name, also the file stem of its artifacts.
        title: what it does, for people.
        inputs, outputs: tensors in graph order.
        max_batch: the largest batch engines are built for.
        tolerances: per output name, for float32 exports.
        checkpoint: file name of the public checkpoint.
        gmacs: 1e9 multiply-accumulates per item, as exported (dead branches dropped).
        licence: licence of the public checkpoint, for `dubstream doctor`.
    """

    name: str
    title: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    tolerances: dict[str, Tolerance]
    gmacs: float
    checkpoint: str
    licence: str

    def __post_init__(self) -> None:
        for tensor in self.inputs + self.outputs:
            if not tensor.shape or tensor.shape[0] != BATCH or BATCH in tensor.shape[1:]:
                raise ArtifactError(f"{self.name}.{tensor.name}: axis 0, and only it, must be '{BATCH}'")
        if set(self.tolerances) != {tensor.name for tensor in self.outputs}:
            raise ArtifactError(f"{self.name}: every output needs a tolerance, and nothing else does")

    def input(self, name: str) -> TensorSpec:
        """The input called `name`; KeyError when there is none."""
        return {tensor.name: tensor for tensor in self.inputs}[name]

    def output(self, name: str) -> TensorSpec:
        """The output called `name`; KeyError when there is none."""
        return {tensor.name: tensor for tensor in self.outputs}[name]

    def as_json(self) -> dict[str, Any]:
        """A plain, JSON-serialisable form; equal specs give equal dictionaries."""
        plain: dict[str, Any] = asdict(self)
        for side in ("inputs", "outputs"):
            plain[side] = [{**tensor, "shape": list(tensor["shape"])} for tensor in plain[side]]
        return plain
