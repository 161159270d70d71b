"""The channel, the slots and their ring."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dubstream.engines.contract import BATCH, TensorSpec
from dubstream.engines.errors import InternalError, UsageError
from dubstream.runtime.streaming.channel import AbortedError, Channel, FinishedError
from dubstream.runtime.streaming.host import HostDevice
from dubstream.runtime.streaming.slots import BufferSpec, SlotRing

PATIENCE_S = 20.0
BUFFERS = (
    BufferSpec("frame", (2, 3), "uint8", "input"),
    BufferSpec("middle", (4,), "float32", "scratch"),
    BufferSpec("result", (), "int64", "output"),
)


def make_ring(slots: int = 2) -> SlotRing:
    return SlotRing(HostDevice(), BUFFERS, 5, slots)


def test_a_slot_has_every_buffer_where_its_role_says() -> None:
    slot = make_ring().slots[0]
    assert set(slot.inputs) == {"frame"}
    assert set(slot.device) == {"frame", "middle", "result"}
    assert set(slot.outputs) == {"result"}
    assert slot.inputs["frame"].shape == slot.device["frame"].shape == (5, 2, 3)
    assert slot.device["middle"].dtype == np.float32
    assert slot.outputs["result"].shape == (5,)


def test_no_two_arrays_of_a_ring_share_memory() -> None:
    ring = make_ring(3)
    arrays = [
        a for slot in ring.slots for part in (slot.inputs, slot.device, slot.outputs) for a in part.values()
    ]
    for index, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[index + 1 :])
    assert ring.nbytes == sum(array.nbytes for array in arrays)


def test_a_buffer_for_a_tensor_takes_its_shape_and_type() -> None:
    tensor = TensorSpec("lips", "float16", (BATCH, 3, 8, 8), 0.0, 1.0, "test")
    assert BufferSpec.of(tensor, "scratch") == BufferSpec("lips", (3, 8, 8), "float16", "scratch")
    assert BufferSpec.of(tensor, "output", "mouth").name == "mouth"


@pytest.mark.parametrize(
    ("buffers", "batch", "slots"),
    [((), 1, 1), ((BUFFERS[0], BUFFERS[0]), 1, 1), (BUFFERS, 0, 1), (BUFFERS, 1, 0)],
)
def test_rings_that_make_no_sense_are_refused(
    buffers: tuple[BufferSpec, ...], batch: int, slots: int
) -> None:
    with pytest.raises(UsageError, match="expected at least"):
        SlotRing(HostDevice(), buffers, batch, slots)


def test_slots_go_round_and_forget_their_batch() -> None:
    ring = make_ring()
    first, second = ring.acquire(), ring.acquire()
    assert {first.index, second.index} == {0, 1}
    first.first, first.count, first.context = 40, 5, "facts"
    ring.release(first)
    assert ring.acquire() is first
    assert (first.first, first.count, first.context) == (-1, 0, None)


def test_a_slot_released_twice_is_our_own_fault() -> None:
    ring = make_ring()
    slot = ring.acquire()
    ring.release(slot)
    with pytest.raises(InternalError, match="slot 0 was released twice"):
        ring.release(slot)


def test_acquire_waits_for_a_release() -> None:
    ring = make_ring(1)
    slot, polled = ring.acquire(), threading.Event()

    def release_when_waited_for() -> None:
        assert polled.wait(PATIENCE_S)
        ring.release(slot)

    thread = threading.Thread(target=release_when_waited_for)
    thread.start()
    assert ring.acquire(polled.set) is slot
    thread.join()


def test_abort_ends_a_wait_and_reset_takes_all_slots_back() -> None:
    ring = make_ring(1)
    ring.acquire().context = "facts"
    with pytest.raises(AbortedError):
        ring.acquire(ring.abort)
    ring.reset()
    assert ring.acquire().context is None


def test_a_channel_keeps_order_and_drains_after_the_end() -> None:
    channel = Channel[int](3)
    for number in range(3):
        channel.put(number)
    channel.finish()
    assert [channel.get() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FinishedError):
        channel.get()


def test_a_full_channel_holds_its_producer() -> None:
    channel, put = Channel[int](1), []

    def produce() -> None:
        for number in range(20):
            put.append(number)
            channel.put(number)
        channel.finish()

    thread = threading.Thread(target=produce)
    thread.start()
    for number in range(20):
        assert channel.get() == number
        assert len(put) <= number + 3  # one taken, one inside, one in the producer's hand
    thread.join()


def test_abort_ends_a_producers_wait_and_drops_the_items() -> None:
    channel, ended = Channel[int](1), []

    def produce() -> None:
        try:
            while True:
                channel.put(1)
        except AbortedError:
            ended.append(True)

    thread = threading.Thread(target=produce)
    thread.start()
    channel.get()
    channel.abort()
    thread.join(PATIENCE_S)
    assert ended == [True]
    with pytest.raises(AbortedError):
        channel.get()


def test_what_a_poll_raises_ends_the_wait() -> None:
    def poll() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Channel[int](1).get(poll)
