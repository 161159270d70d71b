"""Finding and following a face in frames of 1280x720, without the time of networks.

`observe` looks at every fifth frame and follows the face in the others; a round is five frames. The original
spends 150 to 250 ms of processor time on each frame beside its networks.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from dubstream.benchmarks.demo_clip import portrait_frames
from dubstream.engines.face_specs import FAN4, S3FD
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks, Face
from dubstream.runtime.faces.networks import NetworkDetector, NetworkLandmarks
from dubstream.runtime.faces.observe import observe

WIDTH, HEIGHT, EVERY = 1280, 720, 5
FACE = (600.0, 150.0, 780.0, 380.0)
"""Where the stand-in for S3FD sees a face, in pixels of the frame."""


class Answering:
    """A network that answers at once, always the same: what is timed is the work around it."""

    def __init__(self, image: tuple[int | str, ...], answer: dict[str, npt.NDArray[np.float32]]) -> None:
        self._image = np.zeros([int(side) for side in image[1:]], np.float32)
        self._answer = answer

    def input(self, name: str) -> npt.NDArray[Any]:
        return self._image

    def run(self) -> dict[str, npt.NDArray[np.float32]]:
        return self._answer


def s3fd() -> Answering:
    """Thirty of its priors see the face."""
    priors = int(S3FD.output("scores").shape[1])
    scores = np.zeros(priors, np.float32)
    boxes = np.tile(np.array([side / 2 for side in FACE], np.float32), (priors, 1))
    scores[:30] = np.linspace(0.6, 0.99, 30)
    return Answering(S3FD.input("image").shape, {"boxes": boxes, "scores": scores})


def fan4() -> Answering:
    """A peak for every landmark, on a circle."""
    y, x = np.mgrid[:64, :64]
    angle = np.linspace(0, 6, 68)[:, None, None]
    distance = (x - 32 - 20 * np.cos(angle)) ** 2 + (y - 32 - 20 * np.sin(angle)) ** 2
    return Answering(FAN4.input("image").shape, {"heatmaps": np.exp(-distance / 2).astype(np.float32)})


@pytest.fixture(scope="module")
def frames() -> list[npt.NDArray[np.uint8]]:
    """The demo's portrait, before it turns away, on a wide screen."""
    pictures = list(portrait_frames(160, HEIGHT))[: 2 * EVERY]
    side = (WIDTH - HEIGHT) // 2
    return [cv2.copyMakeBorder(one, 0, 0, side, side, cv2.BORDER_REPLICATE) for one in pictures]  # type: ignore[misc]


@pytest.mark.parametrize("finder", ["cascade", "networks"])
def test_five_frames_of_tracking(benchmark: Any, frames: list[Any], finder: str) -> None:
    if finder == "cascade":
        parts: tuple[Any, Any] = CascadeDetector(), CascadeLandmarks()
    else:
        parts = NetworkDetector(s3fd()), NetworkLandmarks(fan4())
    numbered = list(enumerate(frames[:EVERY]))
    seen = benchmark.pedantic(observe, (numbered, *parts, EVERY), rounds=20, warmup_rounds=1)
    assert seen.frames.tolist() == list(range(EVERY))
    assert set(seen.frame[seen.tracklet == 0].tolist()) == set(range(EVERY))


def test_landmarks_around_the_network(benchmark: Any, frames: list[Any]) -> None:
    points = benchmark(NetworkLandmarks(fan4()).points, frames[0], Face(*FACE, 1.0))
    assert points.shape == (5, 2)
