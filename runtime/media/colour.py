"""Colour tags of a video, and the conversions to and from BGR that obey them.

A tag that is absent stays absent in the output; the conversion then uses the BT.601 matrix and limited
range both ways, as FFmpeg and OpenCV do, so that a player's guess about source and result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

UNSPECIFIED = 2  # of primaries, transfer and matrix in ITU-T H.273
_FULL_RANGE_FORMATS = ("yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p", "yuvj411p")
# Matrices swscale can produce, by H.273 code; the others (RGB, YCgCo, ICtCp, ...) are written as BT.601.
_MATRICES = (1, 4, 5, 6, 7, 9)
_LIMITED, _FULL = 1, 2  # AVColorRange


@dataclass(frozen=True)
class ColourTags:
    """What a stream says about its colours, as codes of ITU-T H.273 (2 is "unspecified").

    Attributes:
        primaries: colour primaries (1 is BT.709, 9 is BT.2020).
        transfer: transfer characteristics.
        matrix: luma coefficients (1 is BT.709, 5 and 6 are BT.601, 9 is BT.2020).
        full_range: whether luma covers 0..255 instead of 16..235.
        range_known: whether the stream said so; an unknown range is handled as limited.
    """

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    full_range: bool = False
    range_known: bool = False


def tags_of(frame: Any) -> ColourTags:
    """Colour tags of a decoded PyAV frame."""
    full = int(frame.color_range) == _FULL or frame.format.name in _FULL_RANGE_FORMATS
    return ColourTags(
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        full_range=full,
        range_known=full or int(frame.color_range) == _LIMITED,
    )


def output_tags(tags: ColourTags) -> ColourTags:
    """The tags an encoded copy carries: as the source, but a matrix we cannot produce becomes BT.601's."""
    if tags.matrix in (*_MATRICES, UNSPECIFIED):
        return tags
    return ColourTags(tags.primaries, tags.transfer, 6, tags.full_range, tags.range_known)


class BgrReader:
    """Converts decoded PyAV frames to BGR; keeps its conversion tables between frames."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        # Rounding exactly and interpolating chroma fully keeps patches within a level; bit-exact keeps
        # the pixels independent of the processor's instruction set.
        self._how = (
            Interpolation.BILINEAR
            | Interpolation.FULL_CHR_H_INT
            | Interpolation.ACCURATE_RND
            | Interpolation.BITEXACT
        )

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        """uint8 HxWx3 BGR, contiguous and owned by the caller, by the frame's own matrix and range."""
        tags = tags_of(frame)
        picture = self._reformatter.reformat(
            frame,
            format="bgr24",
            src_colorspace=_matrix_code(tags),
            src_color_range=_range_code(tags),
            dst_color_range=_FULL,
            interpolation=self._how,
            threads=1,
        )
        return np.array(picture.to_ndarray(), dtype=np.uint8, order="C")


class BgrWriter:
    """Converts BGR pictures to frames of one pixel format and one set of colour tags."""

    def __init__(self, pix_fmt: str, tags: ColourTags) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._pix_fmt = pix_fmt
        self._tags = tags
        self._reformatter = VideoReformatter()
        self._canvas: Any = None
        self._how = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT

    def __call__(self, picture: npt.NDArray[np.uint8]) -> Any:
        """PyAV frame of a uint8 HxWx3 BGR picture, tagged and without a time stamp."""
        height, width = picture.shape[:2]
        if self._canvas is None or (self._canvas.width, self._canvas.height) != (width, height):
            self._canvas = _left_sited_canvas(width, height)
        plane = self._canvas.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        rows[:, : width * 3] = picture.reshape(height, width * 3)
        frame = self._reformatter.reformat(
            self._canvas,
            format=self._pix_fmt,
            dst_colorspace=_matrix_code(self._tags),
            src_color_range=_FULL,
            dst_color_range=_range_code(self._tags),
            interpolation=self._how,
            threads=1,
        )
        frame.colorspace = self._tags.matrix
        frame.color_primaries = self._tags.primaries
        frame.color_trc = self._tags.transfer
        return frame


def tag_encoder(context: Any, tags: ColourTags) -> None:
    """Set the tags on a PyAV video encoder context before it opens."""
    context.colorspace = tags.matrix
    context.color_primaries = tags.primaries
    context.color_trc = tags.transfer
    context.color_range = _range_code(tags) if tags.range_known else 0


def _left_sited_canvas(width: int, height: int) -> Any:
    """A BGR frame whose conversion puts subsampled chroma where H.264 has it: above the left luma column.

    swscale takes the siting from the frame, PyAV cannot set it, and the default (centred) would move the
    colours by half a pixel with every generation.
    """
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("bgr24"), time_base=Fraction(1, 25)
    )
    siting, sink = graph.add("setparams", "chroma_location=left"), graph.add("buffersink")
    source.link_to(siting)
    siting.link_to(sink)
    graph.configure()
    blank = av.VideoFrame(width, height, "bgr24")
    blank.pts, blank.time_base = 0, Fraction(1, 25)
    graph.push(blank)
    return graph.pull()


def _range_code(tags: ColourTags) -> int:
    return _FULL if tags.full_range else _LIMITED


def _matrix_code(tags: ColourTags) -> int:
    return tags.matrix if tags.matrix in _MATRICES else 5
