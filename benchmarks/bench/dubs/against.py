"""Dubs as cases of a base file: is a stage slower than it was, or only the machine?

A dub is one round. Before every dub, and behind the last, the machine's peaks are measured; the anchors of
a dub are the means of those around it. Each stage gives one sample a dub, its busy time per output frame,
so an interval takes `MIN_SAMPLES` dubs. Stages of less than `LEAST_MS` a frame are left out: the clock and
the scheduler decide about them, and nobody waits for them. Stages share their process, so there is no
CPU time of a stage: the wall's clock decides, whatever else the machine does.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from time import perf_counter, process_time
from typing import Any

from dubstream.benchmarks.bench.dubs.dub import STANDARD, DubBench
from dubstream.benchmarks.bench.method.base import (
    KEPT,
    SLOWER,
    Verdict,
    check_machine,
    held_against,
    load_base,
    save_base,
    slower,
)
from dubstream.benchmarks.bench.method.results import MeasuredCase, Results
from dubstream.benchmarks.bench.method.show import show_verdicts
from dubstream.benchmarks.bench.method.statistics import MIN_SAMPLES, Samples, Work
from dubstream.benchmarks.bench.networks.peaks import CONV, COPY, Peak, PeakSizes, opened_peaks
from dubstream.benchmarks.rows import gpu, machine
from dubstream.engines.errors import UsageError, VerificationError
from dubstream.engines.onnxruntime_engine import usable_cpus
from dubstream.engines.specs import SPECS
from dubstream.runtime.cli.show import log
from dubstream.runtime.options.dub import DubOptions
from dubstream.runtime.platforms.platform import open_platform

LEAST_MS = 1.0
TIMES = 3
"""Runs of a peak each time it is measured."""


class Anchors:
    """Measures how fast the machine is, each time it is called.

    Args:
        options: of the dubs; peaks run where their networks run.
        sizes: of the peaks; None for those of the device.
    """

    def __init__(self, options: DubOptions, sizes: PeakSizes | None = None) -> None:
        self._options, self._sizes = options, sizes
        self._s_per_mac: list[float] = []
        self._s_per_byte: list[float] = []
        self._cpu_shares: list[float] = []

    def __call__(self) -> None:
        """Measure now; the device's memory is free again afterwards. Raises `DeviceError`."""
        backend, stream = self._options.backend, self._options.stream
        with (
            open_platform(backend, stream) as platform,
            opened_peaks(
                platform.device,
                threads=stream.threads or usable_cpus(),
                on_gpu=backend.device if backend.on_gpu else None,
                sizes=self._sizes,
            ) as peaks,
        ):
            found = {peak.name: peak for peak in peaks}
            wall_s, cpu_s = _seconds(found[CONV])
            self._s_per_mac.append(wall_s / found[CONV].macs)
            self._cpu_shares.append(cpu_s / wall_s / (stream.threads or usable_cpus()))
            self._s_per_byte.append(_seconds(found[COPY])[0] / found[COPY].nbytes)

    @property
    def cpu_share(self) -> float:
        """How much of its threads' time the convolution really ran on the CPU, median."""
        return median(self._cpu_shares)

    def around(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Seconds per multiply-accumulate and per byte, one of each for what ran between two calls."""
        return _means(self._s_per_mac), _means(self._s_per_byte)


class DubComparison:
    """`--save`, `--against`: checked before the work, judged after it; nothing is measured without them.

    Args:
        options: of the dubs.
        save, against: base files; None without.
        max_slowdown: above which a stage is slower.

    Raises:
        UsageError: no base file there, or one of another machine; `max_slowdown` not above 1.
    """

    def __init__(
        self,
        options: DubOptions,
        save: Path | None,
        against: Path | None,
        max_slowdown: float,
        *,
        sizes: PeakSizes | None = None,
    ) -> None:
        if not max_slowdown > 1:
            raise UsageError(f"--max-slowdown received {max_slowdown:g}, expected more than 1")
        backend = options.backend
        device = gpu(backend.device) if backend.on_gpu else {}
        self.facts = {**machine(), **device, "threads": options.stream.threads or usable_cpus()}
        self._anchors = Anchors(options, sizes) if save or against else None
        self._save, self._max_slowdown = save, max_slowdown
        self._base = None if against is None else load_base(against)
        self._verdicts: list[Verdict] = []
        if self._base is not None:
            for note in check_machine(self._base, self.facts):
                log.print(f"[yellow]{note}", soft_wrap=True)

    def before_each(self) -> None:
        """Measure the machine, where its speed is needed. Raises `DeviceError`."""
        if self._anchors is not None:
            self._anchors()

    def finish(self, bench: DubBench) -> list[dict[str, Any]]:
        """Save, compare; a row per case compared. Raises `StorageError`."""
        if self._anchors is not None:
            results = Results(self.facts)
            results.cases.update(dub_cases(bench, self._anchors))
            if self._save is not None:
                save_base(self._save, results)
            if self._base is not None:
                self._verdicts = held_against(self._base, results, self._max_slowdown)
        return [verdict.as_json() for verdict in self._verdicts]

    def show(self) -> None:
        """Print the comparison, if there is one."""
        if self._verdicts:
            show_verdicts(self._verdicts, self._max_slowdown)

    def judge(self) -> None:
        """Raise `VerificationError` when a stage is slower, or when there was nothing to judge by."""
        if self._base is not None and not {KEPT, SLOWER} & {one.outcome for one in self._verdicts}:
            raise VerificationError(
                f"no stage could be judged: {', '.join(sorted({one.outcome for one in self._verdicts}))}",
                hint=f"--repeats {MIN_SAMPLES} or more, with the base's name, backend, batch and slots",
            )
        findings = list(slower(self._verdicts))
        if findings:
            more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
            raise VerificationError(f"{findings[0]}{more}", hint="the report names all")


def dub_cases(bench: DubBench, anchors: Anchors) -> dict[str, MeasuredCase]:
    """The whole dub and its stages, by name, backend and stream; seconds per output frame."""
    macs, nbytes = anchors.around()
    setting = bench.setting
    # Spaces, where a table may break the line.
    where = f"{setting['backend']} {setting['precision']} batch {setting['batch']} slots {setting['slots']}"
    where += "".join(
        f" {name} {setting[name]}" for name, usual in STANDARD.items() if setting.get(name, usual) != usual
    )
    return {
        f"dub/{bench.name}{stage} {where}": MeasuredCase(
            work=_work(stage), cpu_share=anchors.cpu_share, wall=Samples(seconds, macs, nbytes), cpu=None
        )
        for stage, seconds in _samples(bench)
    }


def _samples(bench: DubBench) -> Iterator[tuple[str, tuple[float, ...]]]:
    runs = [run.summary for run in bench.runs]
    yield "", tuple(run.wall_s / run.frames for run in runs)
    for stage in bench.stages:
        seconds = tuple(run.busy_s.get(stage.stage, 0.0) / run.frames for run in runs)
        if min(seconds) >= 1e-3 * LEAST_MS:
            yield f"/{stage.stage}", seconds


def _work(stage: str) -> Work:
    """How anchors are weighed; only their proportion counts: copies follow memory, the rest arithmetic."""
    if stage.endswith(("/upload", "/download")):
        return Work(0.0, 1.0)
    name = stage.rpartition("/")[2]
    return Work(1e9 * SPECS[name].gmacs if name in SPECS else 1.0, 0.0)


def _seconds(peak: Peak) -> tuple[float, float]:
    """Medians of wall time and of the process's CPU time."""
    peak.run()
    wall_s, cpu_s = [], []
    for _ in range(TIMES):
        began, worked = perf_counter(), process_time()
        peak.run()
        wall_s.append(perf_counter() - began)
        cpu_s.append(process_time() - worked)
    return median(wall_s), median(cpu_s)


def _means(values: list[float]) -> tuple[float, ...]:
    return tuple(fmean(pair) for pair in pairwise(values))
