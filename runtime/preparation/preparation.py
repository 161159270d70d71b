"""The first pass: everything about a source video that does not depend on the new audio.

    KEY/                              one video, one way of finding faces: see `clip_faces`
        observations-NNNNN.npz
        coefficients-KEY2/            one choice of face, one coefficient network
        references-KEY3/              one expression, one D-Net
            references-NNNNN.pngs     the stabilised references of a chunk

Units of `dubstream.runtime.units.unit_folder` in folders named by what they depend on, so dubbing one video
into many languages pays once, another expression pays for its references alone, and a killed job resumes.
References are made for the chunks an output needs, no others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import RetryError
from dubstream.engines.facts import digest_facts
from dubstream.kernels.boxes import Box
from dubstream.runtime.faces.track import Track
from dubstream.runtime.media.probe import VideoInfo
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import DubOptions
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.preparation.clip_faces import CHUNK_FRAMES, Clip, ClipFaces, TrackedFace
from dubstream.runtime.preparation.expression import Expression
from dubstream.runtime.preparation.references import ReferenceReader, ReferenceWriter, chunk_name
from dubstream.runtime.preparation.regress import Picture, cropped
from dubstream.runtime.preparation.restore_references import ReferenceRestorer
from dubstream.runtime.preparation.stabilise import Stabiliser
from dubstream.runtime.progress import Progress
from dubstream.runtime.timing import Timing

log = logging.getLogger(__name__)

SCHEMA = 2
"""Raise when the same inputs would give other references."""


@dataclass(frozen=True)
class Prepared:
    """A video, ready to be dubbed.

    Attributes:
        key: identity of the references.
        folder: of the preparation, with all its expressions.
        track: the face in every source frame.
        crop_box: the part of the frame the references show.
        references: reads them.
    """

    key: str
    folder: Path
    track: Track
    crop_box: Box
    references: ReferenceReader


class Preparation:
    """Prepares one video, or finds it prepared.

    Args:
        reader: reads the source video.
        info: what the source video is.
        digest: SHA-256 of the video's content.
        artifacts: verified ones by network.
        expression: of the references.
        options: of the job.
        cache: folder of all preparations.
        given: a preparation that has to fit and is complete; nothing is made then. None for the cache's.

    Raises:
        UsageError: `given` is no preparation, or one of something else; says what differs.
    """

    def __init__(
        self,
        reader: VideoReader,
        info: VideoInfo,
        digest: str,
        artifacts: Mapping[str, Artifact],
        expression: Expression,
        options: DubOptions,
        cache: Path,
        *,
        given: Path | None = None,
    ) -> None:
        self._reader, self._info, self._stream = reader, info, options.stream
        self._expression, self._one_shot = expression, options.expression.one_shot
        self._dnet = artifacts["dnet"]
        clip = Clip.of(reader, info, digest)
        self._faces = ClipFaces(clip, artifacts, options.face, options.stream, cache, given, options.limits)
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "measured": self._faces.measured_key,
            "dnet": self._dnet.digest,
            "expression": dict(expression.facts),
            "one_shot": self._one_shot,
        }
        self._restoring = [artifacts[name] for name in options.finish.reference_networks]
        if self._restoring:
            facts["restored"] = {one.spec.name: one.digest for one in self._restoring}
        self.key = digest_facts(facts)
        self._units = self._faces.subfolder("references", self.key, facts)

    @property
    def folder(self) -> Path:
        """Of the preparation."""
        return self._faces.folder

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
            UsageError: something is missing in the preparation that was given.
            DubError: reading or writing failed.
        """
        chunks = sorted({int(index) // CHUNK_FRAMES for index in needed})
        # Before our lock: the expression may come from a video that somebody else prepares from ours.
        expression = self._rows(chunks, platform, timing, progress)
        with self._faces.locked():
            face = self._faces.face(platform, timing, progress)
            missing = self._missing(chunks)
            if missing:
                if expression is None:
                    raise RetryError(
                        f"another process took references away from {self.folder}", hint="run it again"
                    )
                self._stabilise(missing, face, expression, platform, timing, progress)
        references = ReferenceReader(self._units, CHUNK_FRAMES)
        return Prepared(self.key, self.folder, face.track, face.crop_box, references)

    def _missing(self, chunks: list[int]) -> list[int]:
        return [chunk for chunk in chunks if self._faces.missing(self._units, chunk_name(chunk))]

    def _rows(
        self, chunks: list[int], platform: Platform, timing: Timing, progress: Progress
    ) -> npt.NDArray[np.float32] | None:
        if not self._missing(chunks):
            return None
        return self._expression.rows(self._info.times_s, platform, timing, progress)

    def _stabilise(
        self,
        chunks: list[int],
        face: TrackedFace,
        expression: npt.NDArray[np.float32],
        platform: Platform,
        timing: Timing,
        progress: Progress,
    ) -> None:
        faces, present = self._faces, face.track.present
        total = sum(int(present[slice(*faces.span(chunk))].sum()) for chunk in chunks)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("stabilise", done, total)

        with (
            faces.measuring(chunks, face, platform) as regressor,
            self._restorer(platform) as restorer,
            # A call for every streamer: engines opened together share memory and have to share a stream.
            platform.opened(self._dnet) as (dnet,),
            closing(
                Stabiliser(
                    platform, dnet, face.track, face.crop_box, expression,
                    anchor=self._anchor(face), restorer=restorer,
                    batch=self._stream.batch, slots=self._stream.slots,
                )
            ) as stabiliser,
        ):  # fmt: skip
            for chunk in chunks:
                table, crops = faces.table(chunk, regressor, timing)
                facts: dict[str, Any] = {}
                with self._units.making(chunk_name(chunk), facts) as path:
                    writer = ReferenceWriter(path, facts)
                    try:
                        reports = stabiliser.run(
                            self._reader.frames, *faces.span(chunk), table, crops, writer.append, advance,
                            trace=timing.trace,
                        )  # fmt: skip
                    finally:
                        writer.close()
                log.info("prepared chunk %d: %d references", chunk, len(facts["frames"]))
                for report in reports:
                    timing.add("prepare", report)

    @contextmanager
    def _restorer(self, platform: Platform) -> Iterator[ReferenceRestorer | None]:
        if not self._restoring:
            yield None
            return
        with (
            platform.opened(*self._restoring) as (parser, restorer),
            closing(
                ReferenceRestorer(
                    platform, parser, restorer, batch=self._stream.batch, slots=self._stream.slots
                )
            ) as opened,
        ):
            yield opened

    def _anchor(self, face: TrackedFace) -> Picture | None:
        """The picture that stands for the whole clip, in a one-shot preparation."""
        if not self._one_shot:
            return None
        first = int(np.flatnonzero(face.track.present)[0])
        (_, frame), *_ = self._reader.frames(first, first + 1)
        return cropped(frame, face.crop_box)
