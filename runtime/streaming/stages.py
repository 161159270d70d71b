"""Stages: what happens to a slot between upload and download."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from dubstream.engines.contract import TensorSpec
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import UsageError
from dubstream.runtime.streaming.device import Stream
from dubstream.runtime.streaming.slots import Slot


class Stage(Protocol):
    """A passive step: it enqueues work on the stream it is given and knows neither threads nor neighbours."""

    @property
    def name(self) -> str:
        """One word, the same in reports, traces and errors."""

    def bind(self, slot: Slot) -> None:
        """Prepare for `slot`; called once for every slot, before the first frame."""

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Enqueue the work for the slot's first `count` items; must not wait."""


@runtime_checkable
class Interruptible(Protocol):
    """A stage that can cut short what it has enqueued; used when a run is torn down."""

    def interrupt(self) -> None:
        """Make work that has begun fail soon; work of later runs is not affected."""


def unread_outputs(engine: Engine, read: Collection[str]) -> list[TensorSpec]:
    """Outputs beside those that are read which need a buffer: their backend cannot leave them out."""
    if engine.outputs_optional:
        return []
    return [tensor for tensor in engine.spec.outputs if tensor.name not in read]


class EngineStage:
    """A network as a stage.

    Args:
        engine: runs the network; the caller closes it, after the streamer.
        buffers: slot buffer by tensor name. None: the buffers are called like the tensors, and outputs
            without a buffer are left out.
        name: the stage's name; None for the network's.
    """

    def __init__(
        self, engine: Engine, buffers: Mapping[str, str] | None = None, *, name: str | None = None
    ) -> None:
        self._engine = engine
        self._buffers = None if buffers is None else dict(buffers)
        self._name = name or engine.spec.name
        self._bindings: dict[tuple[int, int], Binding] = {}

    @property
    def name(self) -> str:
        """The stage's name."""
        return self._name

    def bind(self, slot: Slot) -> None:
        """Bind the full batch; raises `UsageError` when a buffer is missing or does not fit."""
        self._bindings = {key: value for key, value in self._bindings.items() if key[0] != slot.index}
        self._binding(slot, slot.batch)

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Enqueue the network on the slot's first `count` items."""
        self._binding(slot, slot.count).enqueue(stream)

    def interrupt(self) -> None:
        """Make a run of the network that has begun fail soon, where the backend can."""
        for binding in self._bindings.values():
            binding.interrupt()

    def _binding(self, slot: Slot, count: int) -> Binding:
        # A short batch comes at the end of a run: bound when first seen, at most slots x batch in all.
        key = (slot.index, count)
        if key not in self._bindings:
            self._bindings[key] = self._engine.bind(self._tensors(slot), count)
        return self._bindings[key]

    def _tensors(self, slot: Slot) -> dict[str, object]:
        if self._buffers is None:
            spec = self._engine.spec
            names = [tensor.name for tensor in spec.inputs + spec.outputs]
            return {name: slot.device[name] for name in names if name in slot.device}
        missing = sorted(set(self._buffers.values()) - slot.device.keys())
        if missing:
            raise UsageError(
                f"stage '{self.name}': no slot buffer {missing}, there are {sorted(slot.device)}"
            )
        return {tensor: slot.device[buffer] for tensor, buffer in self._buffers.items()}
