"""The first pass by itself: a whole video prepared for any number of dubs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dubstream.engines.artifact import Artifact
from dubstream.runtime.media.opening import content_digest
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import DubOptions
from dubstream.runtime.platforms.platform import open_platform
from dubstream.runtime.preparation.expression import open_expression
from dubstream.runtime.preparation.preparation import Preparation
from dubstream.runtime.progress import Progress, silent
from dubstream.runtime.timing import Timing


@dataclass(frozen=True)
class PrepareRequest:
    """One video to prepare.

    Attributes:
        video: the file.
        artifacts: verified ones by network, in the backend's precision.
        cache: folder of all preparations.
        options: those of the dubs to come; what concerns sound and output is not looked at.
        plans, plans_key: as for a dub.

    Raises:
        UsageError: artifacts of another precision than the backend's.
    """

    video: Path
    artifacts: dict[str, Artifact]
    cache: Path
    options: DubOptions = field(default_factory=DubOptions)
    plans: Path | None = None
    plans_key: Path | None = None

    def __post_init__(self) -> None:
        self.options.backend.check_artifacts(self.artifacts)


@dataclass(frozen=True)
class PrepareSummary:
    """A prepared video.

    Attributes:
        key: identity of the references; equal facts, equal key, on every machine.
        folder: of the preparation, for `dub --prepared`; other expressions of the video share it.
        frames, present: source frames, and those among them that show the face.
        wall_s: seconds from start to end.
        busy_s: busy seconds by stage; only what was not found done.
        backend: what computed it.
        notes: what the user should know.
    """

    key: str
    folder: str
    frames: int
    present: int
    wall_s: float
    busy_s: dict[str, float]
    backend: str
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def prepare(request: PrepareRequest, progress: Progress = silent) -> PrepareSummary:
    """Prepare a whole video, or find it prepared.

    Raises:
        DubError: see `dubstream.engines.errors`. Finished chunks stay, and the same call goes on from there.
    """
    began, options = perf_counter(), request.options
    timing = Timing(trace=options.trace)
    info = probe_video(request.video, options.limits, allow_truncated=options.allow_truncated)
    expression = open_expression(options, request.artifacts, request.cache)
    digest = content_digest(request.video)
    with (
        open_platform(
            options.backend, options.stream, plans=request.plans, secret=request.plans_key, progress=progress
        ) as platform,
        VideoReader(info, options.limits) as reader,
    ):
        preparation = Preparation(reader, info, digest, request.artifacts, expression, options, request.cache)
        prepared = preparation.run(np.arange(info.frame_count), platform, timing, progress)
    return PrepareSummary(
        key=prepared.key,
        folder=str(prepared.folder),
        frames=info.frame_count,
        present=int(prepared.track.present.sum()),
        wall_s=perf_counter() - began,
        busy_s=dict(timing.busy_s),
        backend=platform.title,
        notes=[expression.note] if expression.note else [],
    )
