"""The first pass: everything about a source video that does not depend on the new audio.

    observations-NNNNN.npz   faces in a chunk of frames, from detector and tracker
    references-NNNNN.pngs    the stabilised references of a chunk

Both are units of `dubstream.runtime.job.units` in a folder named by the content of the video, the
networks and the options that matter, so dubbing one video into many languages pays once, and a killed
job resumes. References are made for the chunks an output needs, no others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.artifact import Artifact
from dubstream.engines.cache import folder_lock
from dubstream.engines.facts import digest_facts
from dubstream.kernels.boxes import Box
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks
from dubstream.runtime.faces.geometry import crop_box
from dubstream.runtime.faces.observations import Observations
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.faces.selector import parse_face_selector
from dubstream.runtime.faces.track import Track, resolve_track
from dubstream.runtime.job.options import FaceOptions, StreamOptions
from dubstream.runtime.job.platforms import Platform
from dubstream.runtime.job.references import ReferenceReader, ReferenceWriter, chunk_name
from dubstream.runtime.job.stabilise import Stabiliser
from dubstream.runtime.job.timing import Timing
from dubstream.runtime.job.units import UnitFolder
from dubstream.runtime.media.probe import VideoInfo
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.progress import Progress

log = logging.getLogger(__name__)

SCHEMA = 1
"""Raise when the same inputs would give another preparation."""

CHUNK_FRAMES = 240
"""Source frames per chunk, about 10 s; a constant, as chunk borders are part of what is stored."""


@dataclass(frozen=True)
class Prepared:
    """A video, ready to be dubbed.

    Attributes:
        key: identity of the preparation.
        track: the face in every source frame.
        crop_box: the part of the frame the references show.
        references: reads them.
    """

    key: str
    track: Track
    crop_box: Box
    references: ReferenceReader


class Preparation:
    """Prepares one video, or finds it prepared.

    Args:
        reader: reads the source video.
        info: what the source video is.
        digest: SHA-256 of the video's content.
        recon, dnet: verified artifacts.
        template: float32 (64,), the expression of the references.
        face, stream: options.
        cache: folder of all preparations.
    """

    def __init__(
        self,
        reader: VideoReader,
        info: VideoInfo,
        digest: str,
        recon: Artifact,
        dnet: Artifact,
        template: npt.NDArray[np.float32],
        face: FaceOptions,
        stream: StreamOptions,
        cache: Path,
    ) -> None:
        self._reader = reader
        self._info = info
        self._networks = (recon, dnet)
        self._template = template
        self._face = face
        self._stream = stream
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "video": digest,
            "frames": info.frame_count,
            "recon": recon.digest,
            "dnet": dnet.digest,
            "template": [float(value) for value in template],
            "face": asdict(face),
        }
        self.key = digest_facts(facts)
        self._units = UnitFolder(cache / "prepared" / self.key[:32], self.key)

    def run(
        self,
        needed: npt.NDArray[np.int64],
        platform: Platform,
        timing: Timing,
        progress: Progress,
    ) -> Prepared:
        """Bring the preparation to where `needed` source frames can be dubbed.

        What another backend prepared from the same artifacts is used as it is.

        Raises:
            NoFaceError: no usable face anywhere.
            DubError: reading or writing failed.
        """
        with folder_lock(self._units.folder):
            track = self._track(timing, progress)
            first = int(np.flatnonzero(track.present)[0])
            box = crop_box(track.points[first], self._info.width, self._info.height)
            self._stabilise(needed, track, box, platform, timing, progress)
        return Prepared(self.key, track, box, ReferenceReader(self._units, CHUNK_FRAMES))

    def _track(self, timing: Timing, progress: Progress) -> Track:
        total = self._info.frame_count
        chunks = []
        for start in range(0, total, CHUNK_FRAMES):
            stop = min(start + CHUNK_FRAMES, total)
            name = f"observations-{start // CHUNK_FRAMES:05d}.npz"
            if self._units.finished(name) is None:
                with timing.measure("track", stop - start), self._units.making(name, {}) as path:
                    detector, landmarks = CascadeDetector(), CascadeLandmarks()
                    frames = _counted(self._reader.frames(start, stop), "track", total, progress)
                    found = observe(frames, detector, landmarks, every=self._face.detect_every)
                    with path.open("wb") as file:
                        np.savez(file, allow_pickle=False, **found.arrays())
            with np.load(self._units.path(name), allow_pickle=False) as arrays:
                chunks.append(Observations.from_arrays(arrays))
            progress("track", stop, total)
        return resolve_track(
            Observations.join(chunks),
            self._info.width,
            self._info.height,
            parse_face_selector(self._face.selector),
            max_gap=self._face.max_gap,
        )

    def _stabilise(
        self,
        needed: npt.NDArray[np.int64],
        track: Track,
        box: Box,
        platform: Platform,
        timing: Timing,
        progress: Progress,
    ) -> None:
        chunks = sorted({int(index) // CHUNK_FRAMES for index in needed})
        missing = [chunk for chunk in chunks if self._units.finished(chunk_name(chunk)) is None]
        if not missing:
            return
        total = sum(int(track.present[_span(chunk, len(track.present))].sum()) for chunk in missing)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("stabilise", done, total)

        recon, dnet = self._networks
        # Two streamers, so two calls: engines opened together share memory and have to share a stream.
        with (
            platform.opened(recon) as (recon_engine,),
            platform.opened(dnet) as (dnet_engine,),
            closing(
                Stabiliser(
                    platform, recon_engine, dnet_engine, track, box, self._template,
                    batch=self._stream.batch, slots=self._stream.slots,
                )
            ) as stabiliser,
        ):  # fmt: skip
            for chunk in missing:
                span = _span(chunk, len(track.present))
                facts: dict[str, Any] = {}
                with self._units.making(chunk_name(chunk), facts) as path:
                    writer = ReferenceWriter(path, facts)
                    try:
                        reports = stabiliser.run(
                            self._reader.frames, span.start, span.stop, writer.append, advance,
                            trace=timing.trace,
                        )  # fmt: skip
                    finally:
                        writer.close()
                log.info("prepared chunk %d: %d references", chunk, len(facts["frames"]))
                for report in reports:
                    timing.add("prepare", report)


def _span(chunk: int, frames: int) -> slice:
    return slice(chunk * CHUNK_FRAMES, min((chunk + 1) * CHUNK_FRAMES, frames))


def _counted(frames: Iterable[Any], stage: str, total: int, progress: Progress) -> Iterable[Any]:
    for index, frame in frames:
        yield index, frame
        progress(stage, index + 1, total)
