"""What a video file is: size, time stamps, frame rate, colours, orientation. Nothing is converted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import MediaError
from dubstream.runtime.media.colour import ColourTags, tags_of
from dubstream.runtime.media.decoding import decode, first_video_stream, prepare_decoder
from dubstream.runtime.media.extent import check_extent, is_whole
from dubstream.runtime.media.guard import show
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import opened
from dubstream.runtime.media.orientation import Orientation, orientation_of
from dubstream.runtime.media.planner import plan_cfr
from dubstream.runtime.media.rates import choose_rate
from dubstream.runtime.media.scan import FrameIndex, decoded_index, packet_index, scan_packets


@dataclass(frozen=True)
class VideoInfo:
    """Facts about one video stream.

    Attributes:
        path: the file.
        width, height: pixels as displayed, that is after `orientation`.
        orientation: turning and mirroring from the stored to the displayed picture.
        index: time stamps of all frames and the places decoding can start at.
        time_base: seconds per tick of the index.
        rate: constant frame rate to dub at, frames per second (see `rates`).
        average_rate: frames per second the container states on average; None if it does not.
        colour: tags of the first frame.
        pix_fmt: FFmpeg's name of the pixel format.
        codec: FFmpeg's name of the decoder.
        sample_aspect: width of a displayed pixel over its height; 1 when unknown.
        has_audio: whether the file also has an audio stream.
        truncated_allowed: whether damage was allowed when the index was made.
    """

    path: Path
    width: int
    height: int
    orientation: Orientation
    index: FrameIndex
    time_base: Fraction
    rate: Fraction
    average_rate: Fraction | None
    colour: ColourTags
    pix_fmt: str
    codec: str
    sample_aspect: Fraction
    has_audio: bool
    truncated_allowed: bool

    @property
    def frame_count(self) -> int:
        """Frames that can be read."""
        return len(self.index.pts)

    @property
    def lost_frames(self) -> int:
        """Frames that the file promises and that could not be decoded (0 unless damage was allowed).

        Where a container promises no number, damage that was noticed counts as one frame.
        """
        return self.index.lost

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """float64 presentation time of each frame in seconds, the first at 0."""
        seconds: npt.NDArray[np.float64] = (self.index.pts - self.index.pts[0]) * float(self.time_base)
        return seconds

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame's start to the last frame's end."""
        return float((self.index.end - int(self.index.pts[0])) * self.time_base)

    def plan(self, limits: MediaLimits) -> npt.NDArray[np.int64]:
        """Source index of every output frame at the constant `rate`; see `planner.plan_cfr`."""
        return plan_cfr(self.index.pts, self.index.end, self.time_base, self.rate, limits)


def probe_video(path: Path, limits: MediaLimits, *, allow_truncated: bool = False) -> VideoInfo:
    """Read what a video is, and check it against the limits.

    The packets are read once and one frame is decoded; where packets do not tell the frames (AVI, MPEG,
    raw streams, interlaced video, VP8, damaged files) the file is decoded once.

    Args:
        allow_truncated: accept a damaged file and list the frames that decode.

    Raises:
        MediaError: no video, or one that cannot be decoded.
        TruncatedMediaError: damaged, and damage is not allowed.
        LimitError: beyond one of the limits.
    """
    strict = not allow_truncated
    with opened(path, limits, "read", strict=strict) as container:
        if strict:
            check_extent(path)
        stream = first_video_stream(container, path)
        prepare_decoder(stream, limits, strict=strict)
        scan = scan_packets(container, stream, limits, strict=strict)
        index = packet_index(scan, container, stream, path, limits) if strict else None
    if index is None:
        with opened(path, limits, "decode", strict=strict) as container:
            stream = first_video_stream(container, path)
            prepare_decoder(stream, limits, strict=strict)
            index = decoded_index(scan, container, stream, path, limits, strict=strict)
    if index.lost == 0 and not strict and (scan.corrupt or not is_whole(path)):
        index = replace(index, lost=1)
    return _describe(path, index, limits, strict=strict)


def _describe(path: Path, index: FrameIndex, limits: MediaLimits, *, strict: bool) -> VideoInfo:
    with opened(path, limits, "decode", strict=strict) as container:
        stream = first_video_stream(container, path)
        prepare_decoder(stream, limits, strict=strict)
        frame = next(decode(container, stream, path, strict=strict), None)
        if frame is None:
            raise MediaError(f"{show(path)} holds no frame that can be decoded (0 frames)")
        orientation = orientation_of(frame)
        width, height, aspect = frame.width, frame.height, stream.sample_aspect_ratio or Fraction(1)
        if orientation.swaps_sides:
            width, height, aspect = height, width, 1 / aspect
        named = (stream.average_rate, stream.guessed_rate, stream.base_rate)
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            orientation=orientation,
            index=index,
            time_base=stream.time_base,
            rate=choose_rate(index.pts, stream.time_base, named),
            average_rate=stream.average_rate,
            colour=tags_of(frame),
            pix_fmt=str(frame.format.name),
            codec=str(stream.codec_context.name),
            sample_aspect=aspect,
            has_audio=len(container.streams.audio) > 0,
            truncated_allowed=not strict,
        )
