"""Base files: what may be compared, and what a file has to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dubstream.benchmarks.bench.method.base import (
    Base,
    check_machine,
    held_against,
    load_base,
    save_base,
    slower,
)
from dubstream.benchmarks.bench.method.results import MeasuredCase, Results
from dubstream.benchmarks.bench.method.statistics import Samples, Work
from dubstream.engines.errors import UsageError

FACTS = {"cpu": "A", "cores": 2, "threads": 2, "versions": {"onnxruntime": "1"}, "commit": "abc"}


def case(seconds: float, rounds: int = 9, *, share: float = 1.0, cpu: float | None = None) -> MeasuredCase:
    def samples(value: float) -> Samples:
        return Samples((value,) * rounds, (1e-9,) * rounds, (1e-9,) * rounds)

    return MeasuredCase(Work(1e9, 1e6), share, samples(seconds), samples(seconds if cpu is None else cpu))


def results(**cases: MeasuredCase) -> Results:
    made = Results(FACTS)
    made.cases |= cases
    return made


def outcomes(base: dict[str, MeasuredCase], **cases: MeasuredCase) -> dict[str, str]:
    return {one.key: one.outcome for one in held_against(Base(dict(FACTS), base), results(**cases), 1.10)}


def test_every_case_of_both_runs_has_a_verdict() -> None:
    found = outcomes(
        {"a": case(1.0), "b": case(1.0), "c": case(1.0), "d": case(1.0)},
        a=case(1.05), b=case(1.2), d=case(2.0, rounds=3), e=case(1.0),
    )  # fmt: skip
    assert found == {
        "a": "kept", "b": "slower", "d": "too few samples", "e": "not in the base", "c": "not measured",
    }  # fmt: skip


def test_findings_are_told_in_words() -> None:
    verdicts = held_against(Base({}, {"a": case(1.0)}), results(a=case(1.25)), 1.10)
    assert list(slower(verdicts)) == ["a takes 1.25 times as long (1.25 to 1.25)"]


@pytest.mark.parametrize(
    ("now", "before", "outcome", "clock"),
    [
        (case(2.0, cpu=1.0), case(1.0, cpu=1.0), "slower", "wall"),  # all of it waiting, on a quiet machine
        (case(2.0, cpu=1.0, share=0.5), case(1.0), "kept", "cpu"),
        (case(2.0, cpu=2.0, share=0.5), case(1.0), "slower", "cpu"),
        (case(1.0), case(2.0, cpu=1.0, share=0.5), "kept", "cpu"),
    ],
)
def test_the_clock_follows_the_machine(
    now: MeasuredCase, before: MeasuredCase, outcome: str, clock: str
) -> None:
    (verdict,) = held_against(Base({}, {"a": before}), results(a=now), 1.10)
    assert (verdict.outcome, verdict.clock) == (outcome, clock)


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    saved = results(a=case(1.0), b=case(2.0, share=0.4))
    save_base(tmp_path / "base.json", saved)
    assert load_base(tmp_path / "base.json") == Base(FACTS, saved.cases)
    assert [path.name for path in tmp_path.iterdir()] == ["base.json"]


def test_other_versions_are_told_and_another_machine_is_refused() -> None:
    base = Base(dict(FACTS), {})
    assert check_machine(base, FACTS) == []
    newer = {**FACTS, "versions": {"onnxruntime": "2"}}
    assert check_machine(base, newer) == [
        "versions of the base: {'onnxruntime': '1'}, now: {'onnxruntime': '2'}"
    ]
    for change in ({"cpu": "B"}, {"cores": 4}, {"threads": 1}, {"gpu": {"name": "H200"}}):
        with pytest.raises(UsageError, match=f"elsewhere: {next(iter(change))}"):
            check_machine(base, {**FACTS, **change})


def _spoiled(change: Any) -> bytes:
    made = {"format": 1, "facts": FACTS, "cases": {"a": json.loads(json.dumps(_plain()))}}
    change(made)
    return json.dumps(made).encode()


def _plain() -> dict[str, Any]:
    series = {"seconds": [1.0], "s_per_mac": [1.0], "s_per_byte": [1.0]}
    return {"work": {"macs": 1.0, "nbytes": 1.0}, "cpu_share": 1.0, "wall": series, "cpu": None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"format": 1}',
        _spoiled(lambda made: made.update(format=2)),
        _spoiled(lambda made: made.update(cases=[])),
        _spoiled(lambda made: made["cases"]["a"].pop("wall")),
        _spoiled(lambda made: made["cases"]["a"]["wall"].update(seconds=[])),
        _spoiled(lambda made: made["cases"]["a"]["wall"].update(seconds=[0.0])),
        _spoiled(lambda made: made["cases"]["a"]["wall"].update(seconds=[float("nan")])),
        _spoiled(lambda made: made["cases"]["a"]["wall"].update(more=[1.0])),
        _spoiled(lambda made: made["cases"]["a"].update(work={"macs": "many", "nbytes": 1})),
    ],
)
def test_what_is_no_base_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"not a base file.*dubstream bench --save"):
        load_base(path)


def test_a_folder_is_no_base_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a plain file"):
        load_base(tmp_path)
