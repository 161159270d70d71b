"""CUDA graphs: a stage's launches recorded once per slot and replayed as one.

An engine is a hundred kernel launches or more; replaying their recording costs one call. A recording holds
addresses, shapes and launch sizes, so it serves one slot at its full batch. Everything else (short batches,
stages whose launches differ from batch to batch, libraries that refuse to be recorded) is enqueued plainly.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from typing import Any

from dubstream.engines.errors import DeviceError
from dubstream.runtime.streaming.device import Stream
from dubstream.runtime.streaming.slots import Slot
from dubstream.runtime.streaming.stages import Interruptible, Stage

log = logging.getLogger(__name__)


def graphed(stages: Iterable[Stage]) -> list[Stage]:
    """The stages, those that can be recorded wrapped in a `GraphStage`.

    A stage says ``capturable = False`` when what it enqueues for a full batch is not always the same: launch
    sizes that follow the data, tables made on the host, a library with streams of its own. One line in the
    log says why a stage, or all of them, goes without.
    """
    listed = list(stages)
    try:
        from cuda.bindings import driver
    except ImportError as error:
        log.warning("no CUDA graphs, work is enqueued plainly: cuda-bindings cannot be imported: %s", error)
        return listed
    return [_wrapped(stage, driver) for stage in listed]


def _wrapped(stage: Stage, driver: Any) -> Stage:
    if getattr(stage, "capturable", True):
        return GraphStage(stage, driver)
    log.info("stage '%s' goes without a CUDA graph: it says that batches differ", stage.name)
    return stage


class GraphStage:
    """A stage that replays a recording of another; see "A frame's first batches".

    A frame's first batches
    -----------------------
    Batch 1 of a slot runs plainly: libraries allocate and choose on their first run, which a recording must
    not see. Batch 2 is recorded and the recording launched; from batch 3 on it is only launched. Nothing
    waits in between: the slot came back from the host, which waited for its batch 1 to leave the GPU.

    Args:
        stage: enqueues the same work for every full batch of a slot, on the stream it is given, and does
            nothing else there.
        driver: ``cuda.bindings.driver``.
    """

    def __init__(self, stage: Stage, driver: Any) -> None:
        self._stage = stage
        self._driver = driver
        self._warm: set[int] = set()
        self._graphs: dict[int, _Graph] = {}
        self._plain = False

    @property
    def name(self) -> str:
        """The wrapped stage's name."""
        return self._stage.name

    def bind(self, slot: Slot) -> None:
        """Bind the stage and forget the slot's recording, whose addresses no longer hold."""
        self._warm.discard(slot.index)
        self._graphs.pop(slot.index, None)
        self._stage.bind(slot)

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Launch the slot's recording, or enqueue plainly where there is none."""
        recorded = self._recorded(slot, stream) if slot.count == slot.batch else None
        if recorded is None:
            self._stage.enqueue(slot, stream)
        else:
            stream.launch(lambda: recorded.launch(stream), self.name)

    def interrupt(self) -> None:
        """Pass on to the stage, where it can."""
        if isinstance(self._stage, Interruptible):
            self._stage.interrupt()

    def _recorded(self, slot: Slot, stream: Stream) -> _Graph | None:
        found = self._graphs.get(slot.index)
        if found or self._plain:
            return found
        if slot.index not in self._warm:
            self._warm.add(slot.index)
            return None
        try:
            found = self._graphs[slot.index] = self._record(slot, stream)
        except Exception as error:
            # Once is enough: what cannot be recorded for one slot cannot be for the next.
            self._plain = True
            self._graphs.clear()
            log.warning("stage '%s' goes without a CUDA graph: %s", self.name, error)
        return found

    def _record(self, slot: Slot, stream: Stream) -> _Graph:
        driver, handle = self._driver, stream.handle
        # Thread-local: the writer thread may wait for events and others allocate meanwhile.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _checked(driver.cuStreamBeginCapture(handle, mode), "begin of the recording")
        try:
            self._stage.enqueue(slot, stream)
        except BaseException:
            # A stream left recording would swallow the rest of the run.
            status, graph = driver.cuStreamEndCapture(handle)
            if not int(status):
                driver.cuGraphDestroy(graph)
            raise
        (graph,) = _checked(driver.cuStreamEndCapture(handle), "end of the recording")
        try:
            return _Graph(driver, graph)
        finally:
            driver.cuGraphDestroy(graph)


class _Graph:
    """An executable graph, destroyed with this object."""

    def __init__(self, driver: Any, graph: Any) -> None:
        _, nodes = _checked(driver.cuGraphGetNodes(graph, 0), "reading the recording")
        if not nodes:
            # Work that went elsewhere would be missing from every replay.
            raise DeviceError("nothing was enqueued on the stream that was recorded")
        (self._executable,) = _checked(driver.cuGraphInstantiate(graph, 0), "making the graph")
        self._launch = driver.cuGraphLaunch
        weakref.finalize(self, driver.cuGraphExecDestroy, self._executable).atexit = False

    def launch(self, stream: Stream) -> None:
        _checked(self._launch(self._executable, stream.handle), "launch of the graph")


def _checked(answer: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    status, *values = answer
    if int(status):
        raise DeviceError(f"{what} failed: {getattr(status, 'name', status)}")
    return tuple(values)
