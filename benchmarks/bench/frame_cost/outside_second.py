"""The second pass outside the networks, of both modes, with networks that are free.

For each output frame: its reference read, slots filled, pixel stages, copies and checks. Decoding and
encoding, which both share, are not among it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from time import process_time

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.benchmarks.bench.frame_cost.free_networks import (
    FilmedFace,
    FreeCalls,
    free_engine,
    landmarks_of,
)
from dubstream.benchmarks.bench.frame_cost.outside_first import tracked
from dubstream.engines.face_specs import GFPGAN, PARSENET
from dubstream.engines.specs import ENET, LNET
from dubstream.runtime.emotion import EmotionOptions
from dubstream.runtime.faces.geometry import (
    CANONICAL,
    Pads,
    crop_box,
    face_extent,
    padded_box,
    points_in_crop,
)
from dubstream.runtime.job.renderer import Renderer
from dubstream.runtime.job.synthesise import Picture, Scene, Synthesiser
from dubstream.runtime.job.upstream_render import UpstreamRenderer, UpstreamScene, render_networks
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import StreamOptions
from dubstream.runtime.options.finish import PARSE, FinishOptions
from dubstream.runtime.options.upstream import SizedDetectors
from dubstream.runtime.platforms.finish_stages import Finish
from dubstream.runtime.platforms.platform import HostPlatform
from dubstream.runtime.preparation.preparation import Prepared
from dubstream.runtime.preparation.references import ReferenceReader
from dubstream.runtime.preparation.upstream import UpstreamPrepared
from dubstream.runtime.streaming.host import HostDevice
from dubstream.runtime.timeline import Timeline
from dubstream.runtime.upstream.five_points import enhancement_size

_MEL = np.zeros((80, 32), np.float32)
_TIMELINE = Timeline(Fraction(25), np.zeros(1, np.int64))


class OneReference(ReferenceReader):
    """The same reference for every frame, unpacked each time."""

    def __init__(self) -> None:
        noise = np.random.default_rng(2).integers(0, 256, (CANONICAL, CANONICAL, 3), dtype=np.uint8)
        self._packed = cv2.imencode(".png", cv2.GaussianBlur(noise, (9, 9), 0))[1]

    def read(self, index: int) -> Picture:
        """uint8 BGR (256, 256, 3)."""
        return np.asarray(cv2.imdecode(self._packed, cv2.IMREAD_COLOR), np.uint8)

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def native_second(face: FilmedFace) -> Iterator[Callable[[], float]]:
    """Our way with everything on: the parse mask and restored mouths.

    Yields:
        What renders one frame and gives its milliseconds.
    """
    with HostDevice() as device, closing(device.stream("free")) as queue:
        platform = HostPlatform(Backend(), device, StreamOptions(batch=1, slots=1))
        box = crop_box(face.points, face.width, face.height)
        prepared = Prepared("", Path(), tracked(face, 1), box, OneReference())
        scene = Scene(prepared, _TIMELINE, _MEL, Pads(), face.width, face.height)
        lnet, enet, parsenet, gfpgan = map(free_engine, (LNET.name, ENET.name, PARSENET.name, GFPGAN.name))
        finish = Finish(FinishOptions(PARSE, GFPGAN.name), parsenet, gfpgan)
        synthesiser = Synthesiser(platform, lnet, enet, scene, finish=finish, batch=1, slots=1)
        with closing(synthesiser):
            yield lambda: _milliseconds(synthesiser, face.frame, FreeCalls(device, queue))


@contextmanager
def upstream_second(face: FilmedFace) -> Iterator[Callable[[], float]]:
    """The original's way, in our numpy and OpenCV; as `native_second`."""
    sized, emotion = SizedDetectors.of(face.width, face.height), EmotionOptions()
    reduced, _ = enhancement_size(face.width, face.height)
    box = crop_box(face.points, face.width, face.height)
    face_box = padded_box(face_extent(face.points), face.width, face.height)
    landmarks = landmarks_of(points_in_crop(face.points, box))[None]
    prepared = UpstreamPrepared("", box, [face_box], landmarks, OneReference())
    scene = UpstreamScene(prepared, _TIMELINE, _MEL, np.zeros(1, np.int64), face.width, face.height)
    with HostDevice() as device, closing(device.stream("free")) as queue:
        free = FreeCalls(device, queue)
        detectors = {sized.frame_points: face.width, sized.mask_points: reduced}
        engines = {name: face.detector(name, width) for name, width in detectors.items()}
        others = [name for name in render_networks(sized, emotion) if name not in engines]
        engines |= {name: free_engine(name) for name in others}
        calls = {name: free.of(engine) for name, engine in engines.items()}
        platform = HostPlatform(Backend(), device, StreamOptions())
        renderer = UpstreamRenderer(platform, calls, sized, scene, emotion, slots=1)
        with closing(renderer):
            yield lambda: _milliseconds(renderer, face.frame, free)


def _milliseconds(renderer: Renderer, frame: Picture, calls: FreeCalls) -> float:
    """The processor's, of one frame, without what calls of free networks cost all the same."""

    def frames_at(wanted: npt.NDArray[np.int64]) -> Iterable[tuple[int, Picture]]:
        return ((int(index), frame) for index in wanted)

    calls.spent_s, began = 0.0, process_time()
    renderer.render(frames_at, 0, 1, lambda _: None, lambda _: None)
    return 1e3 * (process_time() - began - calls.spent_s)
