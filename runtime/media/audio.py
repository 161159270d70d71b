"""Samples of an audio file, or of the audio track of a video, as float32 blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import LimitError, MediaError, TruncatedMediaError
from dubstream.runtime.media.extent import check_extent, is_whole, missing_share, mp3_states_length
from dubstream.runtime.media.guard import TRUNCATED_HINT, show
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import opened

Samples = npt.NDArray[np.float32]

# Containers that state the length of an audio stream exactly; elsewhere it is a guess from the bit rate.
_EXACT_LENGTH = {"mov", "mp4", "wav", "w64", "flac", "aiff", "au", "caf"}
_LOSSLESS = {"wav", "w64", "flac", "aiff", "au"}
_GAP_S = (
    0.05  # a hole in the time stamps longer than this is filled with silence, so that sound stays in time
)
_FULL_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63}


class AudioSource(Protocol):
    """Anything that gives audio in blocks; `blocks` can be called again and starts over."""

    @property
    def rate(self) -> int:
        """Samples per second and channel."""

    @property
    def layout(self) -> str:
        """FFmpeg's name of the channel layout, such as "mono", "stereo" or "5.1"."""

    def blocks(self) -> Iterator[Samples]:
        """float32 blocks of shape (channels, any length), nominal range -1..1."""


@dataclass(frozen=True)
class AudioTrack:
    """Audio in memory.

    Attributes:
        samples: float32 (channels, n), nominal range -1..1.
        rate: samples per second.
        layout: FFmpeg's name of the channel layout.
        lost_s: seconds that the file promises and that could not be decoded (0 unless damage was allowed);
            where a container promises no length, damage that was noticed counts as one packet.
    """

    samples: Samples
    rate: int
    layout: str
    lost_s: float = 0.0

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise MediaError(
                f"audio is {self.samples.dtype} {self.samples.shape}, expected float32 (channels, n)"
            )

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.samples.shape[1] / self.rate)

    def mono(self) -> Samples:
        """float32 (n,): the mean of the channels."""
        return np.asarray(self.samples.mean(axis=0), dtype=np.float32)

    def blocks(self) -> Iterator[Samples]:
        """The track in blocks of at most a second."""
        for start in range(0, self.samples.shape[1], self.rate):
            yield self.samples[:, start : start + self.rate]


