"""One slot's way over the device: upload, stages, download, linked by events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from dubstream.engines.errors import StageError
from dubstream.runtime.streaming.device import Device, Event, Stream
from dubstream.runtime.streaming.slots import Slot
from dubstream.runtime.streaming.stages import Interruptible, Stage


class Streams(NamedTuple):
    """The three streams of a streamer; copies in, work and copies out go on side by side."""

    upload: Stream
    compute: Stream
    download: Stream


class _Step(NamedTuple):
    name: str
    begin: Event
    end: Event


class Passage:
    """The steps of one slot and the events around them; made once per slot, used for every batch.

    Args:
        device: owner of the slot's memory.
        slot: the slot; its `uploaded`, `computed` and `downloaded` are recorded here.
        stages: the stages, at least one, bound to the slot here.
    """

    def __init__(self, device: Device, slot: Slot, stages: Sequence[Stage]) -> None:
        self._device = device
        self._slot = slot
        self._stages = tuple(stages)
        ends = [*(device.event() for _ in stages[1:]), slot.computed]
        # A stage begins where the one before it ends: one event serves both.
        begins = [device.event(), *ends[:-1]]
        self._upload = _Step("upload", device.event(), slot.uploaded)
        self._compute = [_Step(*step) for step in zip([s.name for s in stages], begins, ends, strict=True)]
        self._download = _Step("download", device.event(), slot.downloaded)
        for stage in stages:
            stage.bind(slot)

    def enqueue(self, streams: Streams) -> None:
        """Enqueue the slot's batch on the three streams; returns without waiting.

        A batch of no items only passes the events, which keeps it in order.

        Raises:
            StageError: a step could not be enqueued.
        """
        self._enqueue_upload(streams.upload)
        with self._attributed(self._compute[0].name):
            streams.compute.wait(self._slot.uploaded)
            self._compute[0].begin.record(streams.compute)
        for stage, step in zip(self._stages, self._compute, strict=True):
            with self._attributed(step.name):
                if self._slot.count:
                    stage.enqueue(self._slot, streams.compute)
                step.end.record(streams.compute)
        self._enqueue_download(streams.download)

    def wait(self) -> None:
        """Wait on the host until the outputs are in pinned memory.

        Raises:
            StageError: names the step that failed and the batch's first frame.
        """
        # In order, so that the first event to report a failure is the one behind the step that failed.
        for step in self._steps():
            with self._attributed(step.name):
                step.end.synchronize()

    def interrupt(self) -> None:
        """Cut short what the stages can; for a run that is torn down."""
        for stage in self._stages:
            if isinstance(stage, Interruptible):
                stage.interrupt()

    def times(self) -> Iterator[tuple[str, float, float]]:
        """Name, begin and end of every step, as `Event.time`; only after `wait`."""
        for step in self._steps():
            yield step.name, step.begin.time(), step.end.time()

    def _steps(self) -> Iterator[_Step]:
        yield self._upload
        yield from self._compute
        yield self._download

    def _enqueue_upload(self, stream: Stream) -> None:
        slot, used = self._slot, slice(0, self._slot.count)
        with self._attributed(self._upload.name):
            self._upload.begin.record(stream)
            for name, pinned in slot.inputs.items() if slot.count else ():
                self._device.upload(slot.device[name][used], pinned[used], stream)
            self._upload.end.record(stream)

    def _enqueue_download(self, stream: Stream) -> None:
        slot, used = self._slot, slice(0, self._slot.count)
        with self._attributed(self._download.name):
            stream.wait(slot.computed)
            self._download.begin.record(stream)
            for name, pinned in slot.outputs.items() if slot.count else ():
                self._device.download(pinned[used], slot.device[name][used], stream)
            self._download.end.record(stream)

    @contextmanager
    def _attributed(self, step: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise StageError(step, self._slot.first, error) from error
