"""The streamer: values, order, overlap, slot isolation, reuse, memory."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from streaming_parts import (
    BUFFERS,
    ArrayStage,
    Collector,
    Frames,
    HookedDevice,
    Latches,
    batches_of,
    expected,
    fill,
    make_frames,
    make_stages,
)

from dubstream.engines.errors import InternalError, UsageError
from dubstream.runtime.streaming import HostDevice, Slot, Stream, Streamer

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_results_do_not_depend_on_slots_and_batch(slots: int, batch: int) -> None:
    frames, drain = make_frames(10), Collector()
    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=batch, slots=slots) as streamer:
        report = streamer.run(batches_of(frames, batch), fill, drain)
    np.testing.assert_array_equal(drain.frames, expected(frames))
    assert drain.firsts == list(range(0, 10, batch))
    assert (report.frames, report.batches) == (10, -(-10 // batch))


def test_no_batches_are_a_run_too() -> None:
    drain = Collector()
    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=4) as streamer:
        report = streamer.run([], fill, drain)
    assert (report.frames, report.batches, drain.parts) == (0, 0, [])


def test_a_batch_of_no_items_keeps_its_place_and_does_no_work() -> None:
    worked: list[int] = []
    device = HookedDevice(on_upload=worked.append, on_download=worked.append)
    stages = make_stages(before=worked.append)
    drained: list[tuple[str, int]] = []

    def fill_sometimes(slot: Slot, number: int) -> None:
        slot.first, slot.count, slot.context = 10 * number, number % 2, f"facts {number}"

    with Streamer(device, BUFFERS, stages, batch=1) as streamer:
        report = streamer.run(
            range(5), fill_sometimes, lambda slot: drained.append((slot.context, slot.count))
        )
    assert drained == [(f"facts {number}", number % 2) for number in range(5)]
    assert (report.frames, report.batches) == (2, 5)
    assert len(worked) == 2 * 3


def test_only_the_items_in_use_are_copied() -> None:
    copied: list[int] = []

    class Watching(HostDevice):
        def upload(self, dst: Any, src: Any, stream: Stream) -> None:
            copied.append(len(src))
            super().upload(dst, src, stream)

        def download(self, dst: Any, src: Any, stream: Stream) -> None:
            copied.append(len(dst))
            super().download(dst, src, stream)

    with Streamer(Watching(), BUFFERS, make_stages(), batch=4) as streamer:
        streamer.run(batches_of(make_frames(6), 4), fill, Collector())
    assert copied == [4, 4, 2, 2]


def test_every_stage_is_bound_to_every_slot_before_the_first_frame() -> None:
    stages = make_stages()
    with Streamer(HostDevice(), BUFFERS, stages, batch=1, slots=3):
        pass
    assert [stage.bound for stage in stages] == [[0, 1, 2], [0, 1, 2]]


def test_runs_follow_one_another_in_the_same_memory() -> None:
    frames, addresses = make_frames(9), set()

    def fill_and_look(slot: Slot, item: tuple[int, Frames]) -> None:
        addresses.add((slot.index, slot.inputs["x"].ctypes.data, slot.device["y"].ctypes.data))
        fill(slot, item)

    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=2, slots=2) as streamer:
        for _ in range(3):
            drain = Collector()
            streamer.run(batches_of(frames, 2), fill_and_look, drain)
            np.testing.assert_array_equal(drain.frames, expected(frames))
    assert len(addresses) == 2


# Overlap, proved by latches: each test would wait for ever (and fail) if the two steps took turns.


@pytest.mark.parametrize("slots", [2, 3])
def test_the_next_upload_runs_while_a_stage_works(slots: int) -> None:
    uploaded = Latches()
    device = HookedDevice(on_upload=uploaded.open)
    stages = make_stages(before=lambda number: uploaded.wait(number + 1) if number < 7 else None)
    run_and_check(device, stages, slots=slots)


@pytest.mark.parametrize("slots", [2, 3])
def test_the_next_upload_and_stage_run_while_a_download_works(slots: int) -> None:
    computed = Latches()
    device = HookedDevice(on_download=lambda number: computed.wait(number + 1) if number < 7 else None)
    run_and_check(device, make_stages(before=computed.open), slots=slots)


@pytest.mark.parametrize("slots", [2, 3])
def test_the_next_stage_runs_while_a_batch_is_drained(slots: int) -> None:
    computed = Latches()

    class Held(Collector):
        def __call__(self, slot: Slot) -> None:
            if slot.context < 7:
                computed.wait(slot.context + 1)
            super().__call__(slot)

    run_and_check(HostDevice(), make_stages(before=computed.open), slots=slots, drain=Held())


def test_the_source_is_read_ahead_while_a_stage_works() -> None:
    read = Latches()

    def source(frames: Frames) -> Iterator[tuple[int, Frames]]:
        for item in batches_of(frames, 2):
            read.open(item[0] // 2)
            yield item

    # With one slot the reader is the only one that can be ahead: two batches decoded, one in its hand.
    stages = make_stages(before=lambda number: read.wait(min(number + 3, 7)))
    frames, drain = make_frames(16), Collector()
    with Streamer(HostDevice(), BUFFERS, stages, batch=2, slots=1, prefetch=2) as streamer:
        streamer.run(source(frames), fill, drain)
    np.testing.assert_array_equal(drain.frames, expected(frames))


def run_and_check(
    device: HostDevice, stages: list[ArrayStage], *, slots: int, drain: Collector | None = None
) -> None:
    """Eight batches of two through the streamer, compared with what must come out."""
    frames, drain = make_frames(16), drain or Collector()
    with Streamer(device, BUFFERS, stages, batch=2, slots=slots) as streamer:
        streamer.run(batches_of(frames, 2), fill, drain)
    np.testing.assert_array_equal(drain.frames, expected(frames))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_slow_drain_never_sees_the_next_batch(slots: int) -> None:
    """Each drain first lets every other slot be filled, uploaded and computed, then looks at its own."""
    frames, filled, draining = make_frames(39), Latches(), set[int]()
    last = 12

    def watched_fill(slot: Slot, item: tuple[int, Frames]) -> None:
        assert slot.index not in draining
        fill(slot, item)
        filled.open(item[0] // 3)

    class Slow(Collector):
        def __call__(self, slot: Slot) -> None:
            draining.add(slot.index)
            inputs = slot.inputs["x"][: slot.count].copy()
            filled.wait(min(slot.context + slots - 1, last))
            assert not filled.is_open(slot.context + slots)
            np.testing.assert_array_equal(slot.inputs["x"][: slot.count], inputs)
            super().__call__(slot)
            draining.remove(slot.index)

    drain = Slow()
    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=3, slots=slots) as streamer:
        streamer.run(batches_of(frames, 3), watched_fill, drain)
    np.testing.assert_array_equal(drain.frames, expected(frames))


def test_the_source_is_never_far_ahead() -> None:
    slots, prefetch, drained = 2, 3, [0]

    def source(frames: Frames) -> Iterator[tuple[int, Frames]]:
        for number, item in enumerate(batches_of(frames, 1)):
            # In slots, in the queue, in the calling thread's hand; this one is in the reader's.
            assert number - drained[0] <= slots + prefetch + 1
            yield item

    class Counting(Collector):
        def __call__(self, slot: Slot) -> None:
            super().__call__(slot)
            drained[0] += 1

    drain = Counting()
    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=1, slots=slots, prefetch=prefetch) as streamer:
        streamer.run(source(make_frames(200)), fill, drain)
    assert drained == [200]


def test_each_part_runs_in_its_own_thread() -> None:
    names: dict[str, str] = {}

    def source(frames: Frames) -> Iterator[tuple[int, Frames]]:
        try:
            yield from batches_of(frames, 1)
        finally:
            names["source"] = threading.current_thread().name

    def watched_fill(slot: Slot, item: tuple[int, Frames]) -> None:
        names["fill"] = threading.current_thread().name
        fill(slot, item)

    def drain(slot: Slot) -> None:
        names["drain"] = threading.current_thread().name

    stages = make_stages(before=lambda number: names.update(stage=threading.current_thread().name))
    with Streamer(HostDevice(), BUFFERS, stages, batch=1) as streamer:
        streamer.run(source(make_frames(2)), watched_fill, drain)
    assert names == {
        "source": "dubstream-read",
        "fill": threading.current_thread().name,
        "stage": "dubstream-compute",
        "drain": "dubstream-drain",
    }


def test_memory_does_not_grow_with_the_number_of_batches() -> None:
    frames, marks = make_frames(4), {}

    def source(count: int) -> Iterator[tuple[int, Frames]]:
        for number in range(count):
            yield 4 * number, frames

    def drain(slot: Slot) -> None:
        if slot.sequence in (100, 600):
            marks[slot.sequence] = tracemalloc.get_traced_memory()[0]

    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=4) as streamer:
        tracemalloc.start()
        try:
            streamer.run(source(620), fill, drain)
        finally:
            tracemalloc.stop()
    # Anything kept per batch would be 500 x 50 bytes at the very least.
    assert marks[600] - marks[100] < 16_000


@pytest.mark.parametrize("names", [(), ("same", "same"), ("upload",), ("fine", "drain")])
def test_stage_names_that_make_no_sense_are_refused(names: tuple[str, ...]) -> None:
    stages = [ArrayStage(name, "x", "y", lambda x: x) for name in names]
    with pytest.raises(UsageError, match="streamer stages: received"):
        Streamer(HostDevice(), BUFFERS, stages, batch=1)


def test_no_prefetch_is_refused() -> None:
    with pytest.raises(UsageError, match="prefetch of 0"):
        Streamer(HostDevice(), BUFFERS, make_stages(), batch=1, prefetch=0)


def test_one_run_at_a_time() -> None:
    def nested(slot: Slot, item: tuple[int, Frames]) -> None:
        streamer.run([], fill, Collector())

    streamer = Streamer(HostDevice(), BUFFERS, make_stages(), batch=1)
    with streamer, pytest.raises(InternalError, match="already running"):
        streamer.run(batches_of(make_frames(1), 1), nested, Collector())


def test_a_closed_streamer_says_so() -> None:
    streamer = Streamer(HostDevice(), BUFFERS, make_stages(), batch=1)
    streamer.close()
    streamer.close()
    with pytest.raises(InternalError, match="the streamer is closed"):
        streamer.run([], fill, Collector())
