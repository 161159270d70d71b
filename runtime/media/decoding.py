"""Frames out of an open container, in presentation order, with damage handled in one place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dubstream.engines.errors import MediaError, TruncatedMediaError
from dubstream.runtime.media.guard import TRUNCATED_HINT, reason, show
from dubstream.runtime.media.limits import MediaLimits

DECODER_THREADS = 4  # bounded: each thread of a frame-threaded decoder holds frames of its own
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC


def first_video_stream(container: Any, path: Path) -> Any:
    """First video stream that is a film and not cover art; `MediaError` if none can be decoded."""
    for stream in container.streams.video:
        if int(stream.disposition) & _ATTACHED_PICTURE:
            continue
        if stream.codec_context is None:
            raise MediaError(f"{show(path)} holds video of a codec that this build of FFmpeg cannot decode")
        return stream
    found = sorted({str(stream.type) for stream in container.streams}) or ["no streams"]
    raise MediaError(
        f"{show(path)} has no video stream (found: {', '.join(found)})",
        hint="expected a video file first and the audio second",
    )


def prepare_decoder(stream: Any, limits: MediaLimits, *, strict: bool) -> None:
    """Check the stream's size and set the decoder's options; must run before the first packet is decoded."""
    context = stream.codec_context
    pixels = context.width * context.height
    limits.check_most("max_pixels", pixels, f"pixels of a {context.width}x{context.height} video")
    options = {"max_pixels": str(limits.max_pixels)}
    if strict:
        options["err_detect"] = "crccheck+explode"
    context.options = options
    context.thread_count = DECODER_THREADS
    context.thread_type = "AUTO"


def decode(container: Any, stream: Any, path: Path, *, strict: bool) -> Iterator[Any]:
    """Decoded PyAV frames from the container's position on, all of the size of the first.

    Args:
        strict: raise on the first damaged packet, damaged frame or change of size. Otherwise damaged
            packets are skipped, frames that the decoder repaired are kept, and a change of size or a
            failing demuxer ends the stream.

    Raises:
        TruncatedMediaError: strict, and the stream is damaged.
    """
    size: tuple[int, int] | None = None
    for frame in _raw_frames(container, stream, path, strict=strict):
        if size is None:
            size = (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            if not strict:
                return
            raise TruncatedMediaError(
                f"{show(path)} changes size from {size[0]}x{size[1]} to {frame.width}x{frame.height}"
                f"{_at(frame)}; one size was expected throughout",
                hint="re-encode it to one size, or pass --allow-truncated to dub the part before the change",
            )
        if strict and frame.is_corrupt:
            raise TruncatedMediaError(f"{show(path)} is damaged{_at(frame)}", hint=TRUNCATED_HINT)
        yield frame


def _raw_frames(container: Any, stream: Any, path: Path, *, strict: bool) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except Exception as error:
            if strict:
                raise TruncatedMediaError(
                    f"{show(path)} cannot be read to its end: {reason(error)}", hint=TRUNCATED_HINT
                ) from error
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except Exception as error:
            if strict:
                raise TruncatedMediaError(
                    f"{show(path)} is damaged{_at(packet)}: {reason(error)}", hint=TRUNCATED_HINT
                ) from error
            continue
        yield from frames


def _at(item: Any) -> str:
    return "" if item.pts is None else f" at {float(item.pts * item.time_base):.2f} s"