class AudioFile:
    """One audio stream of a file, decoded again at each call of `blocks`; memory does not grow with length.

    Args:
        path: an audio file, or a video with sound.
        stream: which of its audio streams, from 0.
        allow_truncated: skip damaged packets (their time becomes silence) and accept an early end.

    Raises:
        MediaError: no such file or stream.
        LimitError: more channels than `max_audio_channels`.
    """

    def __init__(
        self, path: Path, limits: MediaLimits, *, stream: int = 0, allow_truncated: bool = False
    ) -> None:
        self._path = path
        self._limits = limits
        self._which = stream
        self._strict = not allow_truncated
        self.lost_s = 0.0
        with opened(path, limits, "read the audio of", strict=self._strict) as container:
            if self._strict and not container.streams.video:
                check_extent(path)
            found = self._stream(container)
            context = found.codec_context
            limits.check_most("max_audio_channels", context.layout.nb_channels, f"channels in {show(path)}")
            self.rate = int(context.sample_rate)
            self.layout = str(context.layout.name)
            self.channels = int(context.layout.nb_channels)
            self._stated_s = self._stated_length(container, found)
            self._missing_share = missing_share(path) if container.format.name in _LOSSLESS else 0.0
            self._whole = self._strict or is_whole(path)
            self._lossless = container.format.name in _LOSSLESS
        if self.rate <= 0 or self.channels <= 0:
            raise MediaError(f"{show(path)} has audio of {self.rate} Hz and {self.channels} channels")
        if self._stated_s is not None:
            limits.check_most("max_audio_s", self._stated_s, f"seconds of audio in {show(path)}")

    def blocks(self) -> Iterator[Samples]:
        """float32 (channels, n) blocks in order.

        Raises:
            MediaError: a sample that is not a number, or a stream that changes its rate or channels.
            TruncatedMediaError: damaged, or shorter than stated, and damage is not allowed.
            LimitError: longer than `max_audio_s`, shorter than `min_audio_s`, or a hole beyond `max_gap_s`.
        """
        done = 0
        with opened(self._path, self._limits, "decode the audio of", strict=self._strict) as container:
            stream = self._stream(container)
            stream.codec_context.options = {"err_detect": "crccheck+explode"} if self._strict else {}
            for block in self._timed(container, stream):
                self._check(block, done)
                done += block.shape[1]
                self._limits.check_most("max_audio_s", done / self.rate, "seconds of audio")
                yield block
        self._check_length(done / self.rate)

    def _stream(self, container: Any) -> Any:
        streams = container.streams.audio
        if not 0 <= self._which < len(streams):
            what = "no audio stream" if not streams else f"audio streams 0..{len(streams) - 1}"
            raise MediaError(
                f"{show(self._path)} has {what}, expected stream {self._which}",
                hint="give an audio file, or a video with sound",
            )
        stream = streams[self._which]
        if stream.codec_context is None:
            raise MediaError(f"{show(self._path)} holds audio of a codec that this build cannot decode")
        return stream

    def _stated_length(self, container: Any, stream: Any) -> float | None:
        names = set(container.format.name.split(","))
        exact = not names.isdisjoint(_EXACT_LENGTH) or ("mp3" in names and mp3_states_length(self._path))
        if not exact or not stream.duration:
            return None
        return float(stream.duration * stream.time_base)

    def _timed(self, container: Any, stream: Any) -> Iterator[Samples]:
        """Blocks of the decoded frames, with silence where the time stamps leave a hole."""
        expected_s: float | None = None
        for frame in self._frames(container, stream):
            block = self._floats(frame)
            if expected_s is not None and frame.time is not None and frame.time - expected_s > _GAP_S:
                hole_s = frame.time - expected_s
                self._limits.check_most("max_gap_s", hole_s, "seconds without sound between two packets")
                yield np.zeros((self.channels, round(hole_s * self.rate)), dtype=np.float32)
                expected_s = frame.time
            yield block
            start_s = expected_s if expected_s is not None else frame.time or 0.0
            expected_s = start_s + block.shape[1] / self.rate

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decoded frames. A packet that fails before the first or after the last good frame is no damage:
        MP3 files carry tags there that the decoder takes for sound."""
        good, failure = False, None
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except Exception as error:
                failure = error
                continue
            if frames and good and failure is not None and self._strict:
                raise TruncatedMediaError(
                    f"the audio of {show(self._path)} is damaged at {frames[0].time or 0:.2f} s",
                    hint=TRUNCATED_HINT,
                ) from failure
            if frames:
                good, failure = True, None
            yield from frames
        if failure is not None and self._strict and self._stated_s is None:
            raise TruncatedMediaError(
                f"the audio of {show(self._path)} is damaged at its end", hint=TRUNCATED_HINT
            ) from failure

    def _floats(self, frame: Any) -> Samples:
        if frame.sample_rate != self.rate or frame.layout.nb_channels != self.channels:
            raise MediaError(
                f"the audio of {show(self._path)} changes from {self.rate} Hz, {self.channels} channels to "
                f"{frame.sample_rate} Hz, {frame.layout.nb_channels} channels"
            )
        raw = frame.to_ndarray()
        if not frame.format.is_planar:
            raw = raw.reshape(-1, self.channels).T
        full_scale = _FULL_SCALE.get(raw.dtype.str[1:])
        if full_scale is None:
            return np.ascontiguousarray(raw, dtype=np.float32)
        offset = full_scale if raw.dtype == np.uint8 else 0.0
        return np.ascontiguousarray((raw - offset) / full_scale, dtype=np.float32)

    def _check(self, block: Samples, before: int) -> None:
        if not np.isfinite(block).all():
            at = int(np.argmin(np.isfinite(block).all(axis=0)))
            raise MediaError(
                f"the audio of {show(self._path)} holds NaN or infinity at {(before + at) / self.rate:.3f} s",
                hint="export it again as 16-bit PCM",
            )

    def _check_length(self, seconds: float) -> None:
        self.lost_s = max(0.0, (self._stated_s or 0.0) - seconds, seconds * self._missing_share)
        # A container may or may not count an encoder's delay and padding.
        slack_s = (1.5 if self._lossless else 4096) / self.rate
        if self.lost_s <= slack_s:
            self.lost_s = 0.0 if self._whole else slack_s
        elif self._strict:
            raise TruncatedMediaError(
                f"the audio of {show(self._path)} ends at {seconds:.2f} s, "
                f"its header promises {self._stated_s:.2f} s",
                hint=TRUNCATED_HINT,
            )
        try:
            self._limits.check_least("min_audio_s", seconds, f"seconds of audio in {show(self._path)}")
        except LimitError as error:
            raise LimitError(error.message, hint="a mouth needs at least that much speech") from None


def decode_audio(
    path: Path, limits: MediaLimits, *, stream: int = 0, allow_truncated: bool = False
) -> AudioTrack:
    """A whole audio stream in memory; arguments and errors as `AudioFile` and its `blocks`."""
    source = AudioFile(path, limits, stream=stream, allow_truncated=allow_truncated)
    samples = np.concatenate([np.zeros((source.channels, 0), np.float32), *source.blocks()], axis=1)
    return AudioTrack(samples, source.rate, source.layout, source.lost_s)
