"""Precision recipes: which numbers a network is exported in, which modules keep float32, and why.

A recipe turns the tensors of a deployable network to half precision, those of its islands excepted. An
island is a module that computes in float32 whatever comes in: its `forward` says so with `.float()` at
its entry and `.to(...)` at its exit, both of which vanish from a float32 graph. The graph holds the types;
no flag of any backend decides about precision.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dubstream.engines.errors import FidelityError, InternalError, UsageError
from dubstream.engines.half_specs import HALVES
from dubstream.engines.recipe_versions import FP32_RECIPE, RECIPE_VERSIONS

if TYPE_CHECKING:
    from torch import Tensor, nn

FP32 = "fp32"
PRECISIONS = (FP32, *HALVES)

ISLAND_HINT = "use --precision fp32, or make the module an island of its recipe in export/precision.py"


@dataclass(frozen=True)
class Island:
    """Modules that stay float32.

    Attributes:
        where: name of a class, or a regular expression for the whole dotted path of a module inside the
            deployable network.
        reason: why half precision would not do.
    """

    where: str
    reason: str

    def holds(self, path: str, module: nn.Module) -> bool:
        """Whether `module`, found at `path`, is such an island."""
        return type(module).__name__ == self.where or re.fullmatch(self.where, path) is not None


@dataclass(frozen=True)
class PrecisionRecipe:
    """How a network gets its precision.

    Attributes:
        name, version: identity, recorded in the sidecar; the version is the one in
            `dubstream.engines.recipe_versions`.
        precision: the word in the artifact's file name.
        dtype: torch's name of the element type outside islands.
        limit: magnitudes from here on are refused in the range audit and in weights.
        opset: version of the ONNX operators.
        islands: what stays float32.
    """

    name: str
    version: int
    precision: str
    dtype: str
    limit: float
    opset: int
    islands: tuple[Island, ...] = ()

    def apply(self, network: nn.Module) -> None:
        """Convert the floating-point tensors of a deployable network in place, islands excepted.

        Raises:
            InternalError: an island that is nowhere in the network: recipe and network do not fit.
            FidelityError: a weight that half precision cannot hold; names it.
        """
        kept = set(self._kept(network))
        for path, module in network.named_modules():
            if path not in kept:
                self._convert(path, module)

    def _convert(self, path: str, module: nn.Module) -> None:
        import torch

        for name, tensor in _own_tensors(module):
            if tensor.is_floating_point():
                peak = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
                if not peak < self.limit:
                    raise FidelityError(
                        f"weight {path}.{name} reaches {peak:.3g}, expected less than {self.limit:.0e}",
                        hint=ISLAND_HINT,
                    )
                tensor.data = tensor.data.to(getattr(torch, self.dtype))

    def _kept(self, network: nn.Module) -> Iterator[str]:
        """Paths of all islands and of everything inside them."""
        modules = dict(network.named_modules())
        for island in self.islands:
            roots = [path for path, module in modules.items() if island.holds(path, module)]
            if not roots:
                raise InternalError(f"recipe {self.name}: no module '{island.where}' in the network")
            yield from (path for path in modules for root in roots if f"{path}.".startswith(f"{root}."))


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


OPSET = 20
"""Has GridSample for every case we need; TensorRT 10.13 parses it."""

OPSET_BF16 = 22
"""The first whose convolutions take bfloat16; from 23 on, TensorRT refuses what attention becomes."""

AS_TRAINED = PrecisionRecipe(FP32_RECIPE, RECIPE_VERSIONS[FP32_RECIPE], FP32, "float32", math.inf, OPSET)

_NORM = Island("FixedPictureNorm", "sums of squares over up to four million values leave float16's range")
_STYLE = Island("Modulation", "sums of squares; float16 rounds the epsilon under the root to zero")
_PIXELS = Island("Decode", "float16 stores a coordinate of 512 pixels in steps of half a pixel")
_ISLANDS: dict[str, tuple[Island, ...]] = {
    "dnet": (
        Island("mapping", "its inputs hold pixel positions, which float16 stores in steps of an eighth"),
        Island("Warp", "a float16 coordinate grid is off by 0.06 pixels at 256: 41 to 52 dB by itself"),
        _NORM,
    ),
    "lnet": (_NORM,),
    "enet": (_STYLE,),
    "recon": (Island("Heads", "alignment needs all digits of the coefficients; a 50 000th of the work"),),
    "s3fd": (Island("UnitLength", "sums of squares over up to 512 channels leave float16's range"), _PIXELS),
    "retinaface": (_PIXELS,),
    "fan4": (),
    "gfpgan": (_STYLE,),
    "gpen": (_STYLE, Island("UnitCode", "a sum of squares with an epsilon that float16 rounds to zero")),
    "parsenet": (
        Island("Body", "ten blocks in a row make half of the rounding, with a fifteenth of the work"),
        Island("Masks", "a softmax of logits whose differences decide what is a face"),
    ),
    "ganimation": (),
}
_MORE_ISLANDS = {
    ("dnet", "bf16"): (
        Island("TransposedConv", "TensorRT's compiler has no bfloat16 transposed convolution"),
    )
}
"""Where one precision needs more than the others."""

_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
_OPSETS = {"fp16": OPSET, "bf16": OPSET_BF16}
_LIMITS = {"fp16": 3e4, "bf16": 1e37}
"""Half of what float16 can hold: other inputs may go further. bfloat16 reaches as far as float32."""

HALF_RECIPES = {
    (network, precision): PrecisionRecipe(
        f"{network}-{precision}",
        RECIPE_VERSIONS[f"{network}-{precision}"],
        precision,
        _DTYPES[precision],
        _LIMITS[precision],
        _OPSETS[precision],
        (*islands, *_MORE_ISLANDS.get((network, precision), ())),
    )
    for precision in HALVES
    for network, islands in _ISLANDS.items()
}
"""By network and precision."""


def recipe_of(network: str, precision: str) -> PrecisionRecipe:
    """The recipe of a network in a precision; `UsageError` where there is none."""
    if precision == FP32:
        return AS_TRAINED
    if (network, precision) not in HALF_RECIPES:
        raise UsageError(
            f"no recipe for {network} in precision '{precision}', expected one of {', '.join(PRECISIONS)}"
        )
    return HALF_RECIPES[network, precision]
