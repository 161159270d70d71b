"""CudaDevice, its streams and events: real pycuda over a fake driver."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import FIRST_S, over_fake_cuda

from dubstream.engines.errors import DeviceError, InternalError
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.device import Device
from dubstream.runtime.streaming.host import HostDevice


class RoundTrip:
    """Values enqueued to the device and back, to arrive in `target`; holds the memory, as freeing waits."""

    def __init__(self, device: CudaDevice, values: np.ndarray) -> None:
        self.source = device.pinned(values.shape, values.dtype)
        self.target = device.pinned(values.shape, values.dtype)
        self.source[:], self.target[:] = values, 0
        self.there, self.stream = device.empty(values.shape, values.dtype), device.stream("copy")
        device.upload(self.there, self.source, self.stream)
        device.download(self.target, self.there, self.stream)


@over_fake_cuda()
def test_it_is_a_device(fake: FakeCuda) -> None:
    with fake.nothing_left(), CudaDevice(0) as device:
        generic: Device = device
        assert generic.name == "cuda:0 Fake A"
        assert (device.index, device.compute_capability) == (0, (9, 0))
        stream = device.stream("a")
        assert isinstance(stream.handle, int)
        assert stream.handle == int(stream.native.handle)


@over_fake_cuda()
def test_copies_run_in_stream_order_and_only_when_something_waits(fake: FakeCuda) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    with fake.nothing_left(), CudaDevice() as device:
        trip = RoundTrip(device, values)
        assert not trip.target.any()
        trip.stream.synchronize()
        np.testing.assert_array_equal(trip.target, values)
        del trip


@over_fake_cuda()
def test_streams_do_not_wait_for_the_legacy_stream_and_nothing_uses_it(fake: FakeCuda) -> None:
    non_blocking = 1
    with CudaDevice() as device:
        RoundTrip(device, np.ones(8)).stream.synchronize()
        device.event().record(device.stream("b"))
    made = [entry for entry in fake.log() if entry.name == "cuStreamCreate"]
    assert {entry.bytes for entry in made} == {non_blocking}
    assert fake.live()["legacy"] == 0


@over_fake_cuda()
def test_arrays_are_sliced_without_a_copy(fake: FakeCuda) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        array = device.empty((4, 3, 2), np.float32)
        assert (array.shape, array.nbytes, len(array), int(array)) == ((4, 3, 2), 96, 4, array.ptr)
        assert array.ptr % 256 == 0
        part = array[1:3]
        assert (part.shape, part.ptr, part.dtype) == ((2, 3, 2), array.ptr + 24, np.dtype("float32"))
        assert array[2:99].shape == (2, 3, 2)
        assert array[3:1].shape == (0, 3, 2)
        assert array.__cuda_array_interface__["data"] == (array.ptr, False)
        with pytest.raises(IndexError, match="step 2, expected 1"):
            array[::2]
        # A part keeps the whole alive.
        assert fake.live()["device_blocks"] == 1
        del array
        assert fake.live()["device_blocks"] == 1
        del part
        assert fake.live()["device_blocks"] == 0


@over_fake_cuda()
def test_copies_of_other_shapes_or_pageable_memory_are_refused(fake: FakeCuda) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        there, stream = device.empty((2, 3), np.uint8), device.stream("a")
        for wrong in (device.pinned((3, 2), np.uint8), device.pinned((2, 3), np.int8)):
            with pytest.raises(ValueError, match="must be equal"):
                device.upload(there, wrong, stream)
        pageable = np.zeros((2, 3), np.uint8)
        with pytest.raises(InternalError, match="pageable"):
            device.upload(there, pageable, stream)
        with pytest.raises(InternalError, match="pageable"):
            device.download(pageable, there, stream)
        del wrong, there
    assert not [entry for entry in fake.log() if entry.name in ("upload", "download")]


@over_fake_cuda()
def test_device_arrays_are_copied_in_stream_order(fake: FakeCuda) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        source, target = device.pinned((5,), np.int32), device.pinned((5,), np.int32)
        source[:] = range(5)
        first, second, stream = device.empty((5,), np.int32), device.empty((5,), np.int32), device.stream("a")
        device.upload(first, source, stream)
        device.copy(second, first, stream)
        device.download(target, second, stream)
        stream.synchronize()
        np.testing.assert_array_equal(target, source)
        del first, second, source, target


@over_fake_cuda()
def test_a_wait_means_the_latest_record_and_an_unrecorded_event_is_reached(fake: FakeCuda) -> None:
    with fake.nothing_left(), CudaDevice() as device:
        event, other = device.event(), device.stream("b")
        assert event.query()
        event.synchronize(0.0)
        other.wait(event)
        other.synchronize()
        trip = RoundTrip(device, np.arange(3))
        event.record(trip.stream)
        assert not event.query()
        assert not trip.target.any()
        other.wait(event)
        event.record(other)  # a later record does not move what was waited for
        event.synchronize(5.0)
        assert event.query()
        assert trip.target[2] == 2
        del trip, event


@over_fake_cuda()
def test_a_wait_with_a_limit_gives_up(fake: FakeCuda) -> None:
    with CudaDevice() as device:
        trip = RoundTrip(device, np.arange(3))
        event = device.event()
        fake.gate_downloads(lead=1, total=9, seconds=1.0)
        event.record(trip.stream)
        with pytest.raises(TimeoutError, match=r"not reached within 0.01 s"):
            event.synchronize(0.01)
        fake.gate_downloads(lead=0, total=0)
        event.synchronize(5.0)


@over_fake_cuda()
def test_times_are_on_the_hosts_clock(fake: FakeCuda) -> None:
    from time import perf_counter, sleep

    with fake.nothing_left(), CudaDevice() as device:
        begin, end, stream = device.event(), device.event(), device.stream("a")
        with pytest.raises(InternalError, match="not reached"):
            begin.time()
        earliest = perf_counter()
        begin.record(stream)
        begin.synchronize()
        sleep(0.02)
        end.record(stream)
        with pytest.raises(InternalError, match="not reached"):
            end.time()
        end.synchronize()
        latest = perf_counter()
        assert earliest - 1e-3 < begin.time() < end.time() < latest + 1e-3
        assert end.elapsed_since(begin) == pytest.approx(end.time() - begin.time(), abs=1e-5)
        assert end.elapsed_since(begin) >= 0.02
        del begin, end


@over_fake_cuda()
def test_the_clock_is_set_anew_before_float32_gets_coarse(fake: FakeCuda) -> None:
    from dubstream.runtime.streaming import cuda_streams as module

    with CudaDevice() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ANCHOR_S", 0.0)
        event, stream = device.event(), device.stream("a")
        for _ in range(3):
            event.record(stream)
            event.synchronize()
            event.time()
    waits = [entry.event for entry in fake.log() if entry.name == "cuEventSynchronize"]
    assert len(set(waits)) == 1 + 3


@over_fake_cuda()
def test_every_thread_attaches_itself(fake: FakeCuda) -> None:
    device = CudaDevice(0)
    seen: list[str] = []

    def work() -> None:
        stream, event = device.stream("a"), device.event()  # what is not on the hot path attaches by itself
        try:
            event.record(stream)
        except Exception as error:
            seen.append(str(error))
        with device.attach(), device.attach():
            event.record(stream)
            event.synchronize()
            seen.append("recorded")
            del event
            stream.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "invalid device context" in seen[0]
    assert seen[1:] == ["recorded"]
    device.close()
    assert fake.live()["streams"] == 0


@over_fake_cuda()
def test_closing_is_idempotent_and_a_closed_stream_is_our_own_fault(fake: FakeCuda) -> None:
    with fake.nothing_left():
        with CudaDevice() as device:
            closed, left = device.stream("a"), device.stream("b")
            closed.close()
            closed.close()
            closed.drop()
            with pytest.raises(InternalError, match="stream 'a' is closed"):
                closed.synchronize()
        left.close()
        device.close()


@over_fake_cuda()
def test_streams_and_events_of_other_devices_are_refused(fake: FakeCuda) -> None:
    with HostDevice() as host, CudaDevice() as device:
        with pytest.raises(InternalError, match="HostStream, expected a stream of CudaDevice"):
            device.event().record(host.stream("a"))
        with pytest.raises(InternalError, match="HostEvent, expected an event of CudaDevice"):
            device.stream("b").wait(host.event())


@over_fake_cuda()
def test_the_context_is_retained_once_for_the_process(fake: FakeCuda) -> None:
    for _ in range(3):
        with CudaDevice() as device, device.attach():
            device.stream("a")
    assert fake.live()["contexts"] == 1


@over_fake_cuda()
@pytest.mark.parametrize(
    ("call", "what"), [("cuMemAlloc_v2", "device"), ("cuMemHostAlloc", "page-locked host")]
)
def test_no_room_says_how_much_was_wanted(fake: FakeCuda, call: str, what: str) -> None:
    out_of_memory = 2
    with CudaDevice() as device:
        fake.fail(call, out_of_memory, times=2)  # pycuda collects garbage and tries again
        with pytest.raises(DeviceError, match=rf"no room for 3 MiB of {what} memory .* 6144 of 8192 MiB"):
            (device.empty if what == "device" else device.pinned)((3, 1024, 1024), np.uint8)


@over_fake_cuda(FAKE_CUDA_DEVICES="2")
def test_devices_are_chosen_by_number(fake: FakeCuda) -> None:
    with CudaDevice(1) as device:
        assert device.name == "cuda:1 Fake B"
    for index in (2, -1):
        with pytest.raises(
            DeviceError, match=f"received device {index}, expected one of 0: Fake A, 1: Fake B"
        ):
            CudaDevice(index)


@over_fake_cuda(FAKE_CUDA_DEVICES="0")
def test_no_device_is_named(fake: FakeCuda) -> None:
    with pytest.raises(DeviceError, match="no CUDA-capable device is detected") as caught:
        CudaDevice()
    assert caught.value.exit_code == 69
    assert "--backend onnxruntime" in str(caught.value)


@over_fake_cuda(FAKE_CUDA_DRIVER="12080")
def test_an_old_driver_is_named(fake: FakeCuda) -> None:
    with pytest.raises(DeviceError, match=r"supports CUDA 12\.8, expected 13\.0 or later .*580"):
        CudaDevice()


@over_fake_cuda(FAKE_CUDA_DEVICES="1")  # a process of its own, which has no context yet
def test_a_device_that_cannot_be_used_is_named(fake: FakeCuda) -> None:
    unavailable = 46
    fake.fail("cuDevicePrimaryCtxRetain", unavailable)
    with pytest.raises(DeviceError, match=r"device 0 \(Fake A\) cannot be used: cuDevicePrimaryCtxRetain"):
        CudaDevice()


@over_fake_cuda()
def test_work_is_shown_to_profilers_under_its_name(fake: FakeCuda) -> None:
    import types

    ranges: list[str] = []
    domain = types.SimpleNamespace(
        get_event_attributes=lambda message: message,
        push_range=ranges.append,
        pop_range=lambda: ranges.append(""),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "nvtx", types.SimpleNamespace(get_domain=lambda name: domain))
        device = CudaDevice()
    with device:
        trip = RoundTrip(device, np.arange(3))
        stream = trip.stream
        stream.launch(lambda: ranges.append("work"), "enet")
        with pytest.raises(ZeroDivisionError):
            stream.launch(lambda: print(1 / 0), "lnet")
    assert ranges == ["upload", "", "download", "", "enet", "work", "", "lnet", ""]


CODE = """
from dubstream.runtime.streaming.cuda import CudaDevice
try:
    CudaDevice()
except Exception as error:
    print(type(error).__name__, error)
"""


def said_by(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout


def test_a_missing_pycuda_is_named() -> None:
    hidden = f"import sys; sys.modules['pycuda'] = None; sys.modules['pycuda.driver'] = None\n{CODE}"
    said = said_by(hidden)
    assert said.startswith("DeviceError pycuda is not installed")
    assert "pip install 'dubstream[gpu]'" in said


@pytest.mark.timeout(FIRST_S)
def test_a_missing_driver_is_named(fake_cuda_folders: tuple[Any, Any]) -> None:
    said = said_by(CODE, PYTHONPATH=str(fake_cuda_folders[1]))
    assert said.startswith("DeviceError there is no NVIDIA driver here: libcuda.so.1")
