"""The rows of a check: one JSON object a line, each with a status, written as soon as it is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, TextIO

from dubstream.benchmarks.rows import Row

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


class NotRunError(Exception):
    """Something this machine lacks; its text says what. Never raised for something that went wrong."""


class CheckFailedError(Exception):
    """A result that is not what was expected; its text says both."""


class Journal:
    """Collects rows.

    Args:
        facts: machine and setting, part of every row.
        out: where lines are written as they come; None keeps them only.
        minutes: from now on; what would begin later is not run. None for no limit.
    """

    def __init__(
        self, facts: Mapping[str, Any], out: TextIO | None = None, *, minutes: float | None = None
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._until = None if minutes is None else monotonic() + 60 * minutes
        self._facts = dict(facts)
        self._out = out
        self._part = ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Rows of one part; whatever is raised in it becomes a row of the part's name."""
        self._part = name
        with self._guarded(name):
            yield

    @contextmanager
    def guard(self, stage: str, **facts: Any) -> Iterator[None]:
        """Turn what is raised inside into a row, so that what comes behind still runs.

        Raises:
            NotRunError: there is no time left; the part's row says so.
        """
        if self._until is not None and monotonic() > self._until:
            raise NotRunError("no time was left")
        with self._guarded(stage, **facts):
            yield

    @contextmanager
    def _guarded(self, stage: str, **facts: Any) -> Iterator[None]:
        try:
            yield
        except NotRunError as lacking:
            self._add(stage, NOT_RUN, reason=str(lacking), **facts)
        except Exception as error:
            self._add(stage, FAILED, reason=f"{type(error).__name__}: {error}", **facts)

    def passed(self, stage: str, **facts: Any) -> None:
        """A check that held."""
        self._add(stage, PASSED, **facts)

    def judged(self, stage: str, problem: str | None, **facts: Any) -> None:
        """A check with its figures: passed without a problem, failed with one."""
        if problem is None:
            self._add(stage, PASSED, **facts)
        else:
            self._add(stage, FAILED, reason=problem, **facts)

    def not_run(self, stage: str, reason: str, **facts: Any) -> None:
        """Something this machine cannot do."""
        self._add(stage, NOT_RUN, reason=reason, **facts)

    def timed(self, stage: str, unit: str, samples: Sequence[float], **facts: Any) -> None:
        """A measurement of something whose check held."""
        figures = Row.of(stage, unit, samples, **facts).as_json()
        self._add(figures.pop("stage"), PASSED, **figures)

    @property
    def exit_code(self) -> int:
        """1 when a check failed, 3 when nothing at all could run, else 0."""
        counts = Counter(row["status"] for row in self.rows)
        if counts[FAILED]:
            return 1
        return 0 if counts[PASSED] else 3

    def summary(self) -> list[str]:
        """One line per part, and one per row that did not pass."""
        lines = []
        for name in dict.fromkeys(row["part"] for row in self.rows):
            counts = Counter(row["status"] for row in self.rows if row["part"] == name)
            lines.append(f"{name:10} " + ", ".join(f"{count} {status}" for status, count in counts.items()))
        lines += [
            f"{row['status']}: {row['stage']}: {row['reason']}"
            for row in self.rows
            if row["status"] != PASSED
        ]
        return lines

    def _add(self, stage: str, status: str, **facts: Any) -> None:
        row = {"part": self._part, "status": status, **facts, "stage": stage, **self._facts}
        self.rows.append(row)
        if self._out is not None:
            self._out.write(json.dumps(row, allow_nan=False, default=_plain) + "\n")
            self._out.flush()


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
