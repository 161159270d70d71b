"""The networks: checked against PyTorch, then timed in turn with their baselines and the machine's peaks.

A variant whose result is not the reference's is not timed. One round runs the peaks and then every variant
once, so a ratio compares neighbours in time, and every sample has the speed the machine had beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dubstream.benchmarks.bench.method.results import MeasuredCase, Results
from dubstream.benchmarks.bench.method.rounds import Series, measure_rounds
from dubstream.benchmarks.bench.method.statistics import Work, paired_ratio
from dubstream.benchmarks.bench.networks import variants as kinds
from dubstream.benchmarks.bench.networks.cost import NetworkCost, network_cost
from dubstream.benchmarks.bench.networks.first_call import FirstCall, measured_apart
from dubstream.benchmarks.bench.networks.options import BenchOptions
from dubstream.benchmarks.bench.networks.peaks import (
    COPY,
    MeasuredPeaks,
    Peak,
    PeakSizes,
    cpu_share,
    opened_peaks,
    reached,
    samples_beside,
)
from dubstream.benchmarks.bench.networks.pytorch import (
    PlainNetwork,
    UnavailableError,
    close_to,
    torch_threads,
)
from dubstream.benchmarks.bench.networks.sessions import cpu_session
from dubstream.benchmarks.bench.networks.variants import Arrays, Variant
from dubstream.engines.artifact import Artifact
from dubstream.engines.cache import cache_root
from dubstream.engines.engine import Engine
from dubstream.engines.errors import DeviceError
from dubstream.engines.storage import make_private_folder
from dubstream.runtime.options.dub import StreamOptions
from dubstream.runtime.platforms.platform import Platform, open_platform
from dubstream.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from dubstream.export.recipes import Recipe

_PEAK = "peak/"
Artifacts = Mapping[tuple[str, str], Artifact]
"""By network and precision."""


def bench_networks(
    artifacts: Artifacts,
    options: BenchOptions,
    results: Results,
    *,
    recipes: Mapping[str, Recipe] | None = None,
    sizes: PeakSizes | None = None,
    progress: Progress = silent,
) -> None:
    """Measure every network at every batch into `results`.

    Args:
        artifacts: verified, of every network in every precision of the options' backends.
        options: what to measure.
        results: takes rows, and the cases a later run can be held against.
        recipes: how PyTorch networks are made; None for the project's own.
        sizes: of the peaks; None for those of the device.
        progress: told about every network.

    Raises:
        DeviceError: a backend is not there.
        ArtifactError: an artifact its backend cannot load.
    """
    with ExitStack() as stack:
        stack.enter_context(torch_threads(options.threads))
        stream = StreamOptions(threads=options.threads)
        platforms = [stack.enter_context(open_platform(backend, stream)) for backend in options.backends]
        peaks = _peaks(stack, platforms[0], options, results, sizes)
        rates: dict[str, list[float]] = {peak.name: [] for peak in peaks}
        for index, name in enumerate(options.networks):
            progress("bench", index, len(options.networks))
            recipe = None if recipes is None else recipes[name]
            subject = _Subject(name, artifacts, options, results, recipe)
            subject.measure(platforms, peaks, rates)
    for peak in peaks:
        unit = "GB/s" if peak.name == COPY else "GFLOP/s"
        if rates[peak.name]:
            results.rated(f"{_PEAK}{peak.name}", unit, rates[peak.name], threads=options.threads)


def _peaks(
    stack: ExitStack, platform: Platform, options: BenchOptions, results: Results, sizes: PeakSizes | None
) -> tuple[Peak, ...]:
    try:
        return stack.enter_context(
            opened_peaks(platform.device, threads=options.threads, on_gpu=options.on_gpu, sizes=sizes)
        )
    except DeviceError as lacking:
        results.not_run("peak", str(lacking))
        return ()


class _Subject:
    """One network in all its variants."""

    def __init__(
        self,
        name: str,
        artifacts: Artifacts,
        options: BenchOptions,
        results: Results,
        recipe: Recipe | None,
    ) -> None:
        self._name, self._options, self._results = name, options, results
        self._artifacts = {precision: artifacts[name, precision] for precision in options.precisions}
        self._limit = min(artifact.spec.max_batch for artifact in self._artifacts.values())
        self._recipe = recipe
        self._plain: dict[str, PlainNetwork] = {}
        self._lacking = ""

    def measure(
        self, platforms: Sequence[Platform], peaks: tuple[Peak, ...], rates: dict[str, list[float]]
    ) -> None:
        batches = [batch for batch in self._options.batches if batch <= self._limit]
        for batch in set(self._options.batches) - set(batches):
            self._results.not_run(
                self._name, f"the largest batch of {self._name} is {self._limit}", batch=batch
            )
        if not batches:
            return
        first = self._first_calls(batches)
        wanted = {precision: self._reference(artifact) for precision, artifact in self._artifacts.items()}
        with ExitStack() as stack:
            engines = [self._engine(stack, platform) for platform in platforms]
            for batch in batches:
                with ExitStack() as bound:
                    found = list(self._variants(bound, platforms, engines, wanted, batch))
                    if found:
                        self._time(batch, found, peaks, rates, first)

    def _first_calls(self, batches: Sequence[int]) -> dict[tuple[str, str, int], dict[str, Any]]:
        if not self._options.first_calls:
            return {}
        return {
            (backend.name, backend.precision, batch): measured_apart(
                FirstCall(
                    str(self._artifacts[backend.precision].path.parent), self._name, backend.precision,
                    backend.name, backend.device, batch, self._options.threads,
                )
            )
            for backend in self._options.backends
            for batch in batches
        }  # fmt: skip

    def _reference(self, artifact: Artifact) -> tuple[str, Arrays]:
        """Who computed the outputs of the first items, and the outputs."""
        inputs = kinds.seeded_batch(artifact.spec, kinds.DISTINCT)
        device = "cpu" if self._options.on_gpu is None else f"cuda:{self._options.on_gpu}"
        try:
            plain = PlainNetwork(artifact, self._options.checkpoints, recipe=self._recipe)
        except UnavailableError as lacking:
            self._lacking = str(lacking)
            names = [tensor.name for tensor in artifact.spec.outputs]
            session = cpu_session(artifact.path, self._options.threads)
            return "ONNX Runtime on the CPU", dict(zip(names, session.run(names, inputs), strict=True))
        found = plain.reference(inputs)
        try:
            plain.move(device)
            self._plain[artifact.precision] = plain
        except UnavailableError as lacking:
            self._lacking = str(lacking)
        return "PyTorch", found

    def _engine(self, stack: ExitStack, platform: Platform) -> Engine:
        artifact = self._artifacts[platform.backend.precision]
        return stack.enter_context(kinds.opened_engine(platform, artifact, self._options.threads))

    def _variants(
        self,
        bound: ExitStack,
        platforms: Sequence[Platform],
        engines: Sequence[Engine],
        wanted: Mapping[str, tuple[str, Arrays]],
        batch: int,
    ) -> Iterator[Variant]:
        """Those whose results are the reference's; a row for each that is not, or cannot be run."""
        for platform, engine in zip(platforms, engines, strict=True):
            precision = platform.backend.precision
            for variant in self._ours(bound, platform, engine, batch):
                yield from self._checked(variant, precision, wanted[precision], batch)
        precision = self._options.precisions[0]
        for name in self._options.baselines:
            if name == kinds.DRIVER:
                continue
            try:
                variant = self._baseline(name, precision, batch)
            except UnavailableError as lacking:
                self._results.not_run(f"{self._name}/{name}", str(lacking), batch=batch)
            else:
                yield from self._checked(variant, precision, wanted[precision], batch)

    def _ours(self, bound: ExitStack, platform: Platform, engine: Engine, batch: int) -> Iterator[Variant]:
        inputs, facts = kinds.seeded_batch(engine.spec, batch), kinds.engine_facts(platform.backend)
        resident = kinds.Resident(platform.device, engine, inputs)
        bound.callback(resident.close)
        yield Variant(kinds.ENGINE, resident.run, resident.outputs, facts)
        if kinds.DRIVER in self._options.baselines:
            driver = kinds.Driver(platform.device, engine, inputs)
            bound.callback(driver.close)
            yield Variant(kinds.DRIVER, driver.run, driver.outputs, facts)

    def _baseline(self, name: str, precision: str, batch: int) -> Variant:
        if precision not in self._plain:
            raise UnavailableError(self._lacking)
        plain, inputs = self._plain[precision], kinds.seeded_batch(self._artifacts[precision].spec, batch)
        if name == kinds.EAGER:
            return plain.eager(inputs)
        if name == kinds.COMPILE:
            return plain.compiled(inputs)
        if batch != 1:
            raise UnavailableError("the naive export is measured at batch 1 only")
        if self._options.on_gpu is not None:
            raise UnavailableError("the naive export is measured on the CPU only")
        return plain.naive(inputs, self._naive_folder(), self._options.threads)

    def _naive_folder(self) -> Path:
        return self._options.naive_folder or make_private_folder(cache_root() / "bench")

    def _checked(
        self, variant: Variant, precision: str, wanted: tuple[str, Arrays], batch: int
    ) -> Iterator[Variant]:
        spec, (root, items) = self._artifacts[precision].spec, wanted
        variant.run()
        expected = {name: kinds.repeated(array, batch) for name, array in items.items()}
        share, problem = close_to(spec, expected, variant.outputs())
        if problem is None:
            variant.facts.update(compared_with=root, of_tolerance=round(share, 4))
            yield variant
        else:
            self._results.wrong(f"{self._name}/{variant.key}", problem, batch=batch, compared_with=root)

    def _time(
        self,
        batch: int,
        found: Sequence[Variant],
        peaks: tuple[Peak, ...],
        rates: dict[str, list[float]],
        first: Mapping[tuple[str, str, int], Mapping[str, Any]],
    ) -> None:
        runs: dict[str, Callable[[], float | None]] = {f"{_PEAK}{peak.name}": peak.run for peak in peaks}
        series = measure_rounds(runs | {one.key: one.run for one in found}, self._options.stop)
        measured = {peak.name: (peak, series[f"{_PEAK}{peak.name}"]) for peak in peaks}
        for name, (peak, anchor) in measured.items():
            rates[name] += [peak.rate(second) for second in anchor.device_s]
        for variant in found:
            precision = (
                variant.facts["precision"] if variant.name in kinds.OURS else self._options.precisions[0]
            )
            cost = network_cost(self._artifacts[precision].path, batch)
            stage, own = f"{self._name}/{variant.key}", series[variant.key]
            facts = {"network": self._name, "variant": variant.name, **variant.facts, "batch": batch}
            facts |= _cost_facts(cost, own, measured)
            if variant.name == kinds.ENGINE:
                facts |= first.get((facts["backend"], facts["precision"], batch), {})
                facts["over"] = {
                    other.key: paired_ratio(series[other.key].wall_s, own.wall_s).as_json()
                    for other in found
                    if other is not variant
                }
            self._results.timed(stage, own.wall_s, threads=self._options.threads, **facts)
            if variant.name in kinds.OURS and measured:
                self._results.cases[f"{stage}/{batch}"] = self._case(cost, own, measured)

    def _case(self, cost: NetworkCost, own: Series, measured: MeasuredPeaks) -> MeasuredCase:
        on_host = self._options.on_gpu is None
        return MeasuredCase(
            Work(cost.macs, cost.least_bytes),
            cpu_share(measured, self._options.threads) if on_host else 1.0,
            samples_beside(measured, own, lambda series: series.wall_s),
            samples_beside(measured, own, lambda series: series.cpu_s) if on_host else None,
        )


