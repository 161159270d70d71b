"""What every stage of a dub costs, from the reports its streams left behind.

A stage is at work on one batch at a time, so its times come batch by batch; what happens outside the
streams (sound, face tracking, joining) is one block a chunk. What networks take of such a block has sums
alone, and the block's own sum is without it. Several dubs of the same files add up.

| figure | what |
|---|---|
| ms per frame | busy time over frames of the output, so that the column adds up |
| share | of the busy time of all stages; stages of different resources run side by side |
| p50, p95, p99 | of one batch (or block) in milliseconds; the last batch of a stream may be short |
| queue | what a batch waits between the end of the step before and the beginning of this one |
| copied | bytes of the slots' buffers; what a stage uploads for itself is not among them |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dubstream.runtime.streaming.report import StreamReport, step_names
from dubstream.runtime.timing import Timing

Samples = Sequence[float]

WAITS = {
    "read": "for room in the prefetch queue",
    "fill": "for a decoded batch",
    "slot": "for a free slot",
    "drain": "for finished bytes",
}
"""Why a host thread waits, by the names of `StreamReport.wait_s`."""


@dataclass(frozen=True)
class StageCost:
    """One stage of the job, over all its batches and runs.

    Attributes:
        stage: ``track``, ``prepare/dnet``, ``synthesise/enet``, ...; the words of timings and traces.
        busy_s: seconds at work.
        frames: frames worked on.
        batches_s: seconds of every batch, of every block outside the streams with all that ran in it.
        queue_s: seconds every batch waited in front of it; empty where nothing can.
        copied_bytes: what a copy moved; None for everything else.
    """

    stage: str
    busy_s: float
    frames: int
    batches_s: Samples
    queue_s: Samples = ()
    copied_bytes: int | None = None

    def percentiles_ms(self) -> dict[str, float]:
        """``p50``, ``p95`` and ``p99`` of a batch in milliseconds."""
        return percentiles_ms(self.batches_s)


@dataclass(frozen=True)
class PassCost:
    """One pass (``prepare``, ``synthesise``) over all its streams and runs.

    Attributes:
        part: the pass.
        wall_s: of its streams.
        wall_over_slowest: wall time over the busy time of the slowest resource, stream by stream;
            1.0 is perfect overlap.
        resources_s: busy seconds by resource, see `StreamReport.resources_s`.
        waits_s: seconds the host threads waited, by the names of `WAITS`.
    """

    part: str
    wall_s: float
    wall_over_slowest: float
    resources_s: Mapping[str, float]
    waits_s: Mapping[str, float]

    @property
    def slowest(self) -> str:
        """The resource that was busy longest."""
        return max(self.resources_s, key=lambda name: self.resources_s[name])


def percentiles_ms(seconds: Samples) -> dict[str, float]:
    """``p50``, ``p95`` and ``p99`` in milliseconds; nothing without samples."""
    if not seconds:
        return {}
    figures = np.percentile(np.asarray(seconds) * 1e3, (50, 95, 99))
    return dict(zip(("p50", "p95", "p99"), (float(figure) for figure in figures), strict=True))


def stage_costs(timings: Sequence[Timing]) -> list[StageCost]:
    """Every stage of one or several traced dubs of the same files, in the order of a frame's way."""
    names = dict.fromkeys(stage for timing in timings for stage in _stages(timing))
    return [_stage_cost(stage, timings) for stage in names]


def pass_costs(timings: Sequence[Timing]) -> list[PassCost]:
    """The passes of one or several dubs, in their order."""
    parts = dict.fromkeys(part for timing in timings for part in timing.wall_s)
    return [_pass_cost(part, timings) for part in parts]


def rest_s(timing: Timing, wall_s: float) -> float:
    """Seconds of a dub in which none of its stages ran: probing, loading networks, disk."""
    blocks = sum(block.end_s - block.begin_s for block in timing.blocks)
    return max(wall_s - blocks - sum(timing.wall_s.values()), 0.0)


def queue_waits(report: StreamReport) -> dict[str, list[float]]:
    """Step to the seconds each batch waited in front of it, from the spans of a traced run.

    The first step, ``read``, has none in front of it: what holds it back is in `StreamReport.wait_s`.
    """
    order = {name: place for place, name in enumerate(step_names(report.stages))}
    batches: dict[int, list[Any]] = {}
    for span in report.spans:
        batches.setdefault(span.batch, []).append(span)
    waits: dict[str, list[float]] = {name: [] for name in order if name != "read"}
    for number in sorted(batches):
        steps = sorted(batches[number], key=lambda span: order[span.name])
        for before, step in pairwise(steps):
            # The clocks of two streams of a device agree to microseconds, no better.
            waits[step.name].append(max(step.begin_s - before.end_s, 0.0))
    return waits


def _stages(timing: Timing) -> Iterator[str]:
    """Names in the order of a frame's way; `Timing.busy_s` has them in the order of their first end."""
    joined = [block.stage for block in timing.blocks if block.stage == "assemble"]
    for block in timing.blocks:
        if block.stage not in joined:
            yield block.stage
            yield from (stage for stage in timing.busy_s if stage.startswith(f"{block.stage}/"))
    for part in timing.wall_s:
        chains = [report.stages for owner, report in timing.streams if owner == part]
        middle = tuple(dict.fromkeys(stage for chain in chains for stage in chain))
        yield from (f"{part}/{step}" for step in step_names(middle))
    yield from joined


def _stage_cost(stage: str, timings: Sequence[Timing]) -> StageCost:
    part, _, step = stage.rpartition("/")
    reports = [
        report for owner, report in _streams(timings) if owner == part and step in report.busy_s
    ]  # fmt: skip
    blocks = [block for timing in timings for block in timing.blocks if block.stage == stage]
    spans = [span for report in reports for span in report.spans if span.name == step]
    batches = [(one.begin_s, one.end_s) for one in blocks] + [(one.begin_s, one.end_s) for one in spans]
    copied = [report.copied_bytes[step] for report in reports if step in report.copied_bytes]
    return StageCost(
        stage=stage,
        busy_s=sum(timing.busy_s.get(stage, 0.0) for timing in timings),
        frames=sum(timing.frames.get(stage, 0) for timing in timings),
        batches_s=[end - begin for begin, end in batches],
        queue_s=[wait for report in reports for wait in queue_waits(report).get(step, ())],
        copied_bytes=sum(copied) if copied else None,
    )


def _pass_cost(part: str, timings: Sequence[Timing]) -> PassCost:
    reports = [report for owner, report in _streams(timings) if owner == part]
    wall = sum(timing.wall_s.get(part, 0.0) for timing in timings)
    slowest = sum(timing.slowest_s.get(part, 0.0) for timing in timings)
    return PassCost(
        part=part,
        wall_s=wall,
        wall_over_slowest=wall / slowest if slowest > 0 else float("inf"),
        resources_s=_summed(report.resources_s for report in reports),
        waits_s=_summed(report.wait_s for report in reports),
    )


def _streams(timings: Sequence[Timing]) -> Iterator[tuple[str, StreamReport]]:
    for timing in timings:
        yield from timing.streams


def _summed(mappings: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for mapping in mappings:
        for name, seconds in mapping.items():
            total[name] = total.get(name, 0.0) + seconds
    return total
