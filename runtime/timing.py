"""Where the time of a job went, by pass and stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

from dubstream.engines.face_specs import detector_spec
from dubstream.engines.specs import SPECS
from dubstream.runtime.streaming.report import (
    COMPUTE,
    StreamReport,
    chrome_trace,
    step_names,
    trace_event,
    trace_rows,
)


class Block(NamedTuple):
    """Work outside the streams: its stage, begin and end on the clock of `time.perf_counter`."""

    stage: str
    begin_s: float
    end_s: float


class PassReport(NamedTuple):
    """The report of one stream and the pass it belongs to."""

    part: str
    report: StreamReport


class NetworkWork(NamedTuple):
    """What a network was given: items, and the calls (batches) they came in."""

    items: int
    calls: int


@dataclass
class Timing:
    """Busy seconds and frames of every stage, summed over chunks and segments.

    Attributes:
        trace: whether streams are to keep a span for every step of every batch.
        began_s: when the job began, on the clock of `time.perf_counter`.
        busy_s: stage name ("prepare/dnet", "synthesise/enet", "track", ...) to seconds at work; networks that
            run inside a stage ("track/s3fd") are not in its own.
        frames: the same names to frames worked on.
        calls: the same names to the batches, or blocks, they came in.
        wall_s: pass to wall time of its streams.
        slowest_s: pass to the busy time of its slowest resource, stream by stream.
        blocks: work outside the streams, one by one.
        streams: the streams' own reports, in order; a chunk or a segment each.
    """

    trace: bool = False
    began_s: float = field(default_factory=perf_counter)
    busy_s: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    streams: list[PassReport] = field(default_factory=list)

    @contextmanager
    def measure(self, stage: str, frames: int) -> Iterator[None]:
        """Time a block on the calling thread."""
        began = perf_counter()
        yield
        ended = perf_counter()
        self.blocks.append(Block(stage, began, ended))
        self._count(stage, ended - began, frames)

    def split(self, stage: str, part: str, seconds: float, count: int) -> None:
        """Account seconds of a measured stage to a part of it, which took `count` items, one a call."""
        self.busy_s[stage] -= seconds
        self._count(part, seconds, count, count)

    def add(self, part: str, report: StreamReport) -> None:
        """Add the report of a stream that belongs to the pass `part`."""
        for stage, seconds in report.busy_s.items():
            self._count(f"{part}/{stage}", seconds, report.frames, report.calls)
        self.wall_s[part] = self.wall_s.get(part, 0.0) + report.wall_s
        busiest = report.resources_s[report.slowest]
        self.slowest_s[part] = self.slowest_s.get(part, 0.0) + busiest
        self.streams.append(PassReport(part, report))

    def _count(self, stage: str, seconds: float, frames: int, calls: int = 1) -> None:
        self.busy_s[stage] = self.busy_s.get(stage, 0.0) + seconds
        self.frames[stage] = self.frames.get(stage, 0) + frames
        self.calls[stage] = self.calls.get(stage, 0) + calls

    def networks(self) -> dict[str, NetworkWork]:
        """By network, what it was given in all passes; only those that ran.

        In the order of `SPECS`, then detectors of other sizes than there.
        """
        sized = [one.rpartition("/")[2] for one in self.frames if detector_spec(one.rpartition("/")[2])]
        names = dict.fromkeys((*SPECS, *sized))
        stages = {name: [one for one in self.frames if one.rpartition("/")[2] == name] for name in names}
        work = {
            name: NetworkWork(sum(self.frames[one] for one in ran), sum(self.calls[one] for one in ran))
            for name, ran in stages.items()
        }
        return {name: one for name, one in work.items() if one.items}

    def to_chrome_trace(self) -> dict[str, Any]:
        """The whole job on its own clock, passes one below the other; empty unless spans were kept."""
        if not any(report.spans for _, report in self.streams):
            return {}
        events = [_process(0, "job"), *trace_rows(0, ("steps",))]
        events += [
            trace_event(0, 0, block.stage, block.begin_s - self.began_s, block.end_s - self.began_s, {})
            for block in self.blocks
        ]
        numbers = {part: number for number, part in enumerate(self.wall_s, 1)}
        for part, number in numbers.items():
            events += [_process(number, part), *trace_rows(number, step_names((COMPUTE,)))]
        for part, report in self.streams:
            events += report.trace_events(numbers[part], report.began_s - self.began_s)
        return chrome_trace(events)


def _process(number: int, name: str) -> dict[str, Any]:
    return {"name": "process_name", "ph": "M", "pid": number, "tid": 0, "args": {"name": name}}
