"""The expression of the references as numbers: from templates, or measured in a picture or another video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.artifact import Artifact
from dubstream.runtime.coefficients import EXPRESSION
from dubstream.runtime.expression import FaceSource, TemplateMix
from dubstream.runtime.media.opening import content_digest
from dubstream.runtime.media.picture import read_picture
from dubstream.runtime.media.probe import VideoInfo, probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import DubOptions
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.preparation.clip_faces import CHUNK_FRAMES, Clip, ClipFaces
from dubstream.runtime.preparation.regress import Picture
from dubstream.runtime.progress import Progress
from dubstream.runtime.timeline import AudioMode, plan_timeline
from dubstream.runtime.timing import Timing

Rows = npt.NDArray[np.float32]


class Expression(ABC):
    """What the references' faces do.

    Attributes:
        facts: what of it decides the references; JSON types.
        note: what the user should know; None for nothing.
    """

    facts: Mapping[str, Any]
    note: str | None = None

    @abstractmethod
    def rows(
        self, times_s: npt.NDArray[np.float64], platform: Platform, timing: Timing, progress: Progress
    ) -> Rows:
        """The expression: float32 (64,) for all frames, or (n, 64) for frames shown at `times_s`.

        Raises:
            NoFaceError: no usable face where it is to be taken from.
            DubError: reading or computing failed.
        """


class TemplateExpression(Expression):
    """A template, or a point between two.

    Args:
        mix: which.
        templates: the file they are in; None only for the neutral one, which is zero then.
    """

    def __init__(self, mix: TemplateMix, templates: Path | None) -> None:
        self._values = mix.values(templates)
        self.facts = {"template": [float(value) for value in self._values]}
        if templates is None:
            self.note = "no expression.mat: references have the neutral (zero) expression"

    def rows(
        self, times_s: npt.NDArray[np.float64], platform: Platform, timing: Timing, progress: Progress
    ) -> Rows:
        """float32 (64,)."""
        return self._values


class FaceExpression(Expression):
    """The expression of the largest face in a picture or a video, frame by frame.

    A frame of the dubbed video takes the expression that is seen at the same moment; a video that ends
    earlier runs back and forth. Where its face is out of sight, the expression goes straight from the last
    sight to the next. Faces and coefficients are kept in the cache like those of a video that is dubbed, and
    measured in the same way, so that the numbers mean the same.

    Args:
        source: the file; its size and kind are checked here.
        artifacts: verified ones by network.
        options: of the job; they say how faces are found, the choice among them is always the largest.
        cache: folder of all preparations.
    """

    def __init__(
        self,
        source: FaceSource,
        artifacts: Mapping[str, Artifact],
        options: DubOptions,
        cache: Path,
    ) -> None:
        self._artifacts, self._stream, self._cache = artifacts, options.stream, cache
        self._face = replace(options.face, selector="largest")
        limits = self._limits = options.limits
        self._digest = content_digest(source.path)
        self._picture: Picture | None = None
        self._info: VideoInfo | None = None
        if source.is_picture:
            self._picture = read_picture(source.path, limits)
        else:
            self._info = probe_video(source.path, limits, allow_truncated=options.allow_truncated)
        self.facts = {"face_of": self._digest, "frames": self._count}

    def rows(
        self, times_s: npt.NDArray[np.float64], platform: Platform, timing: Timing, progress: Progress
    ) -> Rows:
        """float32 (n, 64)."""
        wanted = self._frames_at(times_s)
        with self._clip() as clip:
            faces = ClipFaces(clip, self._artifacts, self._face, self._stream, self._cache)
            with faces.locked():
                return self._measured(faces, wanted, platform, timing, progress)[wanted]

    def _measured(
        self,
        faces: ClipFaces,
        wanted: npt.NDArray[np.int64],
        platform: Platform,
        timing: Timing,
        progress: Progress,
    ) -> Rows:
        """The expression of all frames of the source, float32 (count, 64); right where it is wanted."""
        face = faces.face(platform, timing, progress)
        chunks = sorted({int(frame) // CHUNK_FRAMES for frame in wanted})
        seen: dict[int, Rows] = {}
        with faces.measuring(chunks, face, platform) as regressor:
            for chunk in chunks:
                table, _ = faces.table(chunk, regressor, timing)
                seen.update(zip(table.frames.tolist(), table.coefficients[:, EXPRESSION], strict=True))
        if not seen:
            # The face appears elsewhere in the source: the chunk nearest to what is wanted has to do.
            present = np.flatnonzero(face.track.present)
            nearest = present[np.abs(present - wanted[0]).argmin()]
            return self._measured(faces, np.array([nearest]), platform, timing, progress)
        frames = np.array(sorted(seen))
        known = np.stack([seen[int(frame)] for frame in frames])
        every = np.arange(self._count)
        columns = [np.interp(every, frames, column) for column in known.T]
        return np.stack(columns, axis=1).astype(np.float32)

    def _frames_at(self, times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The source's frame for each moment, in seconds from the start."""
        if self._info is None:
            return np.zeros(len(times_s), np.int64)
        rate = self._info.rate
        slots = np.rint(times_s * float(rate)).astype(np.int64)
        seconds = Fraction(int(slots.max(initial=0)) + 1) / rate
        plan = self._info.plan(self._limits)
        return plan_timeline(plan, rate, seconds, AudioMode.BOUNCE).sources[slots]

    @property
    def _count(self) -> int:
        return 1 if self._info is None else self._info.frame_count

    @contextmanager
    def _clip(self) -> Iterator[Clip]:
        if self._info is not None:
            with VideoReader(self._info, self._limits) as reader:
                yield Clip.of(reader, self._info, self._digest)
        elif self._picture is not None:
            pictures = [(0, self._picture)]
            height, width = self._picture.shape[:2]
            yield Clip(lambda start, stop: pictures[start:stop], 1, width, height, self._digest)


def open_expression(options: DubOptions, artifacts: Mapping[str, Artifact], cache: Path) -> Expression:
    """The expression that `options` name; its files are read and checked, no network runs.

    Raises:
        CheckpointError: an unusable file of templates.
        MediaError: an unusable picture or video.
    """
    parsed = options.expression.parsed
    if isinstance(parsed, TemplateMix):
        return TemplateExpression(parsed, options.expression.templates)
    return FaceExpression(parsed, artifacts, options, cache)
