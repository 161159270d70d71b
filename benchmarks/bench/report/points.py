"""What rows of measurements are about, machine by machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Machine:
    """Where rows were measured: a processor and its cores in use, the GPU if there was one."""

    cpu: str
    cores: int
    gpu: str | None = None

    @property
    def title(self) -> str:
        """In words."""
        host = f"{self.cpu}, {self.cores} core{'' if self.cores == 1 else 's'}"
        return host if self.gpu is None else f"{self.gpu} ({host})"


@dataclass(frozen=True)
class NetworkPoint:
    """One network, variant and batch.

    Attributes:
        network, variant: e.g. ``enet`` and ``eager``, or ``engine/onnxruntime``.
        precision: of the artifact; "" where the row does not say.
        batch, threads: of the call; threads None where the row does not say.
        n: samples.
        ms, low_ms, high_ms: of one call: median, and 5th and 95th percentile.
        gflops: 10^9 floating-point operations per second (two for a multiply-accumulate) that the
            network needs; a variant that does more, such as dead branches, is not given credit for it.
        row: all of it.
    """

    network: str
    variant: str
    precision: str
    batch: int
    threads: int | None
    n: int
    ms: float
    low_ms: float
    high_ms: float
    gflops: float
    row: Row = field(repr=False)

    @property
    def items_per_s(self) -> float:
        """Throughput."""
        return 1e3 * self.batch / self.ms

    @property
    def label(self) -> str:
        """Variant, with its precision where the row says."""
        return f"{self.variant} {self.precision}".strip()


@dataclass(frozen=True)
class StagePoint:
    """One stage of a dub: milliseconds per output frame, share of busy time, a batch's percentiles."""

    stage: str
    ms_per_frame: float
    share: float
    batch_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Dub:
    """One dub and its stages, slowest first."""

    clip: str
    frames: int
    fps: float
    wall_over_slowest: Mapping[str, float | None]
    stages: tuple[StagePoint, ...]
    row: Row = field(repr=False)


@dataclass(frozen=True)
class FidelityPoint:
    """How far one artifact is from its PyTorch network, worst of all test cases.

    Attributes:
        network, precision: of the artifact.
        cases: test cases times outputs.
        max_abs, tolerance_share: largest difference; the largest share of its tolerance that was used.
        cosine, relative_l2: worst of the cases.
        psnr: worst in decibels; None without noise.
    """

    network: str
    precision: str
    cases: int
    max_abs: float
    tolerance_share: float
    cosine: float
    relative_l2: float
    psnr: float | None
    row: Row = field(repr=False)


@dataclass(frozen=True)
class PeakPoint:
    """What the machine reaches on something large and simple: GFLOP/s, or GB/s of a copy."""

    name: str
    unit: str
    median: float
    n: int
    row: Row = field(repr=False)


@dataclass(frozen=True)
class NotMeasured:
    """Something that was not timed: lacking here, or wrong.

    Attributes:
        stage, batch: what; batch "" where the row does not say.
        failed: its result was wrong; else it could not be run.
        reason: why.
    """

    stage: str
    batch: str
    failed: bool
    reason: str


@dataclass(frozen=True)
class Comparison:
    """One case held against a saved base: the word for the outcome, the slowdown and its interval."""

    case: str
    outcome: str
    slowdown: tuple[float, float, float] | None


Point = NetworkPoint | Dub | FidelityPoint | PeakPoint
P = TypeVar("P", NetworkPoint, Dub, FidelityPoint, PeakPoint)


@dataclass
class Findings:
    """What some rows say, by machine; of equal cases the one read last.

    Attributes:
        points: machine and case to what was measured; fidelity belongs to the artifact, not to a machine.
        not_measured: what rows say could not be timed.
        comparisons: with saved bases.
        skipped: why rows were left out, and how many.
    """

    points: dict[tuple[Machine | None, tuple[Any, ...]], Point] = field(default_factory=dict)
    not_measured: list[NotMeasured] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def machines(self) -> list[Machine]:
        """All machines, in order of their first row."""
        return list(dict.fromkeys(machine for machine, _ in self.points if machine is not None))

    def of(self, machine: Machine, kind: type[P]) -> list[P]:
        """What was measured of one kind on one machine."""
        return [
            point for (where, _), point in self.points.items() if where == machine and isinstance(point, kind)
        ]

    def all(self, kind: type[P]) -> list[P]:
        """What was measured of one kind anywhere."""
        return [point for point in self.points.values() if isinstance(point, kind)]
