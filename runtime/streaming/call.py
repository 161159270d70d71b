"""A network called for one item, when the caller cannot go on without the answer.

Between frames there is nothing to overlap here: what the network says decides what is computed next. So the
item goes up from host memory, the outputs come down, and the host waits. On the host device both are copies
in memory; on a GPU it is the round trip that the streamer avoids, worth it where a network runs seldom.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dubstream.engines.engine import Engine
from dubstream.engines.errors import InternalError
from dubstream.runtime.streaming.device import Device, Stream
from dubstream.runtime.streaming.passage import Passage, Streams
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import EngineStage


class Spent(NamedTuple):
    """Calls of one network, and the seconds they took together."""

    seconds: float
    calls: int


class NetworkCall:
    """Buffers for one item of a network, allocated once.

    Args:
        device: where the engine runs; attached in the thread that calls.
        engine: the network; closed by the caller, afterwards.
        stream: the call runs on it; engines opened together share one.
    """

    def __init__(self, device: Device, engine: Engine, stream: Stream) -> None:
        spec = engine.spec
        buffers = [BufferSpec.of(tensor, "input") for tensor in spec.inputs]
        buffers += [BufferSpec.of(tensor, "output") for tensor in spec.outputs]
        self.spec = spec
        self._slot = Slot(0, device, buffers, batch=1)
        self._slot.count = 1
        self._streams = Streams(stream, stream, stream)
        self._passage = Passage(device, self._slot, [EngineStage(engine)])
        self._spent = Spent(0.0, 0)

    def input(self, name: str) -> npt.NDArray[Any]:
        """The item to fill, without its batch axis; pinned memory that stays the same."""
        return np.asarray(self._slot.inputs[name][0])

    def run(self) -> dict[str, npt.NDArray[Any]]:
        """Run the network on what the inputs hold.

        Returns:
            Its outputs by name, without their batch axis; the next call overwrites them.

        Raises:
            InternalError: the network failed, or gave numbers that are not finite.
        """
        began = perf_counter()
        self._passage.enqueue(self._streams)
        self._passage.wait()
        self._spent = Spent(self._spent.seconds + perf_counter() - began, self._spent.calls + 1)
        outputs = {name: array[0] for name, array in self._slot.outputs.items()}
        for name, array in outputs.items():
            wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
            if wrong:
                raise InternalError(
                    f"network '{self.spec.name}': {wrong} of {array.size} values of '{name}' are not finite"
                )
        return outputs

    def spent(self) -> Spent:
        """What the calls since this was asked last have taken."""
        spent, self._spent = self._spent, Spent(0.0, 0)
        return spent
