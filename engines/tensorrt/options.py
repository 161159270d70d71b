"""How a plan is built; everything here that can change the plan is part of its key in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import UsageError

COMPATIBILITY = ("none", "ampere_plus", "same_compute_capability")


@dataclass(frozen=True)
class Profile:
    """The batch range of a plan: TensorRT times its kernels at `optimum`."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise UsageError(
                f"batch profile {self.minimum}, {self.optimum}, {self.maximum}, "
                "expected 1 <= minimum <= optimum <= maximum"
            )


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Settings of the TensorRT builder.

    Attributes:
        optimum_batch: batch the kernels are timed at; lowered to the largest batch where that is smaller.
        max_batch: largest batch; None takes the spec's.
        optimisation_level: 0 (quick build) to 5 (exhaustive); 3 is TensorRT's own default.
        workspace_bytes: most scratch memory a kernel may ask for.
        tf32: lets FP32 matmuls and convolutions round their inputs to 10 mantissa bits, as FP16 does.
            Off, so that an FP32 island is FP32.
        hardware_compatibility: one of `COMPATIBILITY`; all but "none" trade speed for reach.
        aux_streams: helper streams inside the plan; None leaves it to TensorRT.
        timing_cache: file with kernel timings of this device and version; only speeds builds up.
        device: CUDA ordinal to build on; None takes the thread's current one.
    """

    optimum_batch: int = 8
    max_batch: int | None = None
    optimisation_level: int = 3
    workspace_bytes: int = 4 << 30
    tf32: bool = False
    hardware_compatibility: str = "none"
    aux_streams: int | None = None
    timing_cache: Path | None = None
    device: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.optimisation_level <= 5:
            raise UsageError(f"optimisation level {self.optimisation_level}, expected 0 to 5")
        if self.workspace_bytes < 1 << 20:
            raise UsageError(f"workspace of {self.workspace_bytes} bytes, expected at least 1 MiB")
        if self.hardware_compatibility not in COMPATIBILITY:
            raise UsageError(
                f"hardware compatibility '{self.hardware_compatibility}', "
                f"expected one of {', '.join(COMPATIBILITY)}"
            )

    def profile(self, spec: NetworkSpec) -> Profile:
        """Batch 1, the optimum and the maximum for `spec`; UsageError when they are out of order."""
        largest = spec.max_batch if self.max_batch is None else self.max_batch
        return Profile(1, min(self.optimum_batch, largest), largest)

    def as_key(self, spec: NetworkSpec) -> dict[str, Any]:
        """What of these options can change the plan of `spec`, JSON-serialisable."""
        profile = self.profile(spec)
        return {
            "profiles": [[profile.minimum, profile.optimum, profile.maximum]],
            "optimisation_level": self.optimisation_level,
            "workspace_bytes": self.workspace_bytes,
            "tf32": self.tf32,
            "hardware_compatibility": self.hardware_compatibility,
            "aux_streams": self.aux_streams,
        }
