"""Exact frames of a video by index, in any order, as upright BGR pictures.

A frame's pixels do not depend on where reading began. The reader seeks to the key frame before the wanted
one and decodes forward; if the decoder complains or leaves out a frame there (leading pictures of an open
GOP, gradual refresh), it starts again from the beginning of the file, and only what fails then is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import InternalError, MediaError, TruncatedMediaError
from dubstream.runtime.media.colour import BgrReader
from dubstream.runtime.media.decoding import decode, first_video_stream, prepare_decoder
from dubstream.runtime.media.guard import TRUNCATED_HINT, reading, show
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import open_media
from dubstream.runtime.media.probe import VideoInfo

Picture = npt.NDArray[np.uint8]

_REVERSE_FRAMES = 64
_REVERSE_STEP = 16  # a longer step back is a jump
_REVERSE_BYTES = 192 * 2**20  # decoded frames kept while a clip is played backwards


class VideoReader:
    """Reads frames of the video that `info` describes. Not thread-safe; close it or use it as a context.

    Args:
        info: of `probe_video`, made from the same file with the same wish about damage.
        limits: the limits the file was probed with.
    """

    def __init__(self, info: VideoInfo, limits: MediaLimits) -> None:
        self._info = info
        self._limits = limits
        self._to_bgr = BgrReader()
        self._container: Any = None
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._stream: Any = None
        self._next = 0  # index of the frame the open decoder gives next
        self._strict = not info.truncated_allowed
        self._may_seek = info.index.seekable
        self._sought = False
        per_frame = max(1, info.width * info.height * 3 // 2)
        self._reverse_chunk = max(1, min(_REVERSE_FRAMES, _REVERSE_BYTES // per_frame))

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading again opens it again."""
        self._frames = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Picture]]:
        """Frames start..stop-1 in presentation order.

        Yields:
            (index, picture): absolute source index; uint8 HxWx3 BGR, contiguous, upright, the caller's own.

        Raises:
            TruncatedMediaError: damaged, or shorter than the index says, and damage is not allowed.
            InternalError: a range outside the video.
        """
        stop = self._info.frame_count if stop is None else stop
        if not 0 <= start <= stop <= self._info.frame_count:
            raise InternalError(f"frames {start}..{stop} were asked of a video with {self._info.frame_count}")
        for index, frame in self._decoded(start, stop):
            yield index, self._picture(frame)

    def frames_at(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        """Frames in the given order: ascending, repeated, jumping back, or descending.

        Forward steps decode on; a jump seeks; a descending run is decoded forward in chunks of at most
        64 frames (fewer for large pictures), so memory stays bounded.

        Yields:
            (index, picture) per entry, as `frames`. A repeated index yields the same array again: do not
            write into it.
        """
        order = np.asarray(indices, dtype=np.int64)
        self._check_indices(order)
        position = 0
        held: tuple[int, Picture] | None = None
        while position < len(order):
            wanted = int(order[position])
            if held is not None and wanted == held[0]:
                yield held
                position += 1
                continue
            run = _descending_run(order[position:], self._reverse_chunk)
            for held in (
                self._forward(wanted) if run == 1 else self._backward(order[position : position + run])
            ):
                yield held
                position += 1

    def _forward(self, index: int) -> Iterator[tuple[int, Picture]]:
        for found, frame in self._decoded(index, index + 1):
            yield found, self._picture(frame)

    def _backward(self, run: npt.NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        wanted = {int(index) for index in run}
        kept = {
            index: frame for index, frame in self._decoded(min(wanted), max(wanted) + 1) if index in wanted
        }
        picture: Picture | None = None
        previous = -1
        for index in map(int, run):
            if picture is None or index != previous:
                picture = self._picture(kept[index])
            yield index, picture
            previous = index

    def _picture(self, frame: Any) -> Picture:
        with reading(self._info.path, "convert"):
            return self._info.orientation.apply(self._to_bgr(frame))

    def _decoded(self, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        while start < stop:
            if not self._can_continue(start):
                self._begin(start)
            try:
                frame = self._advance()
            except MediaError:
                self.close()
                if not self._sought:
                    raise
                self._may_seek = False  # the key frames of this file are no clean starts
                continue
            if self._next - 1 == start:
                yield start, frame
                start += 1

    def _can_continue(self, start: int) -> bool:
        if self._container is None or self._next > start:
            return False
        return not self._may_seek or self._key_before(start)[0] <= self._next

    def _key_before(self, start: int) -> tuple[int, int, int]:
        index = self._info.index
        position = int(np.searchsorted(index.key_pts, index.pts[start], side="right")) - 1
        pts = int(index.key_pts[position])
        return int(np.searchsorted(index.pts, pts)), pts, int(index.key_dts[position])

    def _begin(self, start: int) -> None:
        key, key_pts, key_dts = self._key_before(start) if self._may_seek else (0, 0, 0)
        self._sought = key > 0
        if not self._sought:
            self.close()
        if self._container is None:
            self._container = open_media(self._info.path, self._limits, strict=self._strict)
            self._stream = first_video_stream(self._container, self._info.path)
            prepare_decoder(self._stream, self._limits, strict=self._strict)
        if self._sought:
            with reading(self._info.path, "seek in"):
                self._container.seek(key_dts, stream=self._stream, backward=True)
        frames = decode(self._container, self._stream, self._info.path, strict=self._strict)
        self._frames = self._by_time(frames, key_pts) if self._may_seek else enumerate(frames)
        self._next = key

    def _by_time(self, frames: Iterator[Any], first_pts: int) -> Iterator[tuple[int, Any]]:
        """Frames from `first_pts` on with their index; -1 for one that the index does not know."""
        pts = self._info.index.pts
        for frame in frames:
            if self._sought and (frame.pts is None or frame.pts < first_pts):
                continue
            at = -1 if frame.pts is None else int(np.searchsorted(pts, frame.pts))
            yield (at if 0 <= at < len(pts) and int(pts[at]) == frame.pts else -1), frame

    def _advance(self) -> Any:
        with reading(self._info.path, "decode"):
            index, frame = next(self._frames, (-1, None))
        if index != self._next:
            found = "the file ends" if frame is None else f"it goes on at {frame.time or 0:.2f} s"
            raise TruncatedMediaError(
                f"{show(self._info.path)} lacks frame {self._next} of {self._info.frame_count}: {found}",
                hint=TRUNCATED_HINT,
            )
        self._next += 1
        return frame

    def _check_indices(self, order: npt.NDArray[np.int64]) -> None:
        if len(order) and not 0 <= order.min() <= order.max() < self._info.frame_count:
            raise InternalError(
                f"frames {order.min()}..{order.max()} were asked of a video with {self._info.frame_count}"
            )


def _descending_run(order: npt.NDArray[np.int64], most: int) -> int:
    """Length of the descending run that `order` begins with, of at most `most` frames; 1 if there is none."""
    length, different = 1, 1
    for before, after in pairwise(order):
        step = int(before) - int(after)
        if not 0 <= step <= _REVERSE_STEP or different + (step > 0) > most:
            break
        length, different = length + 1, different + (step > 0)
    return length if different > 1 else 1