def _cost_facts(cost: NetworkCost, own: Series, measured: MeasuredPeaks) -> dict[str, Any]:
    """Rates of the network as exported; baselines do the same work, whatever they multiply."""
    seconds = float(np.median(own.wall_s))
    facts: dict[str, Any] = {
        "items_s": round(cost.batch / seconds, 4),
        "gmacs": round(cost.gmacs, 6),
        "weight_mb": round(cost.weight_bytes / 1e6, 3),
        "least_mb": round(cost.least_bytes / 1e6, 3),
        "traffic_mb": round(cost.traffic_bytes / 1e6, 3),
        "gflops": round(2 * cost.gmacs / seconds, 3),
    }
    if any(own.cpu_s):
        facts["cpu_ms"] = round(1000 * float(np.median(own.cpu_s)), 4)
    if own.device_s:
        facts["device_ms"] = round(1000 * float(np.median(own.device_s)), 4)
    if measured:
        flops, bandwidth = reached(measured)
        facts["peak_gflops"], facts["peak_gbytes_s"] = round(flops, 2), round(bandwidth, 2)
        facts["of_peak"] = round(facts["gflops"] / flops, 4)
        facts["of_roofline"] = round(cost.least_seconds(flops * 1e9, bandwidth * 1e9) / seconds, 4)
    if cost.uncounted:
        facts["uncounted"] = list(cost.uncounted)
    return facts
