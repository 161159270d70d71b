"""Colour patches through reading and writing, by every matrix and range."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import Clip, make_video

from dubstream.runtime.media.colour import BgrReader, BgrWriter, ColourTags, output_tags, tags_of

KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593),
         2: (0.299, 0.114)}  # fmt: skip
PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (54, 109, 162), (200, 150, 120), (255, 255, 255), (0, 0, 0)]
LEVELS = 2


def yuv_of(rgb: tuple[int, int, int], matrix: int, full: bool) -> tuple[float, float, float]:
    """Digital Y'CbCr of an R'G'B' patch by the definition, on the 8-bit scale."""
    (kr, kb), (r, g, b) = KR_KB[matrix], rgb
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    return (
        (y, 128 + cb, 128 + cr) if full else (16 + y * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255)
    )


def patch_frame(yuv: tuple[float, ...], pix_fmt: str, matrix: int, full: bool) -> av.VideoFrame:
    ten = "10" in pix_fmt
    frame = av.VideoFrame(32, 24, pix_fmt)
    for plane, value in zip(frame.planes, yuv, strict=True):
        level = np.clip(round(value * (4 if ten else 1)), 0, 1023 if ten else 255)
        kind = np.uint16 if ten else np.uint8
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, level, kind).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", KR_KB)
def test_patches_are_read_by_the_streams_own_matrix_and_range(matrix: int, full: bool, pix_fmt: str) -> None:
    read = BgrReader()
    for rgb in PATCHES:
        shown = read(patch_frame(yuv_of(rgb, matrix, full), pix_fmt, matrix, full))
        assert np.abs(shown.astype(int) - rgb[::-1]).max() <= LEVELS, rgb


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", KR_KB)
def test_patches_are_written_by_the_tags_and_come_back(matrix: int, full: bool) -> None:
    tags = ColourTags(matrix, matrix, matrix, full, True)
    write, read = BgrWriter("yuv420p", tags), BgrReader()
    for rgb in PATCHES:
        frame = write(np.full((24, 32, 3), rgb[::-1], np.uint8))
        for plane, value in zip(frame.planes, yuv_of(rgb, matrix, full), strict=True):
            stored = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width]
            assert np.abs(stored - min(value, 255)).max() <= 1.0, rgb
        assert tags_of(frame) == tags
        assert np.abs(read(frame).astype(int) - rgb[::-1]).max() <= LEVELS, rgb


def test_a_matrix_that_cannot_be_written_becomes_bt601() -> None:
    constant_luminance = ColourTags(9, 14, 10, False, True)
    assert output_tags(constant_luminance) == ColourTags(9, 14, 6, False, True)
    assert output_tags(ColourTags(matrix=9)) == ColourTags(matrix=9)


def test_chroma_is_written_above_the_left_luma_column() -> None:
    # H.264 readers look for it there; centred chroma would move the colours with every generation.
    x = np.arange(64)
    ramp = np.full((32, 64, 3), 100, np.uint8)
    ramp[..., 0] = 40 + 2 * x
    whole, halved = (BgrWriter(name, ColourTags())(ramp).planes[1] for name in ("yuv444p", "yuv420p"))
    full = np.frombuffer(whole, np.uint8).reshape(whole.height, -1)[:, :64].mean(axis=0)
    half = np.frombuffer(halved, np.uint8).reshape(halved.height, -1)[:, :32].mean(axis=0)
    position = np.interp(half, full, x) - 2 * np.arange(32)
    assert abs(position[4:-4].mean()) < 0.15


def test_what_was_decoded_comes_back_from_an_encoder_unshifted(tmp_path: Path) -> None:
    # A background that is only decoded and encoded again must keep its colours in their places.
    lossless = Clip(frames=1, width=96, height=64, options={"crf": "0", "preset": "ultrafast"})
    with av.open(str(make_video(tmp_path / "a.mp4", lossless))) as container:
        source = next(container.decode(video=0))
    first = BgrReader()(source)
    again = BgrWriter("yuv420p", ColourTags())(first)
    for before, after in zip(source.planes, again.planes, strict=True):
        shape = (before.height, before.line_size)
        difference = np.frombuffer(after, np.uint8).reshape(after.height, -1)[:, : after.width].astype(int)
        difference -= np.frombuffer(before, np.uint8).reshape(shape)[:, : before.width]
        assert np.abs(difference).mean() <= 0.6
        assert abs(difference.mean()) <= 0.1
