"""Which kernels a plan fused, read from the plan's bytes without a GPU. Diagnostics only.

**Unofficial.** TensorRT documents no plan format. Its compiler's listing lies in the plan as text between
``main {`` and a line of ``}``, a line ``kind={ name=...`` per launch, and fused kernels are named after the
operators they join, ``Cast`` included. Seen in plans of TensorRT-RTX 1.7.1; another version may write nothing
of the kind, and then the census is empty. On a GPU, `ICudaEngine.create_engine_inspector` is the documented
way.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_LISTING = re.compile(r"\nmain \{(.*?)\n\}\n", re.DOTALL)
_LAUNCH = re.compile(r"^\s*(\w+)=\{ name=\"?([^\s\"]+)", re.MULTILINE)
_NOT_LAUNCHED = frozenset({"shape_call", "wait", "signal"})


@dataclass(frozen=True)
class PlanCensus:
    """Kernels of a plan.

    Attributes:
        nbytes: size of the plan.
        kernels: (kind, name) of every launch, in order. Kinds with "function" or "fusion" are generated
            kernels, others are library convolutions and matmuls, named after their ONNX node.
    """

    nbytes: int
    kernels: tuple[tuple[str, str], ...]

    @property
    def casts(self) -> int:
        """Launches that convert element types inside a fused kernel or by themselves."""
        return sum("Cast" in name for _, name in self.kernels)

    @property
    def pure_casts(self) -> int:
        """Launches that do nothing else than convert: memory traffic that a better recipe avoids."""
        return sum(_only_casts(name) for _, name in self.kernels)

    def names(self) -> dict[str, int]:
        """Launches by name, without the running number at its end."""
        return dict(Counter(re.sub(r"(_U?\d+)+$", "", name) for _, name in self.kernels).most_common())


def inspect_plan(plan: bytes) -> PlanCensus:
    """The census of a serialised plan; it is read as text, nothing is deserialised."""
    listing = "\n".join(_LISTING.findall(plan.decode("latin-1")))
    launches = [pair for pair in _LAUNCH.findall(listing) if pair[0] not in _NOT_LAUNCHED]
    return PlanCensus(len(plan), tuple(launches))


def _only_casts(name: str) -> bool:
    parts = re.findall(r"[A-Z][a-z]+", name.removeprefix("__myl_"))
    return "Cast" in parts and set(parts) <= {"Cast", "Move"}
