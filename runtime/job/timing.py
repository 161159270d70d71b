"""Where the time of a job went, by pass and stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from time import perf_counter
from typing import Any

from dubstream.runtime.streaming.report import StreamReport


@dataclass
class Timing:
    """Busy seconds and frames of every stage, summed over chunks and segments.

    Attributes:
        busy_s: stage name ("prepare/dnet", "synthesise/enet", "track", ...) to seconds at work.
        frames: the same names to frames worked on.
        wall_s: pass to wall time of its streams.
        slowest_s: pass to the busy time of its slowest resource, stream by stream.
        traces: reports whose spans were kept.
    """

    busy_s: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    slowest_s: dict[str, float] = field(default_factory=dict)
    traces: list[StreamReport] = field(default_factory=list)

    @contextmanager
    def measure(self, stage: str, frames: int) -> Iterator[None]:
        """Time a block on the calling thread."""
        began = perf_counter()
        yield
        self._count(stage, perf_counter() - began, frames)

    def add(self, part: str, report: StreamReport) -> None:
        """Add the report of a stream that belongs to the pass `part`."""
        for stage, seconds in report.busy_s.items():
            self._count(f"{part}/{stage}", seconds, report.frames)
        self.wall_s[part] = self.wall_s.get(part, 0.0) + report.wall_s
        busiest = report.resources_s[report.slowest]
        self.slowest_s[part] = self.slowest_s.get(part, 0.0) + busiest
        if report.spans:
            self.traces.append(report)

    def _count(self, stage: str, seconds: float, frames: int) -> None:
        self.busy_s[stage] = self.busy_s.get(stage, 0.0) + seconds
        self.frames[stage] = self.frames.get(stage, 0) + frames

    def to_chrome_trace(self) -> dict[str, Any]:
        """All traced streams one behind the other; empty when none was traced."""
        if not self.traces:
            return {}
        return reduce(add, self.traces).to_chrome_trace()
