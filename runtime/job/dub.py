"""One dub from two files to one: check, prepare, synthesise segment by segment, assemble.

    inputs ─▶ probe, plan ─▶ preparation (cached) ─▶ segments (resumable) ─▶ concatenate + sound ─▶ output

Nothing is written beside the output before everything that can be checked has been checked; the output
appears under its name only when it is complete.
"""

from __future__ import annotations

import logging
import resource
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.cache import folder_lock
from dubstream.engines.facts import digest_facts
from dubstream.runtime.job.native import NativeWay
from dubstream.runtime.job.speakers import Chain, heard
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.job.way import JobFacts, Way
from dubstream.runtime.media.assemble import Assembled, assemble
from dubstream.runtime.media.audio import decode_audio
from dubstream.runtime.media.opening import content_digest
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.media.target import check_output_target
from dubstream.runtime.media.writer import SegmentWriter
from dubstream.runtime.options.dub import DubRequest
from dubstream.runtime.platforms.platform import Platform, open_platform
from dubstream.runtime.progress import Progress, silent
from dubstream.runtime.timing import Timing
from dubstream.runtime.units.unit_folder import UnitFolder

log = logging.getLogger(__name__)

SCHEMA = 1
"""Raise when the same inputs would give another file."""


def dub(request: DubRequest, progress: Progress = silent) -> DubSummary:
    """Dub one video; returns when the output is complete under its name.

    Args:
        request: files, artifacts and options.
        progress: told about every stage; called from several threads, one at a time per stage.

    Raises:
        DubError: see `dubstream.engines.errors` for the family. No output, no temporary file beside it;
            finished work stays in the cache, and the same call goes on from there.
    """
    began = perf_counter()
    check_output_target(request.output, [request.video, *(voice.audio for voice in request.voices)])
    options = request.options
    with open_platform(
        options.backend, options.stream, plans=request.plans, secret=request.plans_key, progress=progress
    ) as platform:
        job = _Job(request, platform, progress)
        written = job.run()
    return job.summary(written, perf_counter() - began)


