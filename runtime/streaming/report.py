"""What a run of the streamer did and where its time went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

HOST_STEPS = ("read", "fill", "drain")
"""Steps on host threads: iterating the source, filling slots, draining them."""

COPY_STEPS = ("upload", "download")
"""Copies between pinned and device memory, each on its own stream."""

COMPUTE = "compute"
"""The stream all stages share; as a resource it is as busy as all of them together."""


@dataclass(frozen=True)
class Span:
    """One step of one batch.

    Attributes:
        name: the step: ``read``, ``fill``, ``upload``, a stage, ``download`` or ``drain``.
        batch: number of the batch within the run, from 0.
        begin_s, end_s: seconds since the run began.
    """

    name: str
    batch: int
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class StreamReport:
    """Counts and times of one run, or of several added with ``+``.

    Attributes:
        stages: names of the stages, in order.
        frames, batches: what was drained; frames counts the slots' items.
        calls: of every stage: the batches that had items.
        wall_s: from the call of `run` to its end.
        busy_s: seconds at work by step, see `Span.name`; device steps on the device's clock.
        wait_s: seconds the host threads waited: ``read`` for room in the prefetch queue, ``fill`` for a
            decoded batch, ``slot`` for a free slot, ``drain`` for finished bytes.
        spans: every step of every batch, in order of its end; empty unless a trace was asked for.
        copied_bytes: bytes of the items' buffers copied by ``upload`` and ``download``.
        began_s: when the run began, on the clock of `time.perf_counter`.
    """

    stages: tuple[str, ...]
    frames: int
    batches: int
    wall_s: float
    busy_s: Mapping[str, float]
    wait_s: Mapping[str, float]
    spans: tuple[Span, ...] = field(default=(), repr=False)
    copied_bytes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(COPY_STEPS, 0))
    began_s: float = 0.0
    calls: int = 0

    @property
    def resources_s(self) -> dict[str, float]:
        """Busy seconds by resource: what can run side by side. All stages share ``compute``."""
        resources = {name: self.busy_s[name] for name in HOST_STEPS + COPY_STEPS}
        resources[COMPUTE] = sum(self.busy_s[name] for name in self.stages)
        return resources

    @property
    def slowest(self) -> str:
        """The resource that was busy longest."""
        resources = self.resources_s
        return max(resources, key=lambda name: resources[name])

    @property
    def wall_over_slowest(self) -> float:
        """Wall time over the slowest resource's busy time; 1.0 is perfect overlap, infinite without work."""
        busiest = self.resources_s[self.slowest]
        return self.wall_s / busiest if busiest > 0 else float("inf")

    @property
    def fps(self) -> float:
        """Frames per second of wall time."""
        return self.frames / self.wall_s if self.wall_s > 0 else 0.0

    def ms_per_frame(self) -> dict[str, float]:
        """Busy milliseconds per frame by step, in the order of a frame's way; zeros without frames."""
        frames = max(self.frames, 1)
        return {name: 1e3 * self.busy_s[name] / frames for name in step_names(self.stages)}

    def __add__(self, later: StreamReport) -> StreamReport:
        """This run and a later one of the same streamer as one; the later one's spans move behind."""
        moved = (
            replace(span, begin_s=span.begin_s + self.wall_s, end_s=span.end_s + self.wall_s)
            for span in later.spans
        )
        return StreamReport(
            stages=self.stages,
            frames=self.frames + later.frames,
            batches=self.batches + later.batches,
            wall_s=self.wall_s + later.wall_s,
            busy_s={name: self.busy_s[name] + later.busy_s[name] for name in self.busy_s},
            wait_s={name: self.wait_s[name] + later.wait_s[name] for name in self.wait_s},
            spans=(*self.spans, *moved),
            copied_bytes={name: self.copied_bytes[name] + later.copied_bytes[name] for name in COPY_STEPS},
            began_s=self.began_s,
            calls=self.calls + later.calls,
        )

    def to_chrome_trace(self) -> dict[str, Any]:
        """The spans as a JSON trace for Perfetto and ``chrome://tracing``, one row per resource."""
        return chrome_trace([*trace_rows(1, step_names((COMPUTE,))), *self.trace_events(1)])

    def trace_events(self, process: int, shift_s: float = 0.0) -> list[dict[str, Any]]:
        """The spans as events of the traced process `process`, moved by `shift_s` seconds."""
        rows = {name: row for row, name in enumerate(step_names((COMPUTE,)))}
        return [
            trace_event(
                process, rows.get(span.name, rows[COMPUTE]), span.name,
                span.begin_s + shift_s, span.end_s + shift_s, {"batch": span.batch},
            )
            for span in self.spans
        ]  # fmt: skip


def step_names(stages: tuple[str, ...]) -> tuple[str, ...]:
    """All steps in the order of a frame's way."""
    return ("read", "fill", "upload", *stages, "download", "drain")


def chrome_trace(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Events as a file Perfetto and ``chrome://tracing`` read."""
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def trace_rows(process: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The events that name the rows of the traced process `process`, from the first row on."""
    return [
        {"name": "thread_name", "ph": "M", "pid": process, "tid": row, "args": {"name": name}}
        for row, name in enumerate(names)
    ]


def trace_event(
    process: int, row: int, name: str, begin_s: float, end_s: float, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """One block in a row; a trace counts in microseconds."""
    return {
        "name": name,
        "ph": "X",
        "pid": process,
        "tid": row,
        "ts": 1e6 * begin_s,
        "dur": 1e6 * (end_s - begin_s),
        "args": dict(arguments),
    }


class Tally:
    """Sums of one run. Each name is added to by one thread only, so no lock is needed.

    Args:
        stages: names of the stages, in order.
        began: when the run began, on the clock of `time.perf_counter`.
        trace: keep every span, not only the sums.
        item_bytes: bytes that ``upload`` and ``download`` copy for one item.
    """

    def __init__(
        self,
        stages: tuple[str, ...],
        began: float,
        *,
        trace: bool,
        item_bytes: Mapping[str, int] | None = None,
    ) -> None:
        self._stages = stages
        self._began = began
        self._busy = dict.fromkeys(step_names(stages), 0.0)
        self._wait = dict.fromkeys(("read", "fill", "slot", "drain"), 0.0)
        self._spans: list[Span] | None = [] if trace else None
        self._item_bytes = item_bytes or dict.fromkeys(COPY_STEPS, 0)
        self._frames = 0
        self._batches = self._calls = 0

    def busy(self, name: str, batch: int, begin: float, end: float) -> None:
        """Add one step of one batch; times on the clock of `time.perf_counter`."""
        self._busy[name] += end - begin
        if self._spans is not None:
            self._spans.append(Span(name, batch, begin - self._began, end - self._began))

    def waited(self, name: str, seconds: float) -> None:
        """Add a wait of a host thread."""
        self._wait[name] += seconds

    def drained(self, frames: int) -> None:
        """Count one finished batch."""
        self._frames += frames
        self._batches += 1
        self._calls += frames > 0

    def report(self, ended: float) -> StreamReport:
        """The sums so far."""
        spans = tuple(self._spans or ())
        return StreamReport(
            stages=self._stages,
            frames=self._frames,
            batches=self._batches,
            wall_s=ended - self._began,
            busy_s=dict(self._busy),
            wait_s=dict(self._wait),
            spans=spans,
            copied_bytes={name: size * self._frames for name, size in self._item_bytes.items()},
            began_s=self._began,
            calls=self._calls,
        )
