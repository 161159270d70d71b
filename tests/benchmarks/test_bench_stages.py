"""Costs of a dub's stages from made-up streams, where every figure is known."""

from __future__ import annotations

import pytest

from dubstream.benchmarks.bench.dubs.stages import (
    pass_costs,
    percentiles_ms,
    queue_waits,
    rest_s,
    stage_costs,
)
from dubstream.runtime.streaming.report import StreamReport, Tally
from dubstream.runtime.timing import Block, Timing

STEPS = (("read", 1.0), ("fill", 0.5), ("upload", 0.25), ("net", 2.0), ("download", 0.25), ("drain", 0.5))


def stream(batches: int, gap: float, *, stage: str = "net", slow: float = 0.0) -> StreamReport:
    """Batches of two items, step behind step with a gap between; the last batch's stage is slower."""
    tally = Tally((stage,), 100.0, trace=True, item_bytes={"upload": 100, "download": 10})
    for batch in range(batches):
        clock = 100.0 + 20 * batch
        for name, seconds in STEPS:
            length = seconds + (slow if name == "net" and batch == batches - 1 else 0.0)
            tally.busy(stage if name == "net" else name, batch, clock, clock + length)
            clock += length + gap
        tally.waited("slot", 0.125)
        tally.drained(2)
    return tally.report(100.0 + 20 * batches)


def job() -> Timing:
    """Sound and tracking, two streams of the first pass, one of the second, joining."""
    timing = Timing(trace=True, began_s=90.0)
    for name, begin, end in (("audio", 90.0, 92.0), ("track", 92.0, 95.0)):
        timing.blocks.append(Block(name, begin, end))
        timing._count(name, end - begin, 6)
    timing.add("prepare", stream(3, 0.0, stage="recon"))
    timing.add("prepare", stream(3, 0.5, stage="dnet"))
    timing.add("synthesise", stream(4, 0.25, slow=4.0))
    timing.blocks.append(Block("assemble", 200.0, 201.0))
    timing._count("assemble", 1.0, 6)
    return timing


def test_stages_come_in_the_order_of_a_frames_way() -> None:
    names = [stage.stage for stage in stage_costs([job()])]
    assert names[:4] == ["audio", "track", "prepare/read", "prepare/fill"]
    assert names[5:7] == ["prepare/recon", "prepare/dnet"]
    assert names[-1] == "assemble"
    assert len(set(names)) == len(names)


def test_a_stage_has_its_batches_its_queue_and_its_copies() -> None:
    found = {stage.stage: stage for stage in stage_costs([job()])}
    net = found["synthesise/net"]
    assert (net.busy_s, net.frames, list(net.batches_s)) == (12.0, 8, [2.0, 2.0, 2.0, 6.0])
    assert net.percentiles_ms() == pytest.approx({"p50": 2000, "p95": 5400, "p99": 5880})
    assert list(net.queue_s) == [0.25] * 4
    assert net.copied_bytes is None
    assert found["synthesise/upload"].copied_bytes == 8 * 100
    assert found["prepare/download"].copied_bytes == 12 * 10
    assert (found["synthesise/read"].queue_s, found["track"].queue_s) == ([], [])
    assert list(found["track"].batches_s) == [3.0]


def test_streams_of_one_pass_share_their_steps_and_keep_their_own_stages() -> None:
    found = {stage.stage: stage for stage in stage_costs([job()])}
    assert len(found["prepare/read"].batches_s) == 6
    assert len(found["prepare/dnet"].batches_s) == 3
    assert list(found["prepare/fill"].queue_s) == [0.0] * 3 + [0.5] * 3


def test_runs_add_up() -> None:
    once, twice = stage_costs([job()]), stage_costs([job(), job()])
    for one, two in zip(once, twice, strict=True):
        assert two.busy_s == 2 * one.busy_s
        assert len(two.batches_s) == 2 * len(one.batches_s)
        assert two.percentiles_ms().get("p50") == pytest.approx(one.percentiles_ms().get("p50"))


def test_a_pass_is_as_fast_as_its_slowest_resource_allows() -> None:
    prepare, synthesise = pass_costs([job()])
    assert (synthesise.part, synthesise.slowest, synthesise.wall_s) == ("synthesise", "compute", 80.0)
    assert synthesise.wall_over_slowest == pytest.approx(80 / 12)
    assert synthesise.resources_s["compute"] == 12.0
    assert synthesise.waits_s["slot"] == 0.5
    assert prepare.resources_s["compute"] == 12.0
    assert prepare.wall_over_slowest == pytest.approx(120 / 12)


def test_what_no_stage_accounts_for_is_said() -> None:
    timing = job()
    assert rest_s(timing, 2 + 3 + 120 + 80 + 1 + 7.5) == pytest.approx(7.5)
    assert rest_s(timing, 1.0) == 0.0


def test_clocks_that_disagree_give_no_negative_wait() -> None:
    assert queue_waits(stream(2, -0.01))["net"] == [0.0, 0.0]


def test_no_samples_no_percentiles() -> None:
    assert percentiles_ms([]) == {}
