"""A report from rows: tables and plots, machine by machine. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dubstream.benchmarks.bench.method.base import KEPT, SLOWER
from dubstream.benchmarks.bench.method.statistics import MIN_SAMPLES
from dubstream.benchmarks.bench.report.plots import (
    BASELINES,
    is_ours,
    plot_flops,
    plot_latency,
    plot_ratios,
    plot_shares,
    plot_throughput,
    render,
)
from dubstream.benchmarks.bench.report.points import (
    Comparison,
    Dub,
    FidelityPoint,
    Findings,
    Machine,
    NetworkPoint,
    NotMeasured,
    PeakPoint,
)
from dubstream.engines.page import Cell, Part, Section, Table, Verdict
from dubstream.engines.page import Figure as PageFigure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A plot with the stem of its file name and a sentence about it."""

    stem: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Ratio:
    """How many times faster than a baseline one of our variants is; both of the same rows' run."""

    ours: NetworkPoint
    baseline: NetworkPoint

    @property
    def value(self) -> float:
        """The median of paired samples where the row has it, else the baseline's median over ours."""
        paired = self._paired
        return self.baseline.ms / self.ours.ms if paired is None else float(paired["estimate"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """What the value is between, by bootstrap; None where the row does not say, or of too few rounds."""
        paired = self._paired
        few = self.ours.row["n"] < MIN_SAMPLES
        return None if paired is None or few else (float(paired["low"]), float(paired["high"]))

    @property
    def _paired(self) -> Mapping[str, float] | None:
        key = str(self.baseline.row["stage"]).removeprefix("networks/").split("/", 1)[1]
        found: Mapping[str, float] | None = (self.ours.row.get("over") or {}).get(key)
        return found

    @property
    def title(self) -> str:
        """In words."""
        against = f"{self.ours.label} against {self.baseline.label}"
        return f"{self.ours.network}, batch {self.ours.batch}: {against}"


def ratios(points: Sequence[NetworkPoint]) -> list[Ratio]:
    """All comparisons that compare like with like: same network, batch, threads and commit.

    An engine driven through host memory is compared with the same engine in the same precision.
    """

    def case(point: NetworkPoint) -> tuple[object, ...]:
        return point.network, point.batch, point.threads, point.row.get("commit")

    return [
        Ratio(ours, baseline)
        for ours in points
        for baseline in points
        if is_ours(ours) and not is_ours(baseline) and case(ours) == case(baseline) and _alike(ours, baseline)
    ]


def _alike(ours: NetworkPoint, baseline: NetworkPoint) -> bool:
    """Whether a driven engine is ours; other baselines are everybody's."""
    words = baseline.variant.split("/")
    if "driver" not in words:
        return True
    same = {*ours.variant.split("/")} - {"engine"} == {*words} - {"driver"}
    return same and ours.precision == baseline.precision


def plots(findings: Findings) -> Iterator[Plot]:
    """Every plot the rows have something for."""
    for number, machine in enumerate(findings.machines):
        prefix = f"{number}-" if len(findings.machines) > 1 else ""
        yield from _network_plots(findings, machine, prefix)
        for dub in findings.of(machine, Dub):
            figure = plot_shares(dub, f"One frame of a dub ({dub.clip})")
            caption = (
                f"Busy time per frame and share by stage, {dub.clip}, {dub.frames} frames, {machine.title}."
            )
            yield Plot(f"{prefix}dub-{dub.clip}", figure, caption)


def _network_plots(findings: Findings, machine: Machine, prefix: str) -> Iterator[Plot]:
    points = findings.of(machine, NetworkPoint)
    if not points:
        return
    where = f"{machine.title}."
    yield Plot(
        f"{prefix}latency", plot_latency(points, "Latency by batch"),
        f"Median of one call, bars from the 5th to the 95th percentile. {where}",
    )  # fmt: skip
    yield Plot(
        f"{prefix}throughput", plot_throughput(points, "Throughput by batch"), f"Items per second. {where}"
    )
    yield Plot(
        f"{prefix}gflops", plot_flops(points, findings.of(machine, PeakPoint), "Arithmetic"),
        f"What the network needs over the time it took, and what the machine reached at its best. {where}",
    )  # fmt: skip
    compared = ratios(points)
    if compared:
        pairs = [(ratio.title, ratio.value) for ratio in compared]
        yield Plot(
            f"{prefix}ratios", plot_ratios(pairs, "Against the baselines"),
            f"How many times longer the baseline took, same run. {where}",
        )  # fmt: skip


def sections(findings: Findings, drawn: Sequence[Plot]) -> list[Section]:
    """The chapters of the page; plots as SVG."""
    found = [section for machine in findings.machines for section in _of_machine(findings, machine)]
    fidelity = findings.all(FidelityPoint)
    if fidelity:
        found.append(Section("Fidelity of the artifacts", [fidelity_table(fidelity)]))
    if drawn:
        figures = [PageFigure(render(plot.figure, "svg"), plot.caption) for plot in drawn]
        found.append(Section("Plots", figures))
    if findings.not_measured:
        found.append(_absent_section(findings.not_measured))
    if findings.comparisons:
        found.append(_comparison_section(findings.comparisons))
    if findings.skipped:
        rows = [(reason, count) for reason, count in findings.skipped.most_common()]
        found.append(Section("Rows left out", [Table(("why", "rows"), rows)]))
    return found


def _absent_section(points: Sequence[NotMeasured]) -> Section:
    failed = any(point.failed for point in points)
    rows: list[tuple[Cell, ...]] = [
        (point.stage, point.batch, Verdict.FAILED if point.failed else Verdict.NOT_RUN, point.reason)
        for point in points
    ]
    table = Table(("what", "batch", "", "why"), rows)
    return Section("Not measured", [table], Verdict.FAILED if failed else Verdict.NOT_RUN)


def _comparison_section(points: Sequence[Comparison]) -> Section:
    verdicts = {SLOWER: Verdict.FAILED, KEPT: Verdict.PASSED}
    rows: list[tuple[Cell, ...]] = []
    for point in points:
        estimate, low, high = point.slowdown or (None, 0.0, 0.0)
        interval = "" if estimate is None else f"{low:.3f}–{high:.3f}"
        verdict = verdicts.get(point.outcome, Verdict.NOT_RUN)
        rows.append((point.case, verdict, point.outcome, estimate, interval))
    table = Table(
        ("case", "", "outcome", "slowdown", "interval"), rows,
        "How many times longer than in the base, the machine's own speed in both runs taken out.",
    )  # fmt: skip
    worst = Verdict.FAILED if any(row[1] is Verdict.FAILED for row in rows) else Verdict.PASSED
    return Section("Against a saved base", [table], worst)


def _of_machine(findings: Findings, machine: Machine) -> Iterator[Section]:
    points, peaks = findings.of(machine, NetworkPoint), findings.of(machine, PeakPoint)
    if points or peaks:
        parts: list[Part] = [network_table(points, peaks)] if points else []
        if peaks:
            parts.append(peak_table(peaks))
        yield Section(f"Networks: {machine.title}", parts)
    for dub in findings.of(machine, Dub):
        yield Section(f"Dub of {dub.clip}: {machine.title}", [dub_text(dub), stage_table(dub)])


def network_table(points: Sequence[NetworkPoint], peaks: Sequence[PeakPoint]) -> Table:
    """A row per network, variant and batch."""
    best = max((peak.median for peak in peaks if peak.unit == "GFLOP/s"), default=None)
    compared = {id(ratio.ours): ratio for ratio in ratios(points) if ratio.baseline.variant == "eager"}
    rows: list[tuple[Cell, ...]] = [
        (
            point.network,
            point.label,
            point.batch,
            "" if point.threads is None else point.threads,
            point.n,
            f"{point.ms:.1f}",
            f"{point.low_ms:.1f}–{point.high_ms:.1f}",
            f"{point.items_per_s:.2f}",
            f"{point.gflops:.0f}",
            "" if best is None else f"{100 * point.gflops / best:.0f} %",
            f"{compared[id(point)].value:.2f}" if id(point) in compared else "",
            str(point.row.get("commit", "")),
        )
        for point in sorted(points, key=lambda p: (p.network, p.batch, p.variant in BASELINES, p.variant))
    ]
    columns = (
        "network", "variant", "batch", "threads", "n", "p50 ms", "p5–p95 ms", "items/s", "GFLOP/s", "of peak",
        "times eager", "commit",
    )  # fmt: skip
    return Table(columns, rows, "Milliseconds of one call. GFLOP/s: what the network needs over the median.")


def peak_table(peaks: Sequence[PeakPoint]) -> Table:
    """What the machine reached on something simple."""
    rows = [(peak.name, f"{peak.median:.1f}", peak.unit, peak.n) for peak in peaks]
    return Table(("peak", "median", "unit", "n"), rows)


def dub_text(dub: Dub) -> str:
    """The whole dub in two sentences."""
    passes = ", ".join(
        f"{part} {ratio:.3f}" for part, ratio in dub.wall_over_slowest.items() if ratio is not None
    )
    peak = dub.row.get("peak_rss_mib")
    memory = f" Peak memory {peak:.0f} MiB." if isinstance(peak, (int, float)) else ""
    engine = dub.row.get("computed_by", dub.row.get("backend"))
    return (
        f"{dub.frames} frames by {engine}: {dub.fps:.3f} frames/s. "
        f"Wall time over the slowest resource: {passes or 'unknown'}.{memory}"
    )


def stage_table(dub: Dub) -> Table:
    """A row per stage, slowest first."""
    rows: list[tuple[Cell, ...]] = [
        (
            stage.stage,
            f"{stage.ms_per_frame:.2f}",
            f"{100 * stage.share:.1f} %",
            *(
                f"{stage.batch_ms[name]:.1f}" if name in stage.batch_ms else ""
                for name in ("p50", "p95", "p99")
            ),
        )
        for stage in dub.stages
    ]
    columns = ("stage", "ms/frame", "share of busy time", "p50 ms", "p95 ms", "p99 ms")
    return Table(columns, rows, "Percentiles of one batch, or of one block outside the streams.")


def fidelity_table(points: Sequence[FidelityPoint]) -> Table:
    """A row per artifact, its worst case."""
    rows: list[tuple[Cell, ...]] = [
        (
            point.network,
            point.precision,
            point.cases,
            point.max_abs,
            f"{100 * point.tolerance_share:.0f} %",
            f"{point.cosine:.8f}",
            point.relative_l2,
            "no noise" if point.psnr is None else f"{point.psnr:.1f} dB",
        )
        for point in points
    ]
    columns = (
        "network",
        "precision",
        "cases",
        "largest error",
        "of its tolerance",
        "cosine",
        "relative L2",
        "PSNR",
    )
    return Table(columns, rows, "The worst of all cases against PyTorch; the error in the output's own unit.")
