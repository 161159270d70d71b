"""The voices of a dub: one for one face, or several people, each with speech of their own.

Several people are dubbed in one pass over the video. Each has a synthesiser; a frame goes from one to the
next as it is, in memory, so that it is encoded once, as a frame with one speaker is:

    reader ─▶ synthesiser of voice 0 ─▶ frames ─▶ synthesiser of voice 1 ─▶ encoder

What is heard is the sum of the voices.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import UsageError
from dubstream.runtime.faces.observations import overlap
from dubstream.runtime.faces.track import Track
from dubstream.runtime.job.renderer import Renderer
from dubstream.runtime.job.synthesise import FramesAt, Picture
from dubstream.runtime.media.audio import AudioFile, AudioSource, Samples
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.speakers import Speaker
from dubstream.runtime.streaming.channel import AbortedError, Channel, FinishedError
from dubstream.runtime.streaming.report import StreamReport

_AHEAD = 4
"""Frames one synthesiser may be ahead of the next; both work in batches of their own."""

_SAME_FACE = 0.3  # overlap (IoU)


def check_people(speakers: Sequence[Speaker], tracks: Sequence[Track]) -> None:
    """Raise `UsageError` where two speakers are one person."""
    for second, track in enumerate(tracks):
        for first, other in enumerate(tracks[:second]):
            together = np.flatnonzero(track.present & other.present)
            shared = [overlap(track.box[frame], other.box[frame]) for frame in together]
            if shared and float(np.median(shared)) > _SAME_FACE:
                raise UsageError(
                    f"--speaker {speakers[first].face} and --speaker {speakers[second].face} are the same "
                    "person, expected a face of its own for every speech",
                    hint="faces are counted from the left in the first frame that shows one; --face explains",
                )


def heard(paths: Sequence[Path], limits: MediaLimits, *, allow_truncated: bool) -> AudioSource:
    """The sound of the output: the one file's, or the sum of several."""
    files = [AudioFile(path, limits, allow_truncated=allow_truncated) for path in paths]
    return files[0] if len(files) == 1 else MixedAudio(files)


class MixedAudio:
    """The sum of several sources, as long as the longest, at the highest of their sample rates.

    Stereo where one of them has more than one channel, else mono. A sum beyond full scale is cut off there:
    people rarely speak at once, and lowering both would change the level of each.

    Args:
        sources: at least one.
    """

    def __init__(self, sources: Sequence[AudioSource]) -> None:
        self._sources = sources
        self.rate = max(source.rate for source in sources)
        self.layout = "mono" if all(source.layout == "mono" for source in sources) else "stereo"

    def blocks(self) -> Iterator[Samples]:
        """float32 (channels, n) blocks of a second, the last one shorter."""
        streams = [
            _seconds(_resampled(source, self.rate, self.layout), self.rate) for source in self._sources
        ]
        while blocks := [block for stream in streams if (block := next(stream, None)) is not None]:
            mixed = np.zeros((blocks[0].shape[0], max(block.shape[1] for block in blocks)), np.float32)
            for block in blocks:
                mixed[:, : block.shape[1]] += block
            yield np.clip(mixed, -1.0, 1.0, out=mixed)


class Chain:
    """Renderers that follow one another on the same output frames.

    Args:
        renderers: at least one, with one timeline; closed by the caller.
    """

    def __init__(self, renderers: Sequence[Renderer]) -> None:
        self._renderers = renderers

    @property
    def unparsed(self) -> int:
        """See `Renderer`."""
        return sum(renderer.unparsed for renderer in self._renderers)

    def render(
        self,
        frames_at: FramesAt,
        start: int,
        stop: int,
        write: Callable[[Picture], None],
        advance: Callable[[int], None],
        *,
        trace: bool = False,
    ) -> list[StreamReport]:
        """As `Renderer.render`; the reports of all, in their order."""
        *earlier, last = self._renderers
        reports: list[StreamReport] = []
        for renderer in earlier:
            frames_at = _handed_on(renderer, frames_at, start, stop, reports, trace=trace)
        report = last.render(frames_at, start, stop, write, advance, trace=trace)
        return [*reports, report]


def _handed_on(
    renderer: Renderer,
    frames_at: FramesAt,
    start: int,
    stop: int,
    reports: list[StreamReport],
    *,
    trace: bool,
) -> FramesAt:
    """What a renderer writes, as frames to read; it runs in a thread of its own meanwhile."""

    def read(wanted: npt.NDArray[np.int64]) -> Generator[tuple[int, Picture]]:
        channel: Channel[Picture] = Channel(_AHEAD)
        failure: list[BaseException] = []

        def run() -> None:
            try:
                # The writer must not keep the picture: its buffer goes back to the slot.
                report = renderer.render(
                    frames_at, start, stop, lambda picture: channel.put(picture.copy()), _nothing, trace=trace
                )
                reports.append(report)
            except BaseException as error:
                failure.append(error)
            channel.finish()

        thread = threading.Thread(target=run, name="dubstream-voice", daemon=True)
        thread.start()
        try:
            for source in wanted:
                try:
                    yield int(source), channel.get()
                except FinishedError:
                    break
        finally:
            # Where the reader gave up, the writer does, too; what it then says of it is nobody's concern.
            channel.abort()
            thread.join()
        if failure and not isinstance(failure[0], AbortedError):
            raise failure[0]

    return read


def _nothing(_: int) -> None:
    """Progress is that of the last synthesiser."""


def _resampled(source: AudioSource, rate: int, layout: str) -> Iterator[Samples]:
    import av

    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    for block in source.blocks():
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=source.layout)
        frame.sample_rate = source.rate
        yield from _arrays(resampler.resample(frame))
    yield from _arrays(resampler.resample(None))


def _arrays(frames: Iterable[Any]) -> Iterator[Samples]:
    for frame in frames:
        yield np.asarray(frame.to_ndarray(), np.float32)


def _seconds(blocks: Iterator[Any], rate: int) -> Iterator[Samples]:
    """The same samples in blocks of a second, the last one shorter."""
    held: list[Samples] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += block.shape[1]
        while count >= rate:
            whole = np.concatenate(held, axis=1)
            yield whole[:, :rate]
            held, count = [whole[:, rate:]], count - rate
    if count:
        yield np.concatenate(held, axis=1)
