"""Whatever goes wrong ends the run with a named error, no thread left, and the streamer usable."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from streaming_parts import (
    BUFFERS,
    PATIENCE_S,
    ArrayStage,
    Collector,
    Frames,
    HookedDevice,
    batches_of,
    expected,
    fill,
    make_frames,
    make_stages,
    run_threads,
)

from dubstream.engines.errors import InternalError, MediaError, StageError, StorageError
from dubstream.runtime.streaming import HostDevice, Slot, Stream, Streamer

pytestmark = pytest.mark.usefixtures("no_threads_left")

BATCH = 2
BAD = 3
"""The batch that fails, its first frame is 6."""


class Faulty:
    """A streamer of which one place fails at batch `BAD`, until `error` is taken away."""

    def __init__(self, place: str, error: BaseException) -> None:
        self.place, self.error = place, error
        self.drain = Collector()

    def at(self, place: str) -> Callable[[int], None]:
        def check(number: int) -> None:
            if self.error is not None and place == self.place and number == BAD:
                raise self.error

        return check

    def source(self, frames: Frames) -> Iterator[tuple[int, Frames]]:
        for first, part in batches_of(frames, BATCH):
            self.at("read")(first // BATCH)
            yield first, part

    def fill(self, slot: Slot, item: tuple[int, Frames]) -> None:
        self.at("fill")(item[0] // BATCH)
        fill(slot, item)

    def write(self, slot: Slot) -> None:
        self.at("drain")(slot.context)
        self.drain(slot)

    def run(self, streamer: Streamer, frames: Frames) -> None:
        streamer.run(self.source(frames), self.fill, self.write)

    def streamer(self, slots: int) -> Streamer:
        device = HookedDevice(self.at("upload"), self.at("download"))
        stages = [*make_stages(self.at("triple")), ArrayStage("last", "y", "y", lambda y: y, self.at("last"))]
        return Streamer(device, BUFFERS, stages, batch=BATCH, slots=slots)


def check_usable(faulty: Faulty, streamer: Streamer) -> None:
    assert run_threads() == []
    faulty.place, faulty.drain = "nowhere", Collector()
    # The hooks count copies over both runs; numbers past BAD never fail.
    frames = make_frames(11, seed=5)
    faulty.run(streamer, frames)
    np.testing.assert_array_equal(faulty.drain.frames, expected(frames))
    assert run_threads() == []


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("place", ["read", "fill", "upload", "triple", "last", "download", "drain"])
def test_a_nameless_error_gets_the_step_and_the_frame(place: str, slots: int) -> None:
    cause = ValueError("nonsense")
    faulty = Faulty(place, cause)
    with faulty.streamer(slots) as streamer:
        with pytest.raises(StageError) as caught:
            faulty.run(streamer, make_frames(40))
        assert (caught.value.stage, caught.value.frame) == (place, BAD * BATCH)
        assert caught.value.cause is cause
        assert caught.value.__cause__ is cause
        check_usable(faulty, streamer)


@pytest.mark.parametrize("place", ["triple", "last", "download", "drain"])
def test_batches_before_the_failure_are_drained(place: str) -> None:
    faulty = Faulty(place, ValueError("nonsense"))
    frames = make_frames(40)
    with faulty.streamer(2) as streamer, pytest.raises(StageError):
        faulty.run(streamer, frames)
    np.testing.assert_array_equal(faulty.drain.frames, expected(frames[: BAD * BATCH]))


@pytest.mark.parametrize("error", [MediaError("short file", hint="use another"), StorageError("disk full")])
@pytest.mark.parametrize("place", ["read", "fill", "drain"])
def test_a_named_error_of_the_caller_passes_unchanged(place: str, error: Exception) -> None:
    faulty = Faulty(place, error)
    with faulty.streamer(2) as streamer:
        with pytest.raises(type(error)) as caught:
            faulty.run(streamer, make_frames(40))
        assert caught.value is error
        check_usable(faulty, streamer)


def test_a_stage_that_cannot_be_enqueued_is_named_too() -> None:
    class Refusing(ArrayStage):
        def enqueue(self, slot: Slot, stream: Stream) -> None:
            raise MemoryError("device full")

    stages = [*make_stages(), Refusing("refusing", "y", "y", lambda y: y)]
    message = "stage 'refusing' failed at frame 0: MemoryError: device full"
    streamer = Streamer(HostDevice(), BUFFERS, stages, batch=2)
    with streamer, pytest.raises(StageError, match=message):
        streamer.run(batches_of(make_frames(8), 2), fill, Collector())
    assert run_threads() == []


@pytest.mark.parametrize(("first", "count"), [(-1, 0), (-1, 1), (0, -1), (0, 3)])
def test_a_fill_that_forgets_its_count_is_our_own_fault(first: int, count: int) -> None:
    def forgetful(slot: Slot, item: Any) -> None:
        slot.first, slot.count = first, count

    streamer = Streamer(HostDevice(), BUFFERS, make_stages(), batch=2)
    with streamer, pytest.raises(InternalError, match="expected a first frame and 0 to 2 items"):
        streamer.run([None], forgetful, Collector())


def endless(frames: Frames) -> Iterator[tuple[int, Frames]]:
    number = 0
    while True:
        yield BATCH * number, frames
        number += 1


def test_an_abandoned_source_is_closed_in_its_own_thread() -> None:
    closed: list[str] = []

    def source() -> Iterator[tuple[int, Frames]]:
        try:
            yield from endless(make_frames(BATCH))
        finally:
            closed.append(threading.current_thread().name)

    def drain(slot: Slot) -> None:
        raise StorageError("disk full")

    streamer = Streamer(HostDevice(), BUFFERS, make_stages(), batch=BATCH)
    with streamer, pytest.raises(StorageError):
        streamer.run(source(), fill, drain)
    assert closed == ["dubstream-read"]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_ctrl_c_ends_the_run(number: int) -> None:
    def drain(slot: Slot) -> None:
        if slot.sequence == number:
            _thread.interrupt_main()

    with Streamer(HostDevice(), BUFFERS, make_stages(), batch=BATCH) as streamer:
        with pytest.raises(KeyboardInterrupt):
            streamer.run(endless(make_frames(BATCH)), fill, drain)
        assert run_threads() == []
        drain_all = Collector()
        frames = make_frames(7)
        streamer.run(batches_of(frames, BATCH), fill, drain_all)
    np.testing.assert_array_equal(drain_all.frames, expected(frames))


class CancelledError(BaseException):
    """What a signal handler's flag turns into."""


