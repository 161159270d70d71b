"""A comparison with a saved base, printed for people."""

from __future__ import annotations

from collections.abc import Sequence

from dubstream.benchmarks.bench.method.base import Verdict
from dubstream.runtime.cli.show import table


def show_verdicts(verdicts: Sequence[Verdict], max_slowdown: float) -> None:
    """The comparison with the base."""
    lines = [
        (
            verdict.key,
            verdict.outcome,
            *(
                ("", "", "", "")
                if verdict.slowdown is None
                else (
                    f"{verdict.slowdown.estimate:.3f}",
                    f"{verdict.slowdown.low:.3f}-{verdict.slowdown.high:.3f}",
                    f"{verdict.raw:.3f}",
                    str(verdict.clock),
                )
            ),
        )
        for verdict in verdicts
    ]
    columns = ("case", "outcome", "slowdown", "interval", "raw wall", "clock")
    table(f"against the base, at most {max_slowdown:g} (normalised by the measured peaks)", columns, lines)
