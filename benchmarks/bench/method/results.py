"""Rows as they are found: one JSON object per measurement, or the reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dubstream.benchmarks.bench.method.statistics import Samples, Work, percentiles
from dubstream.benchmarks.rows import Row

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
"""Status of a row; the words of `dubstream.benchmarks.gpu_check`."""


@dataclass(frozen=True)
class MeasuredCase:
    """One case of ours that a later run can be held against.

    Attributes:
        work: what the case asks of the machine.
        cpu_share: how much of the threads' time the anchor convolution really ran; 1.0 on a GPU.
        wall: times and anchors on the wall's clock, round by round.
        cpu: the same on the clock of this process's threads; None on a GPU.
    """

    work: Work
    cpu_share: float
    wall: Samples
    cpu: Samples | None


class Results:
    """Collects rows and cases.

    Args:
        facts: machine, versions, threads; part of every row.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)
        self.rows: list[dict[str, Any]] = []
        self.cases: dict[str, MeasuredCase] = {}

    @property
    def failures(self) -> list[str]:
        """Stage, batch and reason of everything that is not what it should be."""
        failed = [row for row in self.rows if row["status"] == FAILED]
        return [f"{row['stage']} at batch {row.get('batch', '?')}: {row['reason']}" for row in failed]

    def timed(self, stage: str, seconds: Sequence[float], **facts: Any) -> None:
        """A measurement in milliseconds of something whose result was checked."""
        row = Row.of(stage, "ms", [1000 * second for second in seconds], **percentiles(seconds), **facts)
        self.rows.append({"status": PASSED, **row.as_json()})

    def rated(self, stage: str, unit: str, rates: Sequence[float], **facts: Any) -> None:
        """A measurement of a rate."""
        self.rows.append({"status": PASSED, **Row.of(stage, unit, rates, **facts).as_json()})

    def wrong(self, stage: str, reason: str, **facts: Any) -> None:
        """A result that is not the reference's, so it was not timed."""
        self.rows.append({"status": FAILED, "stage": stage, "reason": reason, **facts})

    def not_run(self, stage: str, reason: str, **facts: Any) -> None:
        """Something this machine, these weights or this network cannot do."""
        self.rows.append({"status": NOT_RUN, "stage": stage, "reason": reason, **facts})

    def lines(self, more: Sequence[Mapping[str, Any]] = ()) -> str:
        """All rows and `more`, each with the facts, as JSON lines."""
        return "".join(json.dumps({**row, **self.facts}) + "\n" for row in [*self.rows, *more])