class _Job:
    """The facts of one dub, collected before any work is done."""

    def __init__(self, request: DubRequest, platform: Platform, progress: Progress) -> None:
        self._request, self._platform, self._progress = request, platform, progress
        options = self._options = request.options
        self._timing = Timing(trace=options.trace)
        self._reused = {"segments": 0}
        self._unparsed = 0
        self._info = probe_video(request.video, options.limits, allow_truncated=options.allow_truncated)
        tracks = [
            decode_audio(speaker.audio, options.limits, allow_truncated=options.allow_truncated)
            for speaker in request.voices
        ]
        digest = content_digest(request.video)
        self._way = _way(JobFacts(request, self._info, digest, platform, self._timing, progress))
        self._timeline = self._way.plan(tracks)
        self._lost_audio_s = sum(track.lost_s for track in tracks)
        self._spoken = [content_digest(speaker.audio) for speaker in request.voices]
        log.info(
            "%s: %d frames, output %d frames", request.video, self._info.frame_count, self._timeline.frames
        )

    def run(self) -> Assembled:
        """Prepare the video, render the segments that are missing, then write the output.

        Two processes that were given the same job take turns: the lock is held until the segments
        have become an output and are deleted.
        """
        self._way.prepare()
        options = self._options
        key = self._identity()
        self._units = UnitFolder(self._request.cache / "jobs" / key[:32], key)
        spans = self._spans()
        with folder_lock(self._units.folder):
            missing = [n for n in range(len(spans)) if self._units.finished(_segment_name(n)) is None]
            self._reused["segments"] = len(spans) - len(missing)
            if missing:
                with VideoReader(self._info, options.limits) as reader, self._way.opened() as chain:
                    self._render(chain, reader, spans, missing)
                    self._unparsed = chain.unparsed
            written = self._assemble([self._units.path(_segment_name(n)) for n in range(len(spans))])
            self._units.clear()
            return written

    def _assemble(self, segments: list[Path]) -> Assembled:
        with self._timing.measure("assemble", self._timeline.frames):
            # Decoded a second time: sound in memory would grow with the clip.
            options = self._options
            paths = [speaker.audio for speaker in self._request.voices]
            sound = heard(paths, options.limits, allow_truncated=options.allow_truncated)
            return assemble(
                segments,
                sound,
                self._request.output,
                rate=self._timeline.rate,
                frames=self._timeline.frames,
                comment=self._padding_note(),
            )

    def summary(self, written: Assembled, wall_s: float) -> DubSummary:
        """What was done."""
        present = self._way.present[self._timeline.sources]
        frames = self._timeline.frames
        ratios = {
            part: wall / self._timing.slowest_s[part]
            for part, wall in self._timing.wall_s.items()
            if self._timing.slowest_s[part] > 0
        }
        return DubSummary(
            output=str(self._request.output),
            frames=frames,
            dubbed=int(present.sum()),
            rate=str(self._timeline.rate),
            wall_s=wall_s,
            fps=frames / wall_s,
            video_s=float(written.video_s),
            audio_s=written.audio_s or 0.0,
            av_gap_s=abs(written.video_s - (written.audio_s or 0.0)),
            absent=_ranges(~present),
            busy_s=dict(self._timing.busy_s),
            wall_over_slowest=ratios,
            reused=self._reused,
            peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            backend=self._platform.title,
            weights=self._request.artifacts["lnet"].source,
            notes=self._notes(),
            trace=self._timing.to_chrome_trace(),
            timing=self._timing,
        )

    def _padding_note(self) -> str | None:
        """Where the encoder's pixel format cannot hold an odd side, the output says its true size."""
        width, height = self._info.width, self._info.height
        if self._options.encode.coded_size(width, height) == (width, height):
            return None
        return f"picture {width}x{height}; the last row or column is padding"

    def _render(
        self, chain: Chain, reader: VideoReader, spans: list[tuple[int, int]], missing: list[int]
    ) -> None:
        total = sum(spans[number][1] - spans[number][0] for number in missing)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._progress("synthesise", done, total)

        for number in missing:
            start, stop = spans[number]
            name = _segment_name(number)
            with (
                self._units.making(name, {"start": start, "stop": stop}) as path,
                SegmentWriter(
                    path,
                    width=self._info.width,
                    height=self._info.height,
                    rate=self._timeline.rate,
                    colour=self._info.colour,
                    options=self._options.encode,
                    sample_aspect=self._info.sample_aspect,
                ) as writer,
            ):
                reports = chain.render(
                    reader.frames_at, start, stop, writer.write, advance, trace=self._options.trace
                )
            for voice, report in enumerate(reports):
                self._timing.add(f"synthesise-{voice}" if len(reports) > 1 else "synthesise", report)
            self._way.rendered()
            log.info(
                "segment %d of %d: frames %d-%d, %.2f fps",
                number + 1,
                len(spans),
                start,
                stop - 1,
                reports[-1].fps,
            )

    def _spans(self) -> list[tuple[int, int]]:
        length = max(round(self._options.stream.segment_s * self._timeline.rate), 1)
        frames = self._timeline.frames
        return [(start, min(start + length, frames)) for start in range(0, frames, length)]

    def _identity(self) -> str:
        options, networks = self._options, self._request.artifacts
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "voices": [list(pair) for pair in zip(self._way.keys, self._spoken, strict=True)],
            "lnet": networks["lnet"].digest,
            "enet": networks["enet"].digest,
            "frames": self._timeline.frames,
            "rate": str(self._timeline.rate),
            "mode": options.audio_mode.value,
            "pads": list(options.pads),
            "encode": asdict(options.encode),
            "stream": asdict(options.stream),
            "platform": self._platform.identity,
            "finish": asdict(options.finish),
            "finishing": {name: networks[name].digest for name in options.finish.frame_networks},
            "emotion": asdict(options.emotion),
            "emoting": {name: networks[name].digest for name in options.emotion.networks},
            **self._way.facts,
        }
        return digest_facts(facts)

    def _notes(self) -> list[str]:
        notes = self._way.notes(self._unparsed)
        if self._info.lost_frames:
            notes.append(f"{self._info.lost_frames} damaged frames of the video were left out")
        licences = {name: self._request.artifacts[name].spec.licence for name in self._way.licensed}
        notes += [f"licence of {name}: {licence}" for name, licence in licences.items()]
        if self._lost_audio_s:
            notes.append(f"{self._lost_audio_s:.2f} s of damaged audio are missing")
        return notes


def _way(job: JobFacts) -> Way:
    if job.request.options.upstream is None:
        return NativeWay(job)
    from dubstream.runtime.job.upstream import UpstreamWay  # loads Pillow, which nothing else needs at start

    return UpstreamWay(job)


def _segment_name(number: int) -> str:
    return f"segment-{number:05d}.mp4"


def _ranges(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open ranges of the true entries."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]
