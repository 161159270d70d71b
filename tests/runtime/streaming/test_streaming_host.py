"""Streams and events of the host mean what they mean in CUDA."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from dubstream.engines.errors import InternalError
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.host import HostDevice, HostStream

PATIENCE_S = 20.0
"""How long a test waits for what must happen; only a failing test waits that long."""


@pytest.fixture
def device():
    with HostDevice() as device:
        yield device
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("dubstream-")]


def passing(latch: threading.Event):
    """Work that holds its stream until `latch` is set."""

    def work() -> None:
        assert latch.wait(PATIENCE_S)

    return work


def failing(error: BaseException):
    def work() -> None:
        raise error

    return work


def launch_for_ever(stream: HostStream, work: Callable[[], None]) -> None:
    """Ends with the stream's refusal, as soon as its close has begun."""
    while True:
        stream.launch(work, "late")


def test_it_is_a_device(device: HostDevice) -> None:
    generic: Device = device
    assert generic.name == "host"
    assert device.stream("a").handle is None


def test_work_runs_in_order_on_the_streams_own_thread(device: HostDevice) -> None:
    stream, seen = device.stream("copy"), []
    for number in range(100):
        stream.launch(lambda number=number: seen.append((number, threading.current_thread().name)), "work")
    stream.synchronize()
    assert seen == [(number, "dubstream-copy") for number in range(100)]


def test_streams_run_side_by_side(device: HostDevice) -> None:
    first, second, latch = device.stream("first"), device.stream("second"), threading.Event()
    first.launch(passing(latch), "held")
    second.launch(latch.set, "release")
    first.synchronize()


def test_an_event_that_was_never_recorded_counts_as_reached(device: HostDevice) -> None:
    event, stream = device.event(), device.stream("a")
    event.synchronize(0.0)
    assert event.query()
    stream.wait(event)
    stream.synchronize()


def test_an_event_is_reached_behind_the_work_before_it(device: HostDevice) -> None:
    stream, event, latch = device.stream("a"), device.event(), threading.Event()
    stream.launch(passing(latch), "held")
    event.record(stream)
    assert not event.query()
    with pytest.raises(TimeoutError, match="not reached"):
        event.synchronize(0.001)
    latch.set()
    event.synchronize(PATIENCE_S)
    assert event.query()


def test_wait_means_the_latest_record_at_the_time_of_the_call(device: HostDevice) -> None:
    held, free, waiting = device.stream("held"), device.stream("free"), device.stream("waiting")
    event, latch, done = device.event(), threading.Event(), device.event()
    held.launch(passing(latch), "held")
    event.record(held)
    waiting.wait(event)
    done.record(waiting)
    event.record(free)
    event.synchronize(PATIENCE_S)
    assert not done.query()  # The later record is reached; the one waited for is not.
    latch.set()
    done.synchronize(PATIENCE_S)


def test_an_event_recorded_again_after_a_wait_does_not_hold_that_wait(device: HostDevice) -> None:
    held, free, waiting = device.stream("held"), device.stream("free"), device.stream("waiting")
    event, latch = device.event(), threading.Event()
    event.record(free)
    waiting.wait(event)
    held.launch(passing(latch), "held")
    event.record(held)
    waiting.synchronize()
    assert not event.query()
    latch.set()


def test_a_failure_skips_later_work_and_shows_everywhere_behind_it(device: HostDevice) -> None:
    stream, other, seen = device.stream("a"), device.stream("b"), []
    before, behind, beyond = device.event(), device.event(), device.event()
    error = ValueError("nonsense")
    before.record(stream)
    stream.launch(failing(error), "bad")
    stream.launch(lambda: seen.append("skipped"), "later")
    behind.record(stream)
    other.wait(behind)
    other.launch(lambda: seen.append("dependent"), "later")
    beyond.record(other)
    before.synchronize(PATIENCE_S)
    for wait in (stream.synchronize, behind.synchronize, behind.query, other.synchronize, beyond.synchronize):
        with pytest.raises(ValueError, match="nonsense") as caught:
            wait()
        assert caught.value is error
    assert seen == []


