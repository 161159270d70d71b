"""What a bench of networks is to measure; checked when made, light to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from dubstream.benchmarks.bench.method.rounds import Stop
from dubstream.engines.errors import UsageError
from dubstream.engines.onnxruntime_engine import usable_cpus
from dubstream.engines.specs import CORE, SPECS
from dubstream.runtime.options.backend import HOST, Backend

BASELINE_NAMES = ("eager", "compile", "naive", "driver")
BATCHES = (1, 2, 4, 8, 16)
REPEATS = 20
"""Enough for the tests' synthetic runs: a slowdown of 1.3 is found, none is reported where there is none."""


@dataclass(frozen=True)
class BenchOptions:
    """One bench of networks.

    Attributes:
        networks: names, in the order they are measured.
        batches: items per call; those above a network's limit become rows that say so.
        backends: each with its precision; all on the host, or all on GPUs.
        threads: of one run on the CPU.
        stop: how many rounds.
        baselines: of `BASELINE_NAMES`.
        first_calls: measure opening, first run and memory in processes of their own.
        checkpoints: folder of public checkpoints, for the PyTorch side of artifacts made of them.
        naive_folder: keeps naive exports between runs; None for the cache.

    Raises:
        UsageError: an unknown network or baseline, a number out of range, backends that cannot be compared.
    """

    networks: tuple[str, ...] = CORE
    batches: tuple[int, ...] = BATCHES
    backends: tuple[Backend, ...] = (Backend(),)
    threads: int = field(default_factory=usable_cpus)
    stop: Stop = field(default_factory=lambda: Stop(REPEATS))
    baselines: tuple[str, ...] = ()
    first_calls: bool = True
    checkpoints: Path | None = None
    naive_folder: Path | None = None

    def __post_init__(self) -> None:
        _known("--network", self.networks, tuple(SPECS))
        _known("--baseline", self.baselines, BASELINE_NAMES)
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"--batch received {list(self.batches)}, expected numbers from 1")
        if self.threads < 1:
            raise UsageError(f"--threads received {self.threads}, expected 1 or more")
        if self.stop.repeats < 1 or (self.stop.seconds is not None and not self.stop.seconds > 0):
            raise UsageError(
                f"--repeats {self.stop.repeats}, --seconds {self.stop.seconds}: expected at least 1, above 0"
            )
        if len({(backend.on_gpu, backend.device) for backend in self.backends}) != 1:
            raise UsageError(
                f"--backend received {', '.join(backend.name for backend in self.backends)}, expected those "
                "of one device: milliseconds of a CPU and of a GPU compare nothing"
            )

    @property
    def on_gpu(self) -> int | None:
        """Number of the CUDA device; None on the host."""
        return self.backends[0].device if self.backends[0].on_gpu else None

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of the artifacts that are needed, each once."""
        return tuple(dict.fromkeys(backend.precision for backend in self.backends))


def parse_batches(text: str) -> tuple[int, ...]:
    """``1,2,4`` as numbers, each once; `UsageError` for anything else."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"--batch received '{text}', expected numbers, e.g. 1,2,4") from None


def parse_backends(names: Sequence[str], precisions: Sequence[str], device: int) -> tuple[Backend, ...]:
    """Every backend in every precision; the host's, and a backend's own precision, without any."""
    wanted: list[str | None] = [*dict.fromkeys(precisions)]
    pairs = product(dict.fromkeys(names or [HOST]), wanted or [None])
    return tuple(Backend(name, device, precision) for name, precision in pairs)


def _known(option: str, received: Sequence[str], expected: Sequence[str]) -> None:
    wrong = [name for name in received if name not in expected]
    if wrong or (option == "--network" and not received):
        raise UsageError(f"{option} received '{', '.join(wrong)}', expected some of {', '.join(expected)}")
