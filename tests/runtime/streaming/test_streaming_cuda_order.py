"""The streamer's order of operations on CUDA, proved on a driver that runs work at the worst moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_parts import (
    SCHEDULES,
    HostWork,
    KernelStage,
    cuda_streamer,
    kernel_stages,
    run_frames,
    wrong_batches,
)
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda
from streaming_parts import BUFFERS, Collector, batches_of, expected, fill, make_frames

from dubstream.engines.errors import DeviceError, StageError
from dubstream.runtime.streaming import passage as passage_module
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.cuda_streams import CudaEvent, CudaStream
from dubstream.runtime.streaming.device import Event
from dubstream.runtime.streaming.slots import Slot, SlotRing
from dubstream.runtime.streaming.streamer import Streamer

BATCHES = 14


@over_fake_cuda()
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_result_does_not_depend_on_when_work_runs(fake: FakeCuda, slots: int) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        stages = kernel_stages(fake)
        wrong = {str(each): wrong_batches(fake, device, stages, slots, each) for each in SCHEDULES}
    assert wrong == dict.fromkeys(wrong, 0)


@over_fake_cuda()
@pytest.mark.parametrize("slots", [2, 3])
def test_upload_k_plus_1_is_issued_before_download_k_completes(fake: FakeCuda, slots: int) -> None:
    """Download k is held until upload k + slots - 1 was issued: a streamer that waits in turn times out."""
    frames = make_frames(3 * BATCHES)
    fake.gate_downloads(lead=slots - 1, total=BATCHES)
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=slots) as streamer:
        np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
    log = fake.log()
    issued = [at for at, entry in enumerate(log) if (entry.phase, entry.name) == ("issue", "upload")]
    completed = [at for at, entry in enumerate(log) if (entry.phase, entry.name) == ("run", "download")]
    assert len(issued) == len(completed) == BATCHES
    for k in range(BATCHES - slots + 1):
        assert issued[k + slots - 1] < completed[k]


@over_fake_cuda()
def test_one_slot_cannot_overlap_so_the_gate_is_a_real_one(fake: FakeCuda) -> None:
    fake.gate_downloads(lead=1, total=BATCHES, seconds=0.3)
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=1) as streamer:
        with pytest.raises(StageError, match=r"'download' failed at frame 0: .* timed out"):
            run_frames(streamer, make_frames(3 * BATCHES))
        fake.forget()


@over_fake_cuda()
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_slot_is_reused_before_its_download_was_waited_for(fake: FakeCuda, slots: int) -> None:
    frames, uploads, seen = make_frames(3 * BATCHES), [0], dict[int, int]()

    def watched_fill(slot: Slot, item: Any) -> None:
        log = fake.log()
        done = sum((entry.phase, entry.name) == ("run", "download") for entry in log)
        assert done > seen.get(slot.index, -1), "filled again before its last download was complete"
        seen[slot.index] = uploads[0]
        uploads[0] += 1
        fill(slot, item)

    fake.policy("eager", slow=("download",))
    drain = Collector()
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=slots) as streamer:
        streamer.run(batches_of(frames, 3), watched_fill, drain)
    np.testing.assert_array_equal(drain.frames, expected(frames))
    assert uploads == [BATCHES]


@over_fake_cuda()
def test_three_streams_each_do_one_kind_of_work_from_pinned_memory(fake: FakeCuda) -> None:
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=2) as streamer:
        run_frames(streamer, make_frames(20))
    streams: dict[str, set[int]] = {}
    for entry in fake.log():
        if entry.phase == "issue" and entry.name in ("upload", "download", "triple", "increment"):
            streams.setdefault(entry.name, set()).add(entry.stream)
    assert streams["triple"] == streams["increment"]
    assert len(streams["upload"] | streams["download"] | streams["triple"]) == 3
    assert [len(numbers) for numbers in streams.values()] == [1, 1, 1, 1]
    assert (fake.live()["pageable"], fake.live()["legacy"]) == (0, 0)


@over_fake_cuda()
def test_the_hot_path_allocates_nothing_on_the_device(fake: FakeCuda) -> None:
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=2) as streamer:
        run_frames(streamer, make_frames(9))
        before = fake.live()
        run_frames(streamer, make_frames(41))
        assert fake.live() == before


@over_fake_cuda()
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_short_last_batch_copies_only_what_it_holds(fake: FakeCuda, count: int) -> None:
    frames = make_frames(count)
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=2) as streamer:
        np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))
    copies = [entry.bytes for entry in fake.log() if (entry.phase, entry.name) == ("issue", "download")]
    assert sum(copies) == frames.nbytes


@over_fake_cuda()
def test_the_report_has_device_times_of_every_step(fake: FakeCuda) -> None:
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=2) as streamer:
        report = streamer.run(batches_of(make_frames(9), 3), fill, Collector(), trace=True)
    spans = [
        (span.name, span.batch) for span in report.spans if span.name in ("upload", "triple", "download")
    ]
    assert sorted(spans) == sorted((name, k) for name in ("upload", "triple", "download") for k in range(3))
    assert all(-1e-3 <= span.begin_s <= span.end_s <= report.wall_s + 1e-3 for span in report.spans)


# Errors


@over_fake_cuda()
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_an_error_at_enqueueing_names_stage_and_frame_and_releases_the_ring(
    fake: FakeCuda, slots: int
) -> None:
    bad = [4]

    def before(number: int) -> None:
        if number == bad[0]:
            raise ValueError("nonsense")

    frames = make_frames(41)
    with fake.nothing_left(), CudaDevice() as device:
        triple, increment = kernel_stages(fake)
        with cuda_streamer(device, [triple, HostWork(increment, before)], slots=slots) as streamer:
            with pytest.raises(StageError) as caught:
                run_frames(streamer, frames)
            assert (caught.value.stage, caught.value.frame) == ("increment", 12)
            del caught  # its traceback holds slots
            bad[0] = -1
            np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))


@over_fake_cuda()
@pytest.mark.parametrize("call", ["cuLaunchKernel", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"])
def test_a_call_the_driver_refuses_is_named_by_its_step(fake: FakeCuda, call: str) -> None:
    invalid = 1
    steps = {"cuLaunchKernel": "triple", "cuMemcpyHtoDAsync_v2": "upload", "cuMemcpyDtoHAsync_v2": "download"}
    frames = make_frames(30)
    with CudaDevice() as device, cuda_streamer(device, kernel_stages(fake), slots=2) as streamer:
        fake.fail(call, invalid, after=6 if call == "cuLaunchKernel" else 3)
        with pytest.raises(StageError, match=f"'{steps[call]}' failed at frame 9: .*invalid argument"):
            run_frames(streamer, frames)
        np.testing.assert_array_equal(run_frames(streamer, frames), expected(frames))


@over_fake_cuda()
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_crash_on_the_gpu_ends_the_run_with_the_drivers_words(fake: FakeCuda, slots: int) -> None:
    """A kernel's fault is the context's: nothing works any more, but threads end and slots come back."""
    with CudaDevice() as device:
        stages = [*kernel_stages(fake), KernelStage(fake, "last", "y", "y", kernel="crash")]
        with cuda_streamer(device, stages, slots=slots) as streamer:
            for _ in range(2):
                with pytest.raises((StageError, DeviceError), match="illegal memory access") as caught:
                    run_frames(streamer, make_frames(30))
                # Whatever asks first gets the error: a step of any batch under way.
                assert getattr(caught.value, "frame", 0) in range(0, 3 * slots + 3, 3)
            fake.forget()


# Planted bugs: each of these must change frames under some schedule, or the tests above prove nothing.


def ignore_upload(self: CudaStream, event: Event) -> None:
    if self.name != "compute":
        self.native.wait_for_event(event.native)  # type: ignore[attr-defined]


def ignore_compute(self: CudaStream, event: Event) -> None:
    if self.name != "download":
        self.native.wait_for_event(event.native)  # type: ignore[attr-defined]


def no_wait(self: Any) -> None:
    return None


def wait_for_compute_only(self: Any) -> None:
    self._slot.computed.synchronize()


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "compute does not wait for the upload": lambda patch: patch.setattr(CudaStream, "wait", ignore_upload),
    "the download does not wait for compute": lambda patch: patch.setattr(CudaStream, "wait", ignore_compute),
    "the host waits for nothing": lambda patch: (
        patch.setattr(passage_module.Passage, "wait", no_wait),
        patch.setattr(passage_module.Passage, "times", lambda self: []),
    )[0],
    "the host waits for compute only": lambda patch: (
        patch.setattr(passage_module.Passage, "wait", wait_for_compute_only),
        patch.setattr(passage_module.Passage, "times", lambda self: []),
    )[0],
    "slots share their device memory": lambda patch: share_memory(patch),
}


def share_memory(patch: pytest.MonkeyPatch) -> None:
    made = SlotRing.__init__

    def sharing(self: SlotRing, *arguments: Any) -> None:
        made(self, *arguments)
        for slot in self.slots[1:]:
            slot.device = self.slots[0].device

    patch.setattr(SlotRing, "__init__", sharing)


@over_fake_cuda()
@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("bug", list(BUGS))
def test_a_planted_bug_is_caught(fake: FakeCuda, bug: str, slots: int) -> None:
    with CudaDevice() as device, pytest.MonkeyPatch.context() as patch:
        stages = kernel_stages(fake)
        BUGS[bug](patch)
        wrong = [wrong_batches(fake, device, stages, slots, each) for each in SCHEDULES]
    assert max(wrong) > 0


@over_fake_cuda()
def test_every_wait_of_the_streamer_is_needed(fake: FakeCuda) -> None:
    """Leaving out any single `wait` of a run, the n-th, must show in the frames."""
    with CudaDevice() as device:
        stages = kernel_stages(fake)
        for skipped in range(6):
            calls = [0]

            def wait(
                self: CudaStream, event: CudaEvent, skipped: int = skipped, calls: list[int] = calls
            ) -> None:
                calls[0] += 1
                if calls[0] - 1 != skipped:
                    self.native.wait_for_event(event.native)

            wrong = []
            for schedule in SCHEDULES[:5]:
                calls[0] = 0
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(CudaStream, "wait", wait)
                    wrong.append(wrong_batches(fake, device, stages, 2, schedule))
            assert max(wrong) > 0, f"wait {skipped} could be left out"


@over_fake_cuda()
def test_streams_outlive_runs_and_buffers_keep_their_addresses(fake: FakeCuda) -> None:
    addresses: set[tuple[int, int]] = set()

    def watched_fill(slot: Slot, item: Any) -> None:
        addresses.add((slot.device["x"].ptr, slot.device["y"].ptr))
        fill(slot, item)

    with CudaDevice() as device, Streamer(device, BUFFERS, kernel_stages(fake), batch=3, slots=2) as streamer:
        for _ in range(3):
            streamer.run(batches_of(make_frames(20), 3), watched_fill, Collector())
    assert len(addresses) == 2