def test_the_cancel_hook_ends_the_run_between_batches() -> None:
    drain = Collector()

    def cancel() -> None:
        if len(drain.firsts) >= 3:
            raise CancelledError

    streamer = Streamer(HostDevice(), BUFFERS, make_stages(), batch=BATCH)
    with streamer, pytest.raises(CancelledError):
        streamer.run(endless(make_frames(BATCH)), fill, drain, cancel=cancel)
    assert run_threads() == []


def test_the_cancel_hook_is_asked_while_a_stage_is_stuck_and_interrupts_it() -> None:
    stuck, interrupted = threading.Event(), threading.Event()

    class Stuck(ArrayStage):
        def interrupt(self) -> None:
            interrupted.set()

    in_time: list[bool] = []

    def hold(number: int) -> None:
        stuck.set()
        in_time.append(interrupted.wait(PATIENCE_S))
        raise RuntimeError("interrupted")

    def cancel() -> None:
        if stuck.is_set():
            raise CancelledError

    with (
        Streamer(
            HostDevice(), BUFFERS, [Stuck("stuck", "x", "y", lambda x: x, hold)], batch=BATCH
        ) as streamer,
        pytest.raises(CancelledError),
    ):
        streamer.run(endless(make_frames(BATCH)), fill, Collector(), cancel=cancel)
    assert in_time == [True]
    assert run_threads() == []


def test_a_run_that_ends_well_interrupts_nothing() -> None:
    class Watched(ArrayStage):
        interrupted = False

        def interrupt(self) -> None:
            self.interrupted = True

    stage = Watched("watched", "x", "y", lambda x: x)
    with Streamer(HostDevice(), BUFFERS, [stage], batch=BATCH) as streamer:
        streamer.run(batches_of(make_frames(9), BATCH), fill, Collector())
    assert not stage.interrupted
