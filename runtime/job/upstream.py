"""`--mode upstream`: the original program's numbers, for regression.

What differs from the original, in a dub as a whole:

- dlib is no dependency: the source box comes from S3FD and FAN-4, or from `--source-box`.
- In front of GFPGAN the original runs a RetinaFace from another file, facexlib's, of the same layout; here it
  is the one that is distributed with GPEN, as everywhere else.
- The style layers' noise is zero; the original draws it anew for every call.
- The picture is encoded once, and the sound ends with it; the original encodes twice, and its sound goes on
  for the 0.12 s that its windows are short.
- Speech that is no WAV file is decoded to float, not to 16 bits first.
- A frame without a face where the original stops with a Python error ends in an error that names it. Where
  its last detection finds no face, which also stops it, the frame shows the source.
- Networks are called for one frame where the original takes 4 or 16: the last bits of their sums may differ.

As in the original every face that is found in a picture is restored and parsed. Untrained detectors see
dozens: with seeded weights a frame takes minutes, and nothing is learned from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.specs import CORE
from dubstream.runtime.audio import mel_spectrogram, speech_from, window_starts
from dubstream.runtime.job.speakers import Chain
from dubstream.runtime.job.upstream_render import STAGE, UpstreamRenderer, UpstreamScene, render_networks
from dubstream.runtime.job.way import JobFacts, Way
from dubstream.runtime.media.audio import AudioTrack
from dubstream.runtime.media.probe import VideoInfo
from dubstream.runtime.media.rates import MAX_RATE, MIN_RATE
from dubstream.runtime.options.upstream import SizedDetectors
from dubstream.runtime.platforms.calls import Calls, account_calls, opened_calls
from dubstream.runtime.preparation.expression import open_expression
from dubstream.runtime.preparation.upstream import UpstreamPreparation
from dubstream.runtime.timeline import Timeline
from dubstream.runtime.upstream.boxes import shown_frames


class UpstreamWay(Way):
    """See `Way`; one voice."""

    def __init__(self, job: JobFacts) -> None:
        super().__init__(job)
        request = job.request
        self._expression = open_expression(request.options, request.artifacts, request.cache)
        self._detectors = SizedDetectors.of(job.info.width, job.info.height)
        self._calls: Calls = {}

    def plan(self, tracks: Sequence[AudioTrack]) -> Timeline:
        """As many frames as mel windows, at the container's rate, jumping back to frame 0 (stage 4)."""
        job, (track,) = self._job, tracks
        with job.timing.measure("audio", 1):
            self._mel = mel_spectrogram(speech_from(track.samples, track.rate))
        rate = container_rate(job.info)
        self._starts = window_starts(self._mel.shape[1], rate, rule="upstream")
        windows = len(self._starts)
        job.request.options.limits.check_most("max_frames", windows, "output frames planned")
        self._used = min(job.info.frame_count, windows)
        self._timeline = Timeline(rate, shown_frames(self._used, windows))
        return self._timeline

    def prepare(self) -> None:
        """Boxes, landmarks, coefficients and references of the frames that are shown."""
        job, request = self._job, self._job.request
        times_s = np.zeros(job.info.frame_count)
        expression = self._expression.rows(times_s, job.platform, job.timing, job.progress)
        with job.reading() as reader:
            preparation = UpstreamPreparation(
                reader, job.info, job.digest, request.artifacts, expression, request.options, request.cache
            )
            self._prepared = preparation.run(self._used, job.platform, job.timing, job.progress)

    @property
    def keys(self) -> list[str]:
        """Of the preparation."""
        return [self._prepared.key]

    @property
    def facts(self) -> dict[str, Any]:
        """The networks of the second pass."""
        artifacts = self._job.request.artifacts
        return {"upstream": {name: artifacts[name].digest for name in self._networks}}

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Everywhere."""
        return np.ones(self._used, np.bool_)

    @contextmanager
    def opened(self) -> Iterator[Chain]:
        """One renderer."""
        job, info = self._job, self._job.info
        options = job.request.options
        scene = UpstreamScene(
            self._prepared, self._timeline, self._mel, self._starts, info.width, info.height
        )
        with (
            closing(self._prepared.references),
            opened_calls(job.platform, job.request.artifacts, *self._networks) as self._calls,
            closing(
                UpstreamRenderer(
                    job.platform, self._calls, self._detectors, scene, options.emotion,
                    slots=options.stream.slots,
                )
            ) as renderer,
        ):  # fmt: skip
            yield Chain([renderer])

    def rendered(self) -> None:
        """The networks' seconds out of those of the stage they were called in."""
        account_calls(self._job.timing, f"synthesise/{STAGE}", self._calls, "synthesise")

    @property
    def licensed(self) -> tuple[str, ...]:
        """All but the four that every dub needs."""
        info, options = self._job.info, self._job.request.options
        return tuple(name for name in options.networks_for(info.width, info.height) if name not in CORE)

    def notes(self, unparsed: int) -> list[str]:
        """Expression, source box, and frames in which the last detection found no face."""
        notes = [] if self._expression.note is None else [self._expression.note]
        box = ",".join(map(str, self._prepared.source_box))
        options = self._job.request.options.upstream
        if options is None or options.source_box is None:
            notes.append(f"source box {box} by S3FD and FAN-4, where the original asks dlib (--source-box)")
        if unparsed:
            notes.append(f"the last detection saw no face in {unparsed} frames, which show the source")
        return notes

    @property
    def _networks(self) -> tuple[str, ...]:
        return render_networks(self._detectors, self._job.request.options.emotion)


def container_rate(info: VideoInfo) -> Fraction:
    """Frames per second that the original takes, the container's average; ours where that is absurd."""
    average = info.average_rate
    return average if average is not None and MIN_RATE <= average <= MAX_RATE else info.rate
