"""Slots: everything one batch needs, allocated once, going round in a ring.

Slot reuse
----------
Scenario: batch k sits in slot A. Its download is enqueued, the host goes on and wants slot A for batch
k+N. Were A handed out now, `fill` would write the pinned inputs while the upload of k may still read
them, the stages of k+N would overwrite device outputs that the download of k still reads, and the
download of k+N would land in pinned outputs that the encoder is still reading.
What breaks: frames of one batch show rows of another, rarely and only under load; nothing raises.
Cure: a slot returns to the ring in one place, after the host has waited for `downloaded` and `drain` has
returned. `downloaded` is recorded behind `computed`, which is recorded behind `uploaded`, so one wait
covers every reader of every buffer of the slot. Nobody may keep a view of a slot's arrays after `drain`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dubstream.engines.contract import TensorSpec
from dubstream.engines.errors import InternalError, UsageError
from dubstream.runtime.streaming.channel import Channel
from dubstream.runtime.streaming.device import Device

Role = Literal["input", "scratch", "output"]


@dataclass(frozen=True)
class BufferSpec:
    """One named buffer of a slot.

    Attributes:
        name: unique within the slot.
        item_shape: shape of one item; the slot's arrays are ``(batch, *item_shape)``.
        dtype: numpy name of the element type.
        role: ``input`` is pinned memory and its copy on the device, ``output`` the same in the other
            direction, ``scratch`` lives on the device only.
    """

    name: str
    item_shape: tuple[int, ...]
    dtype: str
    role: Role

    @classmethod
    def of(cls, tensor: TensorSpec, role: Role, name: str | None = None) -> BufferSpec:
        """The buffer that holds one tensor of a network, called like it unless `name` is given."""
        return cls(name or tensor.name, tensor.concrete(1)[1:], tensor.dtype, role)

    @property
    def item_bytes(self) -> int:
        """Bytes of one item."""
        return int(np.prod(self.item_shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Slot:
    """Everything one batch needs; see "Slot reuse" in this file for who may touch it when.

    Attributes:
        index: position in the ring, from 0.
        batch: most items it holds.
        inputs: pinned arrays by name, written by `fill`.
        device: device arrays by name: inputs, scratch and outputs.
        outputs: pinned arrays by name, read by `drain`.
        first: index of the batch's first frame; set by `fill`.
        count: items in use, 0 to `batch`; set by `fill`. Items behind it are undefined. A batch of 0 items
            runs no stage: its `context` alone goes from `fill` to `drain`, in order.
        context: host-side facts that ride along from `fill` to `drain`; dropped with the slot's release.
        sequence: number of the batch within its run, from 0; set by the streamer.
        uploaded, computed, downloaded: reached when that step of the current batch is done.
    """

    def __init__(self, index: int, device: Device, buffers: Sequence[BufferSpec], batch: int) -> None:
        self.index = index
        self.batch = batch
        self.inputs = _arrays(device.pinned, buffers, batch, ("input",))
        self.device = _arrays(device.empty, buffers, batch, ("input", "scratch", "output"))
        self.outputs = _arrays(device.pinned, buffers, batch, ("output",))
        self.uploaded, self.computed, self.downloaded = device.event(), device.event(), device.event()
        self.clear()

    def clear(self) -> None:
        """Forget the batch; the arrays stay."""
        self.first = -1
        self.count = 0
        self.sequence = -1
        self.context: Any = None

    def __repr__(self) -> str:
        return f"Slot({self.index}, first={self.first}, count={self.count}/{self.batch})"


class SlotRing:
    """The slots of one streamer.

    Args:
        device: owns the memory; must outlive the ring.
        buffers: the buffers of every slot.
        batch: items per slot.
        slots: how many; 2 is double buffering.

    Raises:
        UsageError: no buffers, a name used twice, or a count below 1.
    """

    def __init__(self, device: Device, buffers: Sequence[BufferSpec], batch: int, slots: int) -> None:
        names = [buffer.name for buffer in buffers]
        if not names or len(set(names)) != len(names):
            raise UsageError(f"slot buffers: received {names}, expected at least one, each name once")
        if batch < 1 or slots < 1:
            raise UsageError(f"slot ring: received batch {batch} and {slots} slots, expected at least 1 each")
        self.slots = tuple(Slot(index, device, buffers, batch) for index in range(slots))
        copies = {"input": 2, "scratch": 1, "output": 2}
        self.nbytes = slots * batch * sum(copies[buffer.role] * buffer.item_bytes for buffer in buffers)
        self.reset()

    def acquire(self, poll: Callable[[], None] | None = None) -> Slot:
        """Take a free slot, waiting for one: this is the back-pressure on the source.

        Args:
            poll: called now and then while waiting; what it raises ends the wait.

        Raises:
            AbortedError: the run is being torn down.
        """
        slot = self._free.get(poll)
        self._taken.add(slot.index)
        return slot

    def release(self, slot: Slot) -> None:
        """Give a slot back after its `drain`; raises `InternalError` for one that is not out."""
        if slot.index not in self._taken:
            raise InternalError(f"slot {slot.index} was released twice")
        self._taken.remove(slot.index)
        slot.clear()
        self._free.put(slot)

    def abort(self) -> None:
        """End every wait in `acquire`."""
        self._free.abort()

    def reset(self) -> None:
        """Take all slots back, after the threads that used them are gone."""
        for slot in self.slots:
            slot.clear()
        self._taken: set[int] = set()
        self._free = Channel(len(self.slots), self.slots)


def _arrays(
    allocate: Callable[[tuple[int, ...], npt.DTypeLike], Any],
    buffers: Sequence[BufferSpec],
    batch: int,
    roles: tuple[Role, ...],
) -> dict[str, Any]:
    return {b.name: allocate((batch, *b.item_shape), b.dtype) for b in buffers if b.role in roles}
