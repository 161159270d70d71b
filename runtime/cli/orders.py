"""What a command was asked to do, parsed and checked before anything is opened."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dubstream.engines.atomic import publish
from dubstream.engines.cache import cache_root
from dubstream.runtime.artifacts import Artifacts, find_artifacts
from dubstream.runtime.expression import FaceSource
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.options.dub import DubOptions, DubRequest
from dubstream.runtime.platforms.platform import Platform, open_platform
from dubstream.runtime.progress import Progress
from dubstream.runtime.speakers import Speaker


@dataclass(frozen=True)
class WeightsOptions:
    """Where the networks come from; see `find_artifacts`, whose errors `find` raises."""

    artifacts: Path | None
    checkpoints: Path | None
    weights: str | None

    def find(self, networks: tuple[str, ...], options: DubOptions, report: Progress) -> Artifacts:
        """Verified artifacts of these networks, in the precision and with the threads of `options`."""
        return find_artifacts(
            self.artifacts, self.checkpoints, self.weights, networks=networks,
            precision=options.backend.precision, threads=options.stream.threads, progress=report,
        )  # fmt: skip


@dataclass(frozen=True)
class DubOrder:
    """One `dubstream dub`.

    Attributes:
        video, audio, output: its files; no audio where there are speakers.
        options: of the job.
        weights: where the networks come from.
        plans, plans_key: folder of built TensorRT plans, and the key file of a shared one.
        cache: folder for preparations and unfinished jobs; None for the default.
        prepared: a preparation that has to fit.
        trace: file for the Chrome trace.
        as_json: whether the summary is for programs.
        speakers: several people, each with speech of their own.
    """

    video: Path
    audio: Path | None
    output: Path
    options: DubOptions
    weights: WeightsOptions
    plans: Path | None
    plans_key: Path | None
    cache: Path | None
    prepared: Path | None
    trace: Path | None
    as_json: bool
    speakers: tuple[Speaker, ...] = ()

    @property
    def inputs(self) -> list[Path]:
        """The files it reads, beside weights and a person's picture."""
        expression = self.options.expression
        spoken = [self.audio] if self.audio is not None else [speaker.audio for speaker in self.speakers]
        shown = [expression.parsed.path] if isinstance(expression.parsed, FaceSource) else []
        return [self.video, *spoken, *shown, *([expression.templates] if expression.templates else [])]

    def checked_platform(self) -> AbstractContextManager[Platform]:
        """Open the platform; `DeviceError` where a driver or library is missing."""
        return open_platform(
            self.options.backend, self.options.stream, plans=self.plans, secret=self.plans_key
        )

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of those it needs.

        Raises:
            MediaError: they depend on the video's size, and it cannot be read.
        """
        options = self.options
        if options.upstream is None:
            return options.networks
        info = probe_video(self.video, options.limits, allow_truncated=options.allow_truncated)
        return options.networks_for(info.width, info.height)

    def find_networks(self, report: Progress) -> Artifacts:
        """The artifacts it needs; errors as for `find_artifacts` and `networks`."""
        return self.weights.find(self.networks, self.options, report)

    def request(self, networks: Artifacts) -> DubRequest:
        """The job itself."""
        return DubRequest(
            self.video, self.audio, self.output, networks, self.cache or cache_root(), self.options,
            self.plans, self.plans_key, self.prepared, self.speakers,
        )  # fmt: skip

    def write_trace(self, summary: DubSummary) -> None:
        """Write the trace, where one was asked for."""
        if self.trace is not None:
            publish(self.trace, json.dumps(summary.trace).encode())
