"""Frames by index, in orders that a dub asks for."""

from __future__ import annotations

import numpy as np
import pytest
from media_factory import Clip, make_video, number_of

from dubstream.engines.errors import InternalError
from dubstream.runtime.media import reader as reader_module
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import VideoInfo, probe_video
from dubstream.runtime.media.reader import VideoReader

LIMITS = MediaLimits()
FRAMES = 40


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    clip = Clip(frames=FRAMES, options={"preset": "veryfast", "crf": "8", "bf": "3", "g": "10"})
    return probe_video(make_video(tmp_path_factory.mktemp("reader") / "clip.mp4", clip), LIMITS)


ORDERS = {
    "held": [0, 0, 0, 1, 2, 2, 5, 9, 9],
    "loop": [*range(30, FRAMES), *range(0, 12)],
    "bounce": [*range(FRAMES), *range(FRAMES - 1, -1, -1), *range(1, 8)],
    "held bounce": [k // 2 for k in [*range(60, 80), *range(79, 40, -1)]],
    "fast backwards": list(range(39, 0, -3)),
    "jumps": [39, 0, 20, 20, 3, 38, 37, 1],
    "none": [],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_frames_come_in_the_order_asked(info: VideoInfo, order: list[int]) -> None:
    with VideoReader(info, LIMITS) as reader:
        got = [(index, number_of(shown)) for index, shown in reader.frames_at(order)]
    assert got == [(k, k) for k in order]


def test_backwards_play_holds_a_bounded_number_of_frames(
    info: VideoInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_REVERSE_FRAMES", 7)
    asked: list[tuple[int, int]] = []
    plain = VideoReader._decoded

    def noted(self: VideoReader, start: int, stop: int) -> object:
        asked.append((start, stop))
        return plain(self, start, stop)

    monkeypatch.setattr(VideoReader, "_decoded", noted)
    with VideoReader(info, LIMITS) as reader:
        got = [number_of(shown) for _, shown in reader.frames_at(range(FRAMES - 1, -1, -1))]
    assert got == list(range(FRAMES - 1, -1, -1))
    assert max(stop - start for start, stop in asked) == 7


def test_a_step_forward_decodes_on_and_a_far_one_seeks(
    info: VideoInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    plain = VideoReader._begin

    def noted(self: VideoReader, start: int) -> None:
        begun.append(start)
        plain(self, start)

    monkeypatch.setattr(VideoReader, "_begin", noted)
    with VideoReader(info, LIMITS) as reader:
        assert [index for index, _ in reader.frames_at([0, 1, 4, 8, 35])] == [0, 1, 4, 8, 35]
    assert begun == [0, 35]


def test_an_abandoned_iteration_and_a_closed_reader_can_go_on(info: VideoInfo) -> None:
    reader = VideoReader(info, LIMITS)
    assert number_of(next(reader.frames(3))[1]) == 3
    assert number_of(next(reader.frames(4))[1]) == 4
    reader.close()
    assert number_of(next(reader.frames(5))[1]) == 5
    reader.close()
    reader.close()


def test_pictures_belong_to_the_caller(info: VideoInfo) -> None:
    with VideoReader(info, LIMITS) as reader:
        pictures = [shown for _, shown in reader.frames(0, 3)]
    pictures[0][:] = 0
    assert [number_of(shown) for shown in pictures[1:]] == [1, 2]
    assert all(shown.flags["OWNDATA"] and shown.flags["WRITEABLE"] for shown in pictures)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (5, 4), (0, FRAMES + 1)])
def test_a_range_outside_the_video_is_our_fault(info: VideoInfo, start: int, stop: int) -> None:
    with VideoReader(info, LIMITS) as reader, pytest.raises(InternalError, match="were asked of a video"):
        list(reader.frames(start, stop))


def test_indices_outside_the_video_are_our_fault(info: VideoInfo) -> None:
    with VideoReader(info, LIMITS) as reader, pytest.raises(InternalError, match="were asked of a video"):
        list(reader.frames_at(np.array([0, FRAMES])))
