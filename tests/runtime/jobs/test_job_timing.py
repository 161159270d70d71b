"""Times of a job summed over its streams, and its trace on one clock."""

from __future__ import annotations

import pytest
from streaming_parts import BUFFERS, Collector, batches_of, fill, make_frames, make_stages

from dubstream.runtime.streaming import HostDevice, Streamer
from dubstream.runtime.streaming.report import StreamReport, Tally
from dubstream.runtime.timing import Timing


def traced_job(*, trace: bool) -> Timing:
    """A block, then two streams of two passes, 5 and 4 frames."""
    timing = Timing(trace=trace)
    with timing.measure("audio", 9):
        pass
    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=2) as streamer:
        for part, frames in (("prepare", 5), ("synthesise", 4)):
            timing.add(part, streamer.run(batches_of(make_frames(frames), 2), fill, Collector(), trace=trace))
    return timing


def test_sums_are_kept_by_pass_and_stage() -> None:
    timing = traced_job(trace=False)
    assert timing.frames["audio"] == 9
    assert timing.frames["prepare/triple"] == 5
    assert timing.frames["synthesise/triple"] == 4
    for part, report in timing.streams:
        assert timing.wall_s[part] == report.wall_s
        assert timing.busy_s[f"{part}/triple"] == report.busy_s["triple"]
    assert timing.to_chrome_trace() == {}


def test_the_trace_has_a_process_per_pass_on_the_jobs_own_clock() -> None:
    timing = traced_job(trace=True)
    events = timing.to_chrome_trace()["traceEvents"]
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert processes == {0: "job", 1: "prepare", 2: "synthesise"}
    blocks = [event for event in events if event["ph"] == "X"]
    ends = {
        name: max(event["ts"] + event["dur"] for event in blocks if event["pid"] == number)
        for number, name in processes.items()
    }
    starts = {
        name: min(event["ts"] for event in blocks if event["pid"] == number)
        for number, name in processes.items()
    }
    assert 0 <= starts["job"] <= ends["job"] <= starts["prepare"]
    assert ends["prepare"] <= starts["synthesise"]
    assert sum(event["dur"] for event in blocks if event["name"] == "triple") == pytest.approx(
        1e6 * (timing.busy_s["prepare/triple"] + timing.busy_s["synthesise/triple"])
    )


def test_copies_are_counted_in_bytes_of_the_items_they_move() -> None:
    timing = traced_job(trace=False)
    sizes = {role: sum(b.item_bytes for b in BUFFERS if b.role == role) for role in ("input", "output")}
    assert all(sizes.values())
    report = timing.streams[0].report
    assert report.copied_bytes == {"upload": 5 * sizes["input"], "download": 5 * sizes["output"]}
    both = report + timing.streams[1].report
    assert both.copied_bytes == {"upload": 9 * sizes["input"], "download": 9 * sizes["output"]}
    assert both.began_s == report.began_s


def test_a_part_of_a_stage_is_taken_out_of_it() -> None:
    timing = Timing()
    with timing.measure("track", 12):
        pass
    whole = timing.busy_s["track"]
    timing.split("track", "track/s3fd", whole / 4, 3)
    assert timing.busy_s == {"track": pytest.approx(0.75 * whole), "track/s3fd": whole / 4}
    assert timing.frames == {"track": 12, "track/s3fd": 3}
    assert timing.calls == {"track": 1, "track/s3fd": 3}
    assert timing.networks() == {"s3fd": (3, 3)}


def test_networks_are_counted_over_all_passes_in_items_and_in_calls_that_had_any() -> None:
    def stream(*counts: int) -> StreamReport:
        tally = Tally(("align", "parsenet"), 0.0, trace=False)
        for count in counts:
            tally.drained(count)
        return tally.report(1.0)

    timing = Timing()
    timing.add("prepare", stream(4, 4, 1))
    timing.add("synthesise-0", stream(4, 0))
    timing.add("synthesise-1", stream(0) + stream(2))
    assert timing.networks() == {"parsenet": (15, 5)}
    assert timing.calls["synthesise-0/align"] == 1
    assert timing.streams[1].report.batches == 2
