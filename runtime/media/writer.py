"""One encoded segment: pictures in, a file of closed GOPs out, equal bytes for equal pictures.

Why no B-frames. x264 (core 165, as in PyAV 18's wheel) on a processor with AVX-512 reads memory it never
wrote when macroblock-tree rate control meets B-frames: with MALLOC_PERTURB_ set to four values, one clip
gave four files, at one thread as at four. Without B-frames, or without the tree, or with AVX2 code, all
files are equal. On a talking head B-frames save 1 % of the bytes and the tree 38 %, so B-frames go. A
segment's decode and presentation times are then the same, which makes joining segments trivial.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.atomic import commit, discard, part_path
from dubstream.engines.errors import InternalError, UsageError
from dubstream.runtime.media.colour import BgrWriter, ColourTags, output_tags, tag_encoder
from dubstream.runtime.media.guard import show, writing
from dubstream.runtime.media.verify import check_segment

_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
# Pixel format -> what width and height must be multiples of.
_PIX_FMTS = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1)}


@dataclass(frozen=True)
class EncodeOptions:
    """How video is encoded (libx264). Part of a job's identity: other options, other bytes.

    Attributes:
        crf: quality, 0 (lossless) to 51; 18 is visually lossless for most footage.
        preset: x264 preset, slower is smaller.
        threads: encoder threads. Pinned, because x264's bytes depend on the number.
        pix_fmt: yuv420p plays everywhere; yuv444p keeps odd sizes as they are.
        gop: most frames between key frames.
    """

    crf: float = 18
    preset: str = "medium"
    threads: int = 4
    pix_fmt: str = "yuv420p"
    gop: int = 250

    def __post_init__(self) -> None:
        _check(0 <= self.crf <= 51, "--crf", self.crf, "a number from 0 to 51")
        _check(self.preset in _PRESETS, "--preset", self.preset, f"one of {', '.join(_PRESETS)}")
        _check(1 <= self.threads <= 64, "--encoder-threads", self.threads, "a number from 1 to 64")
        _check(self.pix_fmt in _PIX_FMTS, "--pix-fmt", self.pix_fmt, f"one of {', '.join(_PIX_FMTS)}")
        _check(self.gop >= 1, "--gop", self.gop, "at least 1")

    def coded_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that are encoded: rounded up to what the pixel format can hold."""
        across, down = _PIX_FMTS[self.pix_fmt]
        return -(-width // across) * across, -(-height // down) * down


class SegmentWriter:
    """Encodes pictures to an MP4 file that appears under its name when `close` has succeeded.

    A side that the pixel format cannot hold (an odd one in 4:2:0) grows by one repeated row or column;
    `padding` says so, and `assemble` records the true size in the output's comment.

    Args:
        path: final name; a temporary file stands next to it until `close`.
        width, height: of every picture, in pixels.
        rate: frames per second, exact.
        colour: tags of the source; they are carried over.
        sample_aspect: width of a pixel over its height.

    Raises:
        StorageError: disk full, no permission, folder missing (here, in `write` or in `close`).
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        rate: Fraction,
        colour: ColourTags,
        options: EncodeOptions,
        sample_aspect: Fraction = Fraction(1),
    ) -> None:
        self._path = path
        self._shape = (height, width, 3)
        coded = options.coded_size(width, height)
        self.padding = (coded[0] - width, coded[1] - height)
        self._rate = rate
        self._frames = 0
        tags = output_tags(colour)
        self._to_yuv = BgrWriter(options.pix_fmt, tags)
        self._part = part_path(path)
        self._container: Any = None
        try:
            with writing(path):
                self._part.touch()  # the muxer opens its file only with the first packet
                self._container, self._stream = _open_encoder(self._part, coded, rate, tags, options)
                self._stream.codec_context.sample_aspect_ratio = sample_aspect
        except BaseException:
            self.abort()
            raise

    @property
    def frames(self) -> int:
        """Pictures written so far."""
        return self._frames

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, picture: npt.NDArray[np.uint8]) -> None:
        """Append one picture: uint8 HxWx3 BGR of the segment's size (`InternalError` otherwise)."""
        if picture.shape != self._shape or picture.dtype != np.uint8:
            raise InternalError(
                f"segment {show(self._path)} got a {picture.dtype} picture of shape {picture.shape}, "
                f"expected uint8 {self._shape}"
            )
        across, down = self.padding
        if across or down:
            picture = np.pad(picture, ((0, down), (0, across), (0, 0)), mode="edge")
        with writing(self._path):
            frame = self._to_yuv(np.ascontiguousarray(picture))
            frame.pts = self._frames
            frame.time_base = 1 / self._rate
            self._container.mux(self._stream.encode(frame))
        self._frames += 1

    def close(self) -> None:
        """Finish, check and rename the file. Without a single picture: `InternalError`, and no file."""
        if self._container is None:
            return
        try:
            if self._frames == 0:
                raise InternalError(f"segment {show(self._path)} was closed without a picture")
            with writing(self._path):
                self._container.mux(self._stream.encode())
                self._container.close()
                check_segment(self._part, self._frames)
                commit(self._part, self._path)
            self._container = None
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give the segment up: no file stays. Harmless after `close`."""
        if self._container is not None:
            with suppress(Exception):
                self._container.close()
            self._container = None
        discard(self._part)


def _open_encoder(
    part: Path, size: tuple[int, int], rate: Fraction, tags: ColourTags, options: EncodeOptions
) -> tuple[Any, Any]:
    import av
    from av.codec.context import Flags

    container = av.open(str(part.absolute()), "w", format="mp4", container_options={"fflags": "+bitexact"})
    x264 = {"crf": str(options.crf), "preset": options.preset, "x264-params": "bframes=0:open-gop=0"}
    stream = container.add_stream("libx264", rate=rate, options=x264)
    stream.width, stream.height = size
    stream.pix_fmt = options.pix_fmt
    context = stream.codec_context
    context.time_base = 1 / rate
    context.gop_size = options.gop
    context.thread_count = options.threads
    context.thread_type = "FRAME"  # PyAV's default cuts every picture into slices, which costs bits
    context.flags |= Flags.closed_gop | Flags.bitexact
    tag_encoder(context, tags)
    return container, stream


def _check(good: bool, option: str, value: object, expected: str) -> None:
    if not good:
        raise UsageError(f"{option} is {value}, expected {expected}")
