"""The same clip and the same toy networks, dubbed our way and the original's, at 1280x720."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from clips import QUICK, write_speech, write_video
from upstream_toys import publish_upstream_toys, written

from dubstream.benchmarks.demo_clip import portrait_frames
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import DubOptions, DubRequest, FaceOptions, StreamOptions
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.options.upstream import UpstreamOptions

WIDTH, HEIGHT, FRAMES = 1280, 720, 2
BACKGROUND = (slice(None), slice(0, 300))  # left of every face the toys find
WINDOW = (slice(230, 560), slice(470, 810))  # inside both ways' face boxes
NATIVE = DubOptions(
    face=FaceOptions(finder="networks"),
    stream=StreamOptions(threads=1),
    encode=QUICK,
    finish=FinishOptions("parse", "gfpgan"),
)
UPSTREAM = replace(
    NATIVE, face=FaceOptions(), finish=FinishOptions("box", "both"), upstream=UpstreamOptions()
)


@dataclass
class Frames:
    """uint8 (n, H, W, 3) each, as they are read and as they go to the encoder."""

    source: np.ndarray
    native: np.ndarray
    upstream: np.ndarray


def detailed_frames() -> list[np.ndarray]:
    """The portrait in the middle of a background of fine detail, as in foliage or cloth."""
    grain = np.random.default_rng(3).normal(0, 14, (HEIGHT, WIDTH, 1))
    room = cv2.resize(np.full((2, 2, 3), 120, np.uint8), (WIDTH, HEIGHT))
    frames = []
    for face in portrait_frames(16, HEIGHT):
        picture = room.copy()
        picture[:, (WIDTH - HEIGHT) // 2 : (WIDTH + HEIGHT) // 2] = face
        frames.append(np.clip(picture + grain, 0, 255).astype(np.uint8))
    return frames[:FRAMES]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    folder = tmp_path_factory.mktemp("sharpness")
    video = write_video(folder / "talk.mp4", detailed_frames())
    voice = write_speech(folder / "voice.wav", 0.24)
    with pytest.MonkeyPatch.context() as patch:
        toys = publish_upstream_toys(folder / "toys", WIDTH, HEIGHT, patch)
    request = DubRequest(video, voice, folder / "out.mp4", toys, folder / "cache", NATIVE)
    native, upstream = (
        written(replace(request, options=options))[1][:FRAMES] for options in (NATIVE, UPSTREAM)
    )
    limits = MediaLimits()
    with VideoReader(probe_video(video, limits), limits) as reader:
        source = np.stack([picture for _, picture in reader.frames()])
    return Frames(source, np.stack(native), np.stack(upstream))


def sharpness(pictures: np.ndarray, part: tuple[slice, slice]) -> float:
    """Mean variance of the Laplacian of luma."""
    luma = [cv2.cvtColor(picture[part], cv2.COLOR_BGR2GRAY) for picture in pictures]
    return float(np.mean([cv2.Laplacian(one, cv2.CV_64F).var() for one in luma]))


def test_the_background_is_the_sources_to_the_bit(frames: Frames) -> None:
    assert np.array_equal(frames.native[:, :, BACKGROUND[1]], frames.source[:, :, BACKGROUND[1]])
    assert not np.array_equal(frames.native, frames.source)  # the face was dubbed


def test_the_originals_background_went_through_512_pixels(frames: Frames) -> None:
    kept = sharpness(frames.upstream, BACKGROUND) / sharpness(frames.source, BACKGROUND)
    assert kept < 0.3
    squashed = cv2.resize(frames.source[0], (512, 512), interpolation=cv2.INTER_LINEAR)
    back = cv2.resize(squashed, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    away = np.abs(frames.upstream[0][BACKGROUND].astype(int) - back[BACKGROUND])
    assert away.max() <= 1  # truncated, not rounded


def test_inside_the_face_ours_is_no_less_sharp(frames: Frames) -> None:
    assert sharpness(frames.native, WINDOW) >= sharpness(frames.upstream, WINDOW)
