"""CUDA graphs of stages: real pycuda and cuda-bindings over a fake driver."""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_parts import SCHEDULES, HostWork, cuda_streamer, kernel_stages, run_frames, wrong_batches
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda
from streaming_parts import expected, make_frames

from dubstream.engines.errors import DeviceError, StageError
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.cuda_graph import GraphStage, graphed
from dubstream.runtime.streaming.device import Stream
from dubstream.runtime.streaming.slots import Slot
from dubstream.runtime.streaming.stages import Stage


class Lines(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> list[str]:
        logging.getLogger("dubstream").addHandler(self)
        return self.lines

    def __exit__(self, *exc: object) -> None:
        logging.getLogger("dubstream").removeHandler(self)


def issued(fake: FakeCuda, phase: str = "issue") -> Counter[str]:
    return Counter(entry.name for entry in fake.log() if entry.phase == phase)


@over_fake_cuda()
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_slots_second_full_batch_is_recorded_and_replayed_from_then_on(fake: FakeCuda, slots: int) -> None:
    frames = make_frames(3 * 12)
    with fake.nothing_left(), CudaDevice() as device:
        stages = graphed(kernel_stages(fake))
        with cuda_streamer(device, stages, slots=slots) as streamer:
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
            np.testing.assert_array_equal(run_frames(streamer, frames[::-1]), expected(frames[::-1]))
            assert fake.live()["executables"] == 2 * slots
        del streamer, stages
    assert issued(fake)["triple"] == issued(fake)["increment"] == slots
    assert issued(fake, "capture")["triple"] == slots
    assert issued(fake)["graph"] == 2 * (2 * 12 - slots)


@over_fake_cuda()
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_result_does_not_depend_on_when_graphs_run(fake: FakeCuda, slots: int) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        wrong = {}
        for schedule in SCHEDULES:
            wrong[str(schedule)] = wrong_batches(fake, device, graphed(kernel_stages(fake)), slots, schedule)
    assert wrong == dict.fromkeys(wrong, 0)


@over_fake_cuda()
def test_short_batches_go_plainly_between_replays(fake: FakeCuda) -> None:
    with CudaDevice() as device, cuda_streamer(device, graphed(kernel_stages(fake)), slots=2) as streamer:
        for count in (20, 4, 25, 1, 12):
            frames = make_frames(count, seed=count)
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
    short = 4
    assert issued(fake)["triple"] == 2 + short


@over_fake_cuda()
def test_binding_again_forgets_the_recording(fake: FakeCuda) -> None:
    """New slots have new addresses: a replay of the old ones would read and write freed memory."""
    frames = make_frames(15)
    with fake.nothing_left(), CudaDevice() as device:
        stages = graphed(kernel_stages(fake))
        for _ in range(2):
            with cuda_streamer(device, stages, slots=2) as streamer:
                np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
            del streamer
        del stages


class Changing(HostWork):
    capturable = False


@over_fake_cuda()
def test_a_stage_that_says_so_is_never_recorded_and_the_log_says_why(fake: FakeCuda) -> None:
    frames = make_frames(30)
    with CudaDevice() as device, Lines() as lines:
        logging.getLogger("dubstream").setLevel(logging.INFO)
        triple, increment = kernel_stages(fake)
        stages = graphed([triple, Changing(increment, lambda number: None)])
        with cuda_streamer(device, stages, slots=2) as streamer:
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
    assert lines == ["stage 'increment' goes without a CUDA graph: it says that batches differ"]
    assert issued(fake)["increment"] == 10
    assert issued(fake)["triple"] == 2


def synchronising(device: CudaDevice) -> Callable[[Slot, Any], None]:
    return lambda slot, stream: stream.synchronize()


def allocating(device: CudaDevice) -> Callable[[Slot, Any], None]:
    return lambda slot, stream: device.empty((4,), "uint8") and None


class WithTrouble:
    """Does something a recording must not see before it enqueues the inner stage."""

    def __init__(self, inner: Stage, trouble: Callable[[Slot, Any], None]) -> None:
        self.name, self.bind = inner.name, inner.bind
        self._inner, self._trouble = inner, trouble

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        self._trouble(slot, stream)
        self._inner.enqueue(slot, stream)


@over_fake_cuda()
@pytest.mark.parametrize("trouble", ["synchronising", "allocating"])
def test_a_stage_that_cannot_be_recorded_runs_plainly_and_the_log_says_why_once(
    fake: FakeCuda, trouble: str
) -> None:
    frames = make_frames(41)
    with fake.nothing_left(), CudaDevice() as device, Lines() as lines:
        triple, increment = kernel_stages(fake)
        stages = graphed([triple, WithTrouble(increment, globals()[trouble](device))])
        with cuda_streamer(device, stages, slots=3) as streamer:
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
        del streamer, stages
    assert len(lines) == 1
    assert lines[0].startswith("stage 'increment' goes without a CUDA graph: ")
    assert "capturing" in lines[0]
    # Always ended, or everything behind it would have been swallowed.
    calls = issued(fake, "call")
    assert calls["cuStreamBeginCapture"] == calls["cuStreamEndCapture"] == 3 + 1
    assert issued(fake)["increment"] == 14


@over_fake_cuda()
def test_an_empty_recording_is_noticed_instead_of_replayed(fake: FakeCuda) -> None:
    """As when a library enqueues on a stream of its own: every replay would leave out its work."""
    calls, recording = [0], 3

    class Astray(WithTrouble):
        def enqueue(self, slot: Slot, stream: Stream) -> None:
            calls[0] += 1
            if calls[0] != recording:
                self._inner.enqueue(slot, stream)

    frames = make_frames(30)
    with CudaDevice() as device, Lines() as lines:
        triple, increment = kernel_stages(fake)
        stages = graphed([triple, Astray(increment, lambda slot, stream: None)])
        with cuda_streamer(device, stages, slots=2) as streamer:
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
    assert lines == [
        "stage 'increment' goes without a CUDA graph: nothing was enqueued on the stream that was recorded"
    ]


@over_fake_cuda()
@pytest.mark.parametrize(
    "call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_a_driver_that_refuses_leaves_the_plain_way(fake: FakeCuda, call: str) -> None:
    not_supported, frames = 801, make_frames(30)
    with CudaDevice() as device, Lines() as lines:
        stages = graphed(kernel_stages(fake))
        fake.fail(call, not_supported)
        with cuda_streamer(device, stages, slots=2) as streamer:
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
    assert len(lines) == 1
    assert lines[0].endswith("failed: CUDA_ERROR_NOT_SUPPORTED")
    assert fake.live()["graphs"] == 0


@over_fake_cuda()
def test_without_cuda_bindings_everything_goes_plainly_and_the_log_says_why(fake: FakeCuda) -> None:
    with CudaDevice(), pytest.MonkeyPatch.context() as patch, Lines() as lines:
        for name in ("cuda", "cuda.bindings", "cuda.bindings.driver"):
            patch.setitem(sys.modules, name, None)
        stages = kernel_stages(fake)
        assert graphed(stages) == stages
    assert len(lines) == 1
    assert lines[0].startswith("no CUDA graphs, work is enqueued plainly: cuda-bindings cannot be imported")


@over_fake_cuda()
def test_an_error_of_the_stage_itself_is_not_taken_for_a_failed_recording(fake: FakeCuda) -> None:
    def before(number: int) -> None:
        if number >= 2:
            raise ValueError("nonsense")

    with CudaDevice() as device, Lines():
        triple, increment = kernel_stages(fake)
        stages = graphed([triple, HostWork(increment, before)])
        with cuda_streamer(device, stages, slots=2) as streamer, pytest.raises(StageError) as caught:
            run_frames(streamer, make_frames(30))
    assert (caught.value.stage, caught.value.frame) == ("increment", 6)
    assert isinstance(caught.value.cause, ValueError)
    calls = issued(fake, "call")
    assert calls["cuStreamBeginCapture"] == calls["cuStreamEndCapture"]


@over_fake_cuda()
def test_a_launch_that_fails_names_its_stage(fake: FakeCuda) -> None:
    invalid = 1
    with CudaDevice() as device, cuda_streamer(device, graphed(kernel_stages(fake)), slots=1) as streamer:
        fake.fail("cuGraphLaunch", invalid, after=5)
        with pytest.raises(
            StageError, match="launch of the graph failed: CUDA_ERROR_INVALID_VALUE"
        ) as caught:
            run_frames(streamer, make_frames(30))
    assert (caught.value.stage, caught.value.frame) == ("increment", 9)
    assert isinstance(caught.value.cause, DeviceError)


@over_fake_cuda()
def test_other_threads_may_allocate_while_a_stage_is_recorded(fake: FakeCuda) -> None:
    """The capture is thread-local: the writer thread waits for events and readers allocate meanwhile."""

    def elsewhere(slot: Slot, stream: Any) -> None:
        def work() -> None:
            with device.attach():
                device.empty((8,), "uint8")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    frames = make_frames(24)
    with fake.nothing_left(), CudaDevice() as device, Lines() as lines:
        triple, increment = kernel_stages(fake)
        stages = graphed([WithTrouble(triple, elsewhere), increment])
        with cuda_streamer(device, stages, slots=2) as streamer:
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
        del streamer, stages
    assert lines == []
    thread_local = 1
    modes = {entry.bytes for entry in fake.log() if entry.name == "cuStreamBeginCapture"}
    assert modes == {thread_local}


def test_names_and_interrupts_pass_through() -> None:
    class Inner:
        name = "enet"
        interrupted = False

        def bind(self, slot: Slot) -> None: ...
        def enqueue(self, slot: Slot, stream: Stream) -> None: ...
        def interrupt(self) -> None:
            self.interrupted = True

    inner = Inner()
    stage = GraphStage(inner, driver=None)
    stage.interrupt()
    assert (stage.name, inner.interrupted) == ("enet", True)