def test_close_skips_what_has_not_begun(device: HostDevice) -> None:
    stream, latch, begun, seen = device.stream("a"), threading.Event(), threading.Event(), []
    event = device.event()
    stream.launch(begun.set, "begun")
    stream.launch(passing(latch), "held")
    stream.launch(lambda: seen.append("pending"), "pending")
    event.record(stream)
    assert begun.wait(PATIENCE_S)
    closing = threading.Thread(target=stream.close)
    closing.start()
    with pytest.raises(InternalError, match="is closed"):
        launch_for_ever(stream, lambda: seen.append("late"))
    latch.set()
    closing.join(PATIENCE_S)
    assert seen == []
    with pytest.raises(InternalError, match="emptied before its work began"):
        event.synchronize(PATIENCE_S)
    stream.close()


def test_a_dropped_stream_skips_forgets_and_works_again(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, latch, seen, event = device.stream("a"), threading.Event(), [], device.event()
    stream.launch(passing(latch), "held")
    stream.launch(lambda: seen.append("pending"), "pending")
    event.record(stream)
    # `drop` marks the end of the queue once it has decided to skip: the work that has begun ends then.
    mark = stream.mark
    monkeypatch.setattr(stream, "mark", lambda: latch.set() or mark())
    stream.drop()
    with pytest.raises(InternalError, match="emptied before its work began"):
        event.synchronize(PATIENCE_S)
    stream.launch(lambda: seen.append("again"), "again")
    stream.synchronize()
    assert seen == ["again"]


def test_a_dropped_stream_forgets_its_failure(device: HostDevice) -> None:
    stream = device.stream("a")
    stream.launch(failing(ValueError("nonsense")), "bad")
    stream.drop()
    stream.synchronize()


def test_the_device_closes_its_streams() -> None:
    device = HostDevice()
    streams = [device.stream(name) for name in "abc"]
    streams[1].close()
    device.close()
    device.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("dubstream-")]
    with pytest.raises(InternalError, match="stream 'a' is closed"):
        streams[0].launch(lambda: None, "late")


def test_the_time_of_an_event_is_when_its_stream_got_there(device: HostDevice) -> None:
    first, second, begin, end = device.stream("a"), device.stream("b"), device.event(), device.event()
    before = time.perf_counter()
    begin.record(first)
    second.wait(begin)
    end.record(second)
    second.synchronize()
    assert before <= begin.time() <= end.time() <= time.perf_counter()
    with pytest.raises(InternalError, match="not reached"):
        device.event().time()


def test_copies_move_the_bytes_in_stream_order(device: HostDevice) -> None:
    stream = device.stream("copy")
    pinned, there, back = (device.pinned((3, 4), "uint8") for _ in range(3))
    pinned[:] = np.arange(12, dtype=np.uint8).reshape(3, 4)
    back[:] = 0
    device.upload(there[:2], pinned[:2], stream)
    device.download(back[:2], there[:2], stream)
    stream.synchronize()
    np.testing.assert_array_equal(back[:2], pinned[:2])
    assert not back[2].any()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 5), np.float32), "must be equal"),
        (np.zeros((3, 4), np.float64), "must be equal"),
        (np.zeros((3, 8), np.float32)[:, ::2], "C-contiguous"),
    ],
)
def test_copies_that_would_convert_or_gather_are_refused(
    device: HostDevice, source: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        device.upload(device.empty((3, 4), "float32"), source, device.stream("copy"))
    with pytest.raises(ValueError, match=message):
        device.download(device.pinned((3, 4), "float32"), source, device.stream("copy"))


def test_foreign_streams_and_events_are_refused(device: HostDevice) -> None:
    with pytest.raises(InternalError, match="expected a stream of HostDevice"):
        device.event().record(object())  # type: ignore[arg-type]
    with pytest.raises(InternalError, match="expected an event of HostDevice"):
        device.stream("a").wait(object())  # type: ignore[arg-type]
