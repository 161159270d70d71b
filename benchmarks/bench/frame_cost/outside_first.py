"""The first pass outside the networks, of both modes, with networks that are free.

For each source frame: faces looked for and followed, cuts and pictures made, references composed and packed.
Decoding, which both share, is not among it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from time import process_time

import cv2
import numpy as np

from dubstream.benchmarks.bench.frame_cost.free_networks import FilmedFace, FreeCalls, free_engine
from dubstream.engines.face_specs import DETECTOR_SIZE, FAN4, S3FD
from dubstream.engines.specs import DNET, RECON
from dubstream.runtime.coefficients import FRAME_SIZE, driving_rows, frame_coefficients
from dubstream.runtime.faces.geometry import CANONICAL, crop_box, face_extent
from dubstream.runtime.faces.networks import NetworkDetector, NetworkLandmarks
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.faces.track import Track
from dubstream.runtime.job.synthesise import Picture
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import FaceOptions, StreamOptions
from dubstream.runtime.options.upstream import SizedDetectors
from dubstream.runtime.platforms.platform import HostPlatform
from dubstream.runtime.preparation.references import PNG_COMPRESSION
from dubstream.runtime.preparation.regress import Regressor
from dubstream.runtime.preparation.stabilise import Stabiliser
from dubstream.runtime.preparation.upstream_references import PARTS, ReferenceMaker
from dubstream.runtime.streaming.host import HostDevice
from dubstream.runtime.upstream.landmarks import filled_landmarks, recon_input, source_picture
from dubstream.runtime.upstream.networks import BestFace, Coefficients, FaceLandmarks

FRAMES = 5
"""Of a sample: our detector looks at one of them, tracking fills in the others."""


@contextmanager
def native_first(face: FilmedFace) -> Iterator[Callable[[], float]]:
    """Our way, with faces found by networks.

    Yields:
        What does `FRAMES` frames and gives the milliseconds of one.
    """
    frame, box, stream = face.frame, crop_box(face.points, face.width, face.height), StreamOptions()
    track = tracked(face, FRAMES)

    def frames(start: int, stop: int) -> Iterator[tuple[int, Picture]]:
        return ((index, frame) for index in range(start, stop))

    with HostDevice() as device, closing(device.stream("free")) as queue:
        platform, calls = HostPlatform(Backend(), device, stream), FreeCalls(device, queue)
        detector = NetworkDetector(calls.of(face.detector(S3FD.name, DETECTOR_SIZE[1])))
        landmarks = NetworkLandmarks(calls.of(free_engine(FAN4.name)))
        dnet, recon = free_engine(DNET.name), free_engine(RECON.name)
        batch, slots = stream.batch, stream.slots
        with (
            closing(Regressor(platform, recon, track, box, batch=batch, slots=slots)) as regressor,
            closing(
                Stabiliser(platform, dnet, track, box, np.zeros(64, np.float32), batch=batch, slots=slots)
            ) as stabiliser,
        ):

            def run() -> None:
                observe(frames(0, FRAMES), detector, landmarks, every=FaceOptions().detect_every)
                found = regressor.run(frames, 0, FRAMES)
                stabiliser.run(frames, 0, FRAMES, found.table, found.crops, _pack, lambda _: None)

            yield lambda: _milliseconds(run, calls)


@contextmanager
def upstream_first(face: FilmedFace) -> Iterator[Callable[[], float]]:
    """The original's way, in our numpy and OpenCV; as `native_first`."""
    frame, box = face.frame, crop_box(face.points, face.width, face.height)
    sized, seen = SizedDetectors.of(face.width, face.height), FilmedFace(CANONICAL, CANONICAL)
    with HostDevice() as device, closing(device.stream("free")) as queue:
        free = FreeCalls(device, queue)
        calls = {name: free.of(free_engine(name)) for name in (*PARTS, FAN4.name, RECON.name)}
        calls[sized.frame_boxes] = free.of(face.detector(sized.frame_boxes, face.width))
        for name in (sized.crop_boxes, sized.crop_points):
            calls[name] = free.of(seen.detector(name, CANONICAL))
        find, coefficients = BestFace(calls[sized.frame_boxes]), Coefficients(calls[RECON.name])
        landmarks = FaceLandmarks(BestFace(calls[sized.crop_boxes]), calls[FAN4.name])
        rows = driving_rows(np.zeros((FRAMES, FRAME_SIZE), np.float32))
        maker = ReferenceMaker(calls, sized, rows, None)

        def run() -> None:
            for index in range(FRAMES):
                find(frame)
                picture = source_picture(frame, box)
                # FAN-4's noise is no face; the template's points, taken without one, cost the same.
                landmarks(picture)
                aligned, numbers = recon_input(picture, filled_landmarks([None])[0])
                frame_coefficients(coefficients(aligned)[None], numbers[None])
                _pack(index, maker.made(index, source_picture(frame, box))[0])

        yield lambda: _milliseconds(run, free)


def tracked(face: FilmedFace, frames: int) -> Track:
    """The face in the same place in so many frames."""
    return Track(
        np.arange(frames),
        np.ones(frames, np.bool_),
        np.tile(face_extent(face.points), (frames, 1)),
        np.tile(face.points, (frames, 1, 1)),
    )


def _milliseconds(run: Callable[[], None], calls: FreeCalls) -> float:
    """The processor's, of one frame, without what free networks cost all the same."""
    calls.spent_s, began = 0.0, process_time()
    run()
    return 1e3 * (process_time() - began - calls.spent_s) / FRAMES


def _pack(_: int, picture: Picture) -> None:
    cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
