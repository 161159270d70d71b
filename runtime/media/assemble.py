"""The finished file: segments joined without re-encoding, and the audio encoded once beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dubstream.engines.atomic import atomic_file
from dubstream.engines.errors import InternalError
from dubstream.runtime.media.audio import AudioSource, Samples
from dubstream.runtime.media.guard import show, writing
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import open_media
from dubstream.runtime.media.target import check_output_target, muxer_of
from dubstream.runtime.media.verify import check_output

__all__ = ["Assembled", "assemble", "check_output_target"]

# Sample rates that AAC has; others are resampled to 48 kHz.
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_AAC_PACKET = 1024  # samples
_OWN = MediaLimits(max_pixels=2**31 - 1, max_frames=2**31 - 1)


@dataclass(frozen=True)
class Assembled:
    """A finished output: frames, and the lengths of its video and audio in seconds (0 without audio)."""

    path: Path
    frames: int
    video_s: float
    audio_s: float


def assemble(
    segments: Sequence[Path],
    audio: AudioSource | None,
    out: Path,
    *,
    rate: Fraction,
    frames: int,
    audio_seconds: Fraction | None = None,
    audio_bit_rate: int = 192_000,
    comment: str | None = None,
) -> Assembled:
    """Join segments and audio into `out`, which appears under its name only when it has been checked.

    Segments come from `SegmentWriter` with equal options and sizes. Audio is cut, or filled with silence,
    to `audio_seconds`; it keeps its sample rate where AAC has it, and more than two channels are
    mixed down to stereo. Equal arguments give equal bytes.

    Args:
        segments: files in playing order.
        audio: any source; None for a silent file without audio track.
        out: .mp4, .m4v, .mov or .mkv.
        rate: frames per second of every segment, exact.
        frames: how many frames the segments must add up to.
        audio_seconds: exact length of the audio track; by default the video's.
        audio_bit_rate: AAC bits per second.
        comment: text stored in the file, such as the true size of a padded picture.

    Raises:
        UsageError: an extension that is not one of those.
        StorageError: disk full, no permission, a segment that is gone or incomplete.
        InternalError: segments that do not fit together, or audio and video of different length.
    """
    muxer = muxer_of(out)
    if not segments:
        raise InternalError(f"no segments to make {show(out)} of")
    with writing(out), atomic_file(out) as part:
        part.touch()
        length = frames / rate if audio_seconds is None else audio_seconds
        encoding = None if audio is None else _AudioPlan(audio, length, audio_bit_rate)
        _mux(segments, encoding, part, muxer, rate, frames, comment)
        untrimmed_s = Fraction(0)
        if audio is not None and muxer == "matroska":
            untrimmed_s = Fraction(_AAC_PACKET, _aac_rate(audio))
        facts = check_output(part, frames, rate, has_audio=audio is not None, untrimmed_s=untrimmed_s)
    audio_s = float(facts["audio"].end_s) if "audio" in facts else 0.0
    return Assembled(out, frames, float(facts["video"].end_s), audio_s)


def _mux(
    segments: Sequence[Path],
    audio: _AudioPlan | None,
    part: Path,
    muxer: str,
    rate: Fraction,
    frames: int,
    comment: str | None,
) -> None:
    import av

    options = {"fflags": "+bitexact"}
    if muxer != "matroska":
        options["movflags"] = "+faststart"
    with (
        open_media(segments[0], _OWN) as first,
        av.open(str(part.absolute()), "w", format=muxer, container_options=options) as output,
    ):
        if comment is not None:
            output.metadata["comment"] = comment
        video = output.add_stream_from_template(first.streams.video[0])
        video.time_base = 1 / rate
        encoder = None if audio is None else _AudioEncoder(output, audio)
        written = 0
        for packet in _joined(segments, rate):
            if encoder is not None:
                encoder.advance(packet.pts / rate)
            packet.stream = video
            output.mux(packet)
            written += 1
        if encoder is not None:
            encoder.finish()
    if written != frames:
        raise InternalError(f"{len(segments)} segments add up to {written} frames, expected {frames}")


def _joined(segments: Sequence[Path], rate: Fraction) -> Iterator[Any]:
    """Packets of all segments in order, stamped with the frame number in units of 1 / rate."""
    number = 0
    parameters: bytes | None = None
    for path in segments:
        with open_media(path, _OWN) as container:
            stream = container.streams.video[0]
            own = bytes(stream.codec_context.extradata or b"")
            if parameters is not None and own != parameters:
                raise InternalError(f"segment {show(path)} was encoded with other options than the first one")
            parameters = own
            start = number
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                if packet.pts is None or packet.pts * packet.time_base != (number - start) / rate:
                    raise InternalError(f"segment {show(path)} has frame {number - start} out of its place")
                packet.time_base = 1 / rate
                packet.pts = packet.dts = number
                packet.duration = 1
                number += 1
                yield packet


@dataclass(frozen=True)
class _AudioPlan:
    source: AudioSource
    length_s: Fraction
    bit_rate: int


class _AudioEncoder:
    """Feeds an AAC stream from a source, no further than asked, so that nothing piles up in the muxer."""

    def __init__(self, output: Any, plan: _AudioPlan) -> None:
        from av.codec.context import Flags

        source = plan.source
        self._output = output
        self._rate = source.rate
        self._layout = _two_at_most(source.layout)
        self._blocks = _fitted(source, self._layout, round(plan.length_s * source.rate))
        self._given = 0
        self._stream = output.add_stream("aac", rate=_aac_rate(source), layout=self._layout)
        self._stream.codec_context.bit_rate = plan.bit_rate
        self._stream.codec_context.flags |= Flags.bitexact

    def advance(self, until_s: Fraction) -> None:
        """Encode up to a time in the output."""
        while self._given < until_s * self._rate:
            block = next(self._blocks, None)
            if block is None:
                return
            self._encode(block)

    def finish(self) -> None:
        """Encode the rest and what the encoder holds back."""
        for block in self._blocks:
            self._encode(block)
        self._output.mux(self._stream.encode(None))

    def _encode(self, block: Samples) -> None:
        import av

        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._given
        frame.time_base = Fraction(1, self._rate)
        self._given += block.shape[1]
        self._output.mux(self._stream.encode(frame))


def _aac_rate(source: AudioSource) -> int:
    return source.rate if source.rate in _AAC_RATES else 48000


def _two_at_most(layout: str) -> str:
    return "mono" if layout in ("mono", "1 channels") else "stereo"


def _fitted(source: AudioSource, layout: str, samples: int) -> Iterator[Samples]:
    """Blocks mixed down to `layout` and cut or filled with silence to `samples` samples in all."""
    left = samples
    channels = 1 if layout == "mono" else 2
    for block in source.blocks():
        if left <= 0:
            return
        part = _mixed_down(block, source.layout, channels)[:, :left]
        left -= part.shape[1]
        yield part
    while left > 0:
        part = np.zeros((channels, min(left, source.rate)), np.float32)
        left -= part.shape[1]
        yield part


def _mixed_down(block: Samples, layout: str, channels: int) -> Samples:
    if block.shape[0] == channels:
        return block
    import av

    if re.fullmatch(r"\d+ channels", layout):  # no known places: everything in the middle
        return np.repeat(block.mean(axis=0, keepdims=True, dtype=np.float32), channels, axis=0)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
    frame.sample_rate = 48000  # any: the rate does not change
    bounded = {"rematrix_maxval": "1.0"}  # scales the mix so that it cannot exceed full scale
    mixed = av.AudioResampler(format="fltp", layout="stereo", rate=48000, options=bounded).resample(frame)
    return np.concatenate([np.asarray(piece.to_ndarray(), np.float32) for piece in mixed], axis=1)
