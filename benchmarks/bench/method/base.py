"""Saved measurements, and whether today's are slower: `--save`, `--against`.

A base file keeps every sample with the speed its machine had in the same round, because two runs are never
simultaneous: see `dubstream.benchmarks.bench.method.statistics.slowdown`. A case fails only when even the
lower end of its slowdown's interval is above what is allowed.

Wall time decides where both runs had their cores to themselves. On a starved machine it is that of the other
programs: there CPU time decides, and a loss that is all waiting would be missed; the verdict says which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dubstream.benchmarks.bench.method.results import MeasuredCase, Results
from dubstream.benchmarks.bench.method.statistics import MIN_SAMPLES, Interval, Samples, Work, slowdown
from dubstream.engines.atomic import publish
from dubstream.engines.errors import UsageError
from dubstream.engines.storage import NotPlainFileError, read_plain

FORMAT = 1
QUIET = 0.9
"""CPU time over wall time and threads, of the anchors, from which a machine counts as quiet."""
WALL, CPU = "wall", "cpu"
MAX_BYTES = 64 << 20
_SAME = ("cpu", "cores", "threads", "gpu")
"""Facts without which times compare nothing."""
_TOLD = ("versions", "python", "system", "commit")
"""Facts that may differ: often they are what the comparison is about."""
SLOWER, KEPT, NEW, MISSING, TOO_FEW = "slower", "kept", "not in the base", "not measured", "too few samples"


@dataclass(frozen=True)
class Base:
    """A saved run.

    Attributes:
        facts: machine, versions, threads.
        cases: by key.
    """

    facts: dict[str, Any]
    cases: dict[str, MeasuredCase]


@dataclass(frozen=True)
class Verdict:
    """One case, held against the base.

    Attributes:
        key: network, variant, backend, precision and batch.
        outcome: one of the words above.
        slowdown: normalised by the machine's speed, with its interval; None where there is none.
        raw: ratio of the plain medians of wall time, for people.
        clock: which time decided.
    """

    key: str
    outcome: str
    slowdown: Interval | None = None
    raw: float | None = None
    clock: str | None = None

    def as_json(self) -> dict[str, Any]:
        """A row."""
        interval = None if self.slowdown is None else self.slowdown.as_json()
        return {
            "against": self.key,
            "outcome": self.outcome,
            "slowdown": interval,
            "raw": self.raw,
            "clock": self.clock,
        }


def save_base(path: Path, results: Results) -> None:
    """Write the cases of `results`; `StorageError` when that fails."""
    cases = {key: asdict(case) for key, case in results.cases.items()}
    content = {"format": FORMAT, "facts": results.facts, "cases": cases}
    publish(path, json.dumps(content, indent=1).encode())


def load_base(path: Path) -> Base:
    """Read what `save_base` wrote.

    Raises:
        UsageError: no such file, or not a base file of this format; the message says what is wrong.
        StorageError: it cannot be read.
    """
    hint = f"make one: dubstream bench --save {path}"
    try:
        content = json.loads(read_plain(path.resolve(), MAX_BYTES))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT}")
        return Base(dict(content["facts"]), {key: _case(one) for key, one in content["cases"].items()})
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"--against {path}: expected a base file, found none", hint=hint) from None
    except NotPlainFileError:
        raise UsageError(f"--against {path}: expected a plain file", hint=hint) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise UsageError(f"--against {path}: not a base file: {problem}", hint=hint) from None


def check_machine(base: Base, facts: Mapping[str, Any]) -> list[str]:
    """What differs but may, in words.

    Raises:
        UsageError: another processor, GPU, or number of cores or threads; nothing is to be measured then.
    """
    wrong = [
        f"{name} {base.facts.get(name)!r} there, {facts.get(name)!r} here"
        for name in _SAME
        if base.facts.get(name) != facts.get(name)
    ]
    if wrong:
        raise UsageError(
            f"the base was measured elsewhere: {'; '.join(wrong)}",
            hint="make one here with --save, or measure with its --threads",
        )
    return [
        f"{name} of the base: {base.facts.get(name)}, now: {facts.get(name)}"
        for name in _TOLD
        if base.facts.get(name) != facts.get(name)
    ]


def held_against(base: Base, results: Results, max_slowdown: float) -> list[Verdict]:
    """A verdict for every case of both runs, in the order measured, those not measured last."""
    judged = max(1, len(results.cases.keys() & base.cases.keys()))
    found = [_verdict(base, key, case, max_slowdown, judged) for key, case in results.cases.items()]
    return found + [Verdict(key, MISSING) for key in base.cases if key not in results.cases]


def slower(verdicts: list[Verdict]) -> Iterator[str]:
    """Every case that is slower, in words."""
    for verdict in verdicts:
        if verdict.outcome == SLOWER and verdict.slowdown is not None:
            one = verdict.slowdown
            yield f"{verdict.key} takes {one.estimate:.2f} times as long ({one.low:.2f} to {one.high:.2f})"


def _verdict(base: Base, key: str, case: MeasuredCase, max_slowdown: float, judged: int) -> Verdict:
    if key not in base.cases:
        return Verdict(key, NEW)
    before = base.cases[key]
    clock = WALL if case.cpu is None or before.cpu is None else clock_of(case, before)
    now, then = (case.wall, before.wall) if clock == WALL else (case.cpu, before.cpu)
    assert now is not None
    assert then is not None
    interval = slowdown(now, then, before.work, cases=judged)
    raw = float(np.median(case.wall.seconds) / np.median(before.wall.seconds))
    if min(len(now.seconds), len(then.seconds)) < MIN_SAMPLES:
        return Verdict(key, TOO_FEW, interval, raw, clock)
    return Verdict(key, SLOWER if interval.low > max_slowdown else KEPT, interval, raw, clock)


def clock_of(now: MeasuredCase, before: MeasuredCase) -> str:
    """Which time tells more of two runs; see the module."""
    return WALL if min(now.cpu_share, before.cpu_share) >= QUIET else CPU


def _case(plain: Mapping[str, Any]) -> MeasuredCase:
    work = Work(**{name: float(value) for name, value in plain["work"].items()})
    cpu = None if plain["cpu"] is None else _samples(plain["cpu"])
    return MeasuredCase(work, _positive(plain["cpu_share"]), _samples(plain["wall"]), cpu)


def _samples(plain: Mapping[str, Any]) -> Samples:
    return Samples(**{name: tuple(map(_positive, values)) for name, values in plain.items()})


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(f"received a sample of {value!r}, expected a positive number")
    return number
