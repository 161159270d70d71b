"""Sums, ratios and traces of a run."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from streaming_parts import BUFFERS, Collector, batches_of, fill, make_frames, make_stages

from dubstream.runtime.streaming import HostDevice, Slot, Streamer, StreamReport
from dubstream.runtime.streaming.report import Tally


def make_report(*, trace: bool = False) -> StreamReport:
    """Two batches of 3 and 2 frames: 10 s of wall time, the two stages are busy for 8 of them."""
    tally = Tally(("first", "second"), 100.0, trace=trace)
    for batch in range(2):
        begin = 100.0 + 5 * batch
        tally.busy("read", batch, begin, begin + 0.5)
        tally.busy("first", batch, begin + 1, begin + 2)
        tally.busy("second", batch, begin + 2, begin + 5)
        tally.waited("slot", 0.25)
        tally.drained(3 - batch)
    return tally.report(110.0)


def test_sums_and_ratios() -> None:
    report = make_report()
    assert (report.frames, report.batches, report.wall_s, report.fps) == (5, 2, 10.0, 0.5)
    assert report.resources_s == {
        "read": 1.0,
        "fill": 0.0,
        "drain": 0.0,
        "upload": 0.0,
        "download": 0.0,
        "compute": 8.0,
    }
    assert (report.slowest, report.wall_over_slowest) == ("compute", 1.25)
    assert list(report.ms_per_frame()) == ["read", "fill", "upload", "first", "second", "download", "drain"]
    assert report.ms_per_frame()["second"] == pytest.approx(1200)
    assert report.wait_s == {"read": 0.0, "fill": 0.0, "slot": 0.5, "drain": 0.0}
    assert report.spans == ()


def test_reports_add_up_and_later_spans_move_behind() -> None:
    both = make_report(trace=True) + make_report(trace=True)
    assert (both.frames, both.batches, both.wall_s) == (10, 4, 20.0)
    assert both.busy_s["second"] == 12.0
    assert both.wall_over_slowest == 1.25
    assert [span.begin_s for span in both.spans if span.name == "first"] == [1, 6, 11, 16]


def test_a_report_of_nothing_divides_by_nothing() -> None:
    report = Tally(("stage",), 1.0, trace=False).report(1.0)
    assert (report.fps, report.wall_over_slowest) == (0.0, float("inf"))
    assert set(report.ms_per_frame().values()) == {0.0}


def test_a_trace_names_its_rows_and_places_its_spans() -> None:
    trace = json.loads(json.dumps(make_report(trace=True).to_chrome_trace()))
    rows = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert list(rows.values()) == ["read", "fill", "upload", "compute", "download", "drain"]
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["name"] == "second"]
    assert [rows[span["tid"]] for span in spans] == ["compute", "compute"]
    assert [(span["ts"], span["dur"]) for span in spans] == [(2e6, 3e6), (7e6, 3e6)]


def test_a_run_traces_every_step_of_every_batch_in_the_order_of_a_frames_way() -> None:
    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=2, slots=2) as streamer:
        report = streamer.run(batches_of(make_frames(9), 2), fill, Collector(), trace=True)
        plain = streamer.run(batches_of(make_frames(9), 2), fill, Collector())
    steps = ["read", "fill", "upload", "triple", "increment", "download", "drain"]
    for batch in range(5):
        spans = sorted((span for span in report.spans if span.batch == batch), key=lambda span: span.begin_s)
        assert [span.name for span in spans] == steps
        assert all(a.end_s <= b.begin_s for a, b in pairwise(spans))
    for name in steps:
        total = sum(span.end_s - span.begin_s for span in report.spans if span.name == name)
        assert report.busy_s[name] == pytest.approx(total)
    assert min(span.begin_s for span in report.spans) >= 0
    assert max(span.end_s for span in report.spans) <= report.wall_s
    assert plain.spans == ()


def test_time_held_in_a_stage_counts_for_that_stage_and_as_waiting_elsewhere() -> None:
    seen: list[int] = []

    def hold(number: int) -> None:
        while len(seen) < number:  # Until the batch before was drained: the slowest this stage can be.
            pass

    def drain(slot: Slot) -> None:
        seen.append(slot.sequence)

    with Streamer(HostDevice(), BUFFERS, make_stages(hold), batch=1) as streamer:
        report = streamer.run(batches_of(make_frames(20), 1), fill, drain)
    assert report.slowest == "compute"
    assert report.busy_s["triple"] > report.busy_s["increment"]
    assert report.wall_over_slowest >= 1.0
