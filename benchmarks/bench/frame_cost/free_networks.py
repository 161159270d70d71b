"""Networks that cost nothing: the same answer whatever they are given, to time what lies between networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import process_time
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.engine import Binding, Engine
from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import PARSENET
from dubstream.engines.specs import spec_of
from dubstream.kernels.checks import U8
from dubstream.kernels.face_align import ALIGNED
from dubstream.runtime.faces.geometry import face_extent
from dubstream.runtime.streaming.call import NetworkCall
from dubstream.runtime.streaming.device import Stream
from dubstream.runtime.streaming.host import HostDevice

Answers = Mapping[str, npt.NDArray[Any]]
"""By the name of an output, one item of it."""

_SKIN, _MOUTH = 1, 11  # ParseNet's classes
_FACE_OVAL, _MOUTH_OVAL = ((256, 300), (130, 180)), ((256, 370), (75, 40))  # centre, half axes; pixels
_SCORE = 0.99
_ROWS, _LEAST_ROWS = 720, 180
_POINTS = np.array([(-55, -90), (55, -90), (0, -30), (-40, 25), (40, 25)], float)
"""Around the middle of a frame of 720 rows: a head that fills about half its height."""


class FreeEngine(Engine):
    """A network whose outputs are written when it is bound, and never again.

    Args:
        spec: the network's contract, float32.
        answers: its outputs; the others are zero.
    """

    backend: ClassVar[str] = "free"
    outputs_optional: ClassVar[bool] = True

    def __init__(self, spec: NetworkSpec, answers: Answers | None = None) -> None:
        super().__init__(spec)
        self._answers = answers or {}

    def _bind(self, tensors: Mapping[str, Any], batch: int) -> Binding:
        for output in self.spec.outputs:
            if output.name in tensors:
                tensors[output.name][...] = self._answers.get(output.name, 0)
        return _FreeBinding(self.spec.name, tensors, batch)

    def _close(self) -> None:
        """Nothing is held."""


class _FreeBinding(Binding):
    def _run(self, handle: int | None) -> None:
        """The answer is there."""

    def _release(self) -> None:
        """Nothing is held."""


class FreeCalls:
    """Free networks called for one item, and what the processor does for such calls all the same.

    Args:
        device: where they are called.
        stream: of that device.
    """

    def __init__(self, device: HostDevice, stream: Stream) -> None:
        self._device, self._stream = device, stream
        self.spent_s = 0.0

    def of(self, engine: FreeEngine) -> NetworkCall:
        """A call whose time is counted here."""
        return _CountedCall(self._device, engine, self._stream, self)


class _CountedCall(NetworkCall):
    def __init__(self, device: HostDevice, engine: FreeEngine, stream: Stream, counter: FreeCalls) -> None:
        super().__init__(device, engine, stream)
        self._counter = counter

    def run(self) -> dict[str, npt.NDArray[Any]]:
        began = process_time()
        outputs = super().run()
        self._counter.spent_s += process_time() - began
        return outputs


@dataclass(frozen=True)
class FilmedFace:
    """A frame of noise with a face in its middle, as far as networks would say.

    Attributes:
        width, height: in pixels.

    Raises:
        UsageError: a side too small for the face.
    """

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.height < _LEAST_ROWS or self.width < self.height:
            raise UsageError(
                f"--width {self.width} --height {self.height}: expected {_LEAST_ROWS} rows or more, at most "
                "as many as columns"
            )

    @property
    def frame(self) -> U8:
        """uint8 BGR (H, W, 3)."""
        return np.random.default_rng(1).integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)

    @property
    def points(self) -> npt.NDArray[np.float64]:
        """Five points, float64 (5, 2)."""
        return _POINTS * (self.height / _ROWS) + (self.width / 2, self.height / 2)

    def detector(self, name: str, width: int) -> FreeEngine:
        """A detector that finds the face in the frame reduced to that width."""
        spec = spec_of(name)
        points = self.points * (width / self.width)
        return FreeEngine(spec, one_face(spec, face_extent(points), points))


def free_engine(name: str) -> FreeEngine:
    """Any other network: ParseNet sees a face, the others answer with noise in [0, 1]."""
    spec = spec_of(name)
    if name == PARSENET.name:
        return FreeEngine(spec, parsed_face())
    draw = np.random.default_rng(3)
    return FreeEngine(
        spec, {one.name: draw.random(one.concrete(1)[1:], dtype=np.float32) for one in spec.outputs}
    )


def landmarks_of(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Of 68 landmarks, int32 (68, 2), those that five points (5, 2) are made of."""
    found = np.zeros((68, 2), np.int32)
    found[36:42], found[42:48], found[30], found[48], found[54] = np.rint(points)
    return found


def one_face(
    spec: NetworkSpec, box: npt.NDArray[np.float64], points: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[Any]]:
    """A detector's answer: one prior sees this face, the others see nothing."""
    priors = int(spec.output("scores").shape[1])
    scores = np.zeros(priors, np.float32)
    scores[priors // 2] = _SCORE
    return {
        "scores": scores,
        "boxes": np.tile(box.astype(np.float32), (priors, 1)),
        "points": np.tile(points.astype(np.float32), (priors, 1, 1)),
    }


def parsed_face() -> dict[str, npt.NDArray[Any]]:
    """ParseNet's answer for an aligned face: skin in an oval, a mouth inside it."""
    masks = np.zeros((2, ALIGNED, ALIGNED), np.float32)
    classes = np.zeros((ALIGNED, ALIGNED), np.uint8)
    for mask, kind, (centre, axes) in zip(masks, (_SKIN, _MOUTH), (_FACE_OVAL, _MOUTH_OVAL), strict=True):
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1.0, -1)
        cv2.ellipse(classes, centre, axes, 0, 0, 360, kind, -1)
    return {"masks": masks, "classes": classes}
