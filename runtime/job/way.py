"""What the two modes of a dub do each in their own way; segments, resuming and assembling they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.runtime.job.speakers import Chain
from dubstream.runtime.media.audio import AudioTrack
from dubstream.runtime.media.probe import VideoInfo
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import DubRequest
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.progress import Progress
from dubstream.runtime.timeline import Timeline
from dubstream.runtime.timing import Timing


@dataclass(frozen=True)
class JobFacts:
    """One dub before any work is done.

    Attributes:
        request: files, artifacts, options.
        info: what the video is.
        digest: SHA-256 of its content.
        platform: where it is computed.
        timing, progress: told about every stage.
    """

    request: DubRequest
    info: VideoInfo
    digest: str
    platform: Platform
    timing: Timing
    progress: Progress

    @contextmanager
    def reading(self) -> Iterator[VideoReader]:
        """The video, open until the block ends."""
        with VideoReader(self.info, self.request.options.limits) as reader:
            yield reader


class Way(ABC):
    """A mode, for one dub. Called in the order of the methods.

    Args:
        job: the dub; files it names beside video and speech are read and checked here.
    """

    def __init__(self, job: JobFacts) -> None:
        self._job = job

    @abstractmethod
    def plan(self, tracks: Sequence[AudioTrack]) -> Timeline:
        """The output's frames, for these voices; their sound is not kept.

        Raises:
            MediaError: nothing to dub.
            LimitError: too many frames.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Do the first pass over the video, or find it done."""

    @property
    @abstractmethod
    def keys(self) -> list[str]:
        """For each voice, the identity of what was prepared."""

    @property
    def facts(self) -> dict[str, Any]:
        """What else decides the output's frames, beside what all modes know; JSON types."""
        return {}

    @property
    @abstractmethod
    def present(self) -> npt.NDArray[np.bool_]:
        """Of every source frame that is shown, and those before it, whether a face in it is dubbed."""

    @abstractmethod
    def opened(self) -> AbstractContextManager[Chain]:
        """What renders segments."""

    def rendered(self) -> None:  # noqa: B027
        """Called when a segment's report was added to the timing."""

    @property
    @abstractmethod
    def licensed(self) -> tuple[str, ...]:
        """Names of networks whose licences belong into the summary."""

    @abstractmethod
    def notes(self, unparsed: int) -> list[str]:
        """What the user should know; `unparsed` is that of the chain."""
