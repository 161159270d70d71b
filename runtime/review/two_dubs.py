"""One clip through two backends or precisions, and how far the results are apart."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dubstream.engines.errors import UsageError, VerificationError
from dubstream.runtime.faces.track import Track
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.audio import AudioFile
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.backend import Backend
from dubstream.runtime.options.dub import DubRequest
from dubstream.runtime.progress import Progress, silent
from dubstream.runtime.review.compare import Review, ReviewRequest, review_videos
from dubstream.runtime.review.faces import prepared
from dubstream.runtime.timeline import plan_timeline

_KEYS = ("backend", "precision", "device")


def parse_side(option: str, text: str) -> Backend:
    """Read ``backend=NAME,precision=P,device=N``; what is left out is the backend's default.

    Args:
        option: its name, for errors.

    Raises:
        UsageError: anything else.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in _KEYS or key in found or not value:
            raise UsageError(
                f"{option} received '{text}', expected backend=NAME,precision=P,device=N, each at most once",
                hint=f'{option} "backend=onnxruntime,precision=fp16"',
            )
        found[key] = value
    device = found.get("device", "0")
    if not (device.isascii() and device.isdigit()):
        raise UsageError(f"{option} received device={device}, expected a number from 0")
    return Backend(found.get("backend", Backend.NAMES[0]), int(device), found.get("precision"))


@dataclass(frozen=True)
class TwoDubs:
    """What two dubs gave.

    Attributes:
        reference, candidate: their summaries.
        review: candidate (B) against reference (A).
    """

    reference: DubSummary
    candidate: DubSummary
    review: Review


def compare_dubs(
    reference: DubRequest,
    candidate: DubRequest,
    *,
    background_level: int = ReviewRequest.background_level,
    progress: Progress = silent,
) -> TwoDubs:
    """Dub twice and compare.

    Args:
        reference, candidate: requests that differ in backend or precision only, each with a fresh cache of
            its own: what one side prepared would otherwise stand in for the other's.
        background_level: see `ReviewRequest`.
        progress: told about both dubs and the comparison.

    Raises:
        UsageError: one cache for both, or one that was in use before.
        DeviceError: a side cannot run here; nothing was compared.
        VerificationError: the two found the face in different numbers of frames.
        DubError: as `dubstream.runtime.job.dub.dub`.
    """
    if reference.cache == candidate.cache:
        raise UsageError(f"both dubs were given the cache {reference.cache}, expected one each")
    first = dub(reference, _named("reference", progress))
    second = dub(candidate, _named("candidate", progress))
    _check_alike(first, second)
    request = ReviewRequest(
        reference.output,
        candidate.output,
        face=reference.options.face,
        pads=reference.options.pads,
        limits=reference.options.limits,
        background_level=background_level,
    )
    review = review_videos(request, progress, track=_output_track(reference))
    return TwoDubs(first, second, review)


def _named(side: str, progress: Progress) -> Progress:
    """Progress of one of the two dubs."""

    def report(stage: str, done: int, total: int) -> None:
        progress(f"{side} {stage}", done, total)

    return report


def _check_alike(reference: DubSummary, candidate: DubSummary) -> None:
    if reference.dubbed == 0 or reference.dubbed != candidate.dubbed:
        raise VerificationError(
            f"{candidate.backend} dubbed {candidate.dubbed} frames, {reference.backend} {reference.dubbed}; "
            "expected the same number, and at least one"
        )


def _output_track(request: DubRequest) -> Track:
    """The face in every frame of a dub's output, from its preparation."""
    options = request.options
    info = probe_video(request.video, options.limits, allow_truncated=options.allow_truncated)
    found = [entry for entry in (request.cache / "prepared").iterdir() if entry.is_dir()]
    if len(found) != 1:
        raise UsageError(f"the cache {request.cache} holds {len(found)} preparations, expected a fresh cache")
    with VideoReader(info, options.limits) as reader:
        track = prepared(found[0], info, reader, options.face)
    sources = plan_timeline(
        info.plan(options.limits), info.rate, _seconds(request), options.audio_mode
    ).sources
    return Track(np.arange(len(sources)), track.present[sources], track.box[sources], track.points[sources])


def _seconds(request: DubRequest) -> Fraction:
    options = request.options
    source = AudioFile(request.voices[0].audio, options.limits, allow_truncated=options.allow_truncated)
    return Fraction(sum(block.shape[1] for block in source.blocks()), source.rate)
