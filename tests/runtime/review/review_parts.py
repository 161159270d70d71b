"""A small talking portrait, and copies of it with one fault each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from clips import write_speech, write_video

from dubstream.runtime.faces.track import Track
from dubstream.runtime.media.assemble import assemble
from dubstream.runtime.media.audio import AudioTrack, decode_audio
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.media.writer import EncodeOptions
from dubstream.runtime.options.dub import FaceOptions
from dubstream.runtime.progress import silent
from dubstream.runtime.review.faces import tracked
from dubstream.runtime.review.windows import Windows, windows_of

FRAMES = 24
SIDE = 240
RATE = Fraction(25)
LIMITS = MediaLimits()
LOSSLESS = EncodeOptions(crf=0, preset="ultrafast", pix_fmt="yuv444p", threads=1)

Pictures = list[np.ndarray]


def openness(frames: int = FRAMES) -> np.ndarray:
    """How far the mouth is open in every frame, 0 to 1: seeded, and different from frame to frame."""
    return np.random.default_rng(5).uniform(0, 1, frames)


def talking(opened: Sequence[float] | np.ndarray, pixels: int = SIDE) -> Pictures:
    """The portrait, swaying a little, with a soft dark spot in the mouth as it opens.

    The spot is faint and smooth: a mouth that moves wrongly changes its motion, hardly its similarity.
    """
    return [_portrait(k, float(value), pixels) for k, value in enumerate(opened)]


def _portrait(k: int, opened: float, pixels: int) -> np.ndarray:
    phase = 2 * np.pi * k / FRAMES
    shift = np.array([[1, 0, 2 * np.sin(phase)], [0, 1, np.cos(phase)]])
    moved = cv2.warpAffine(
        _mouth_open(round(opened, 3)), shift, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE
    )
    return moved if pixels == SIDE else cv2.resize(moved, (pixels, pixels), interpolation=cv2.INTER_AREA)


@cache
def _mouth_open(opened: float) -> np.ndarray:
    from skimage import data

    picture = data.astronaut()[:SIDE, 110 : 110 + SIDE, ::-1].astype(np.float64)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    spot = np.exp(-((columns - 113) ** 2) / (2 * 9.0**2) - (rows - 146) ** 2 / (2 * 6.0**2))
    return np.clip(np.rint(picture - 14 * opened * spot[..., None]), 0, 255).astype(np.uint8)


def write_clip(
    path: Path, pictures: Pictures, *, rate: Fraction = RATE, sound: Path | AudioTrack | None = None
) -> Path:
    """Encode without loss, with sound as long as the picture, or without any."""
    silent_ = write_video(path.with_name(f"silent-{path.name}"), pictures, rate, LOSSLESS)
    track = decode_audio(sound, LIMITS) if isinstance(sound, Path) else sound
    assemble([silent_], track, path, rate=rate, frames=len(pictures))
    silent_.unlink()
    return path


def voice(folder: Path, seconds: float = FRAMES / float(RATE)) -> Path:
    """A synthetic voice."""
    return write_speech(folder / "voice.wav", seconds)


def late(sound: Path, seconds: float) -> AudioTrack:
    """The same sound, beginning later."""
    track = decode_audio(sound, LIMITS)
    samples = np.pad(track.samples, ((0, 0), (round(seconds * track.rate), 0)))
    return AudioTrack(samples, track.rate, track.layout)


def track_of(path: Path) -> Track:
    """The face in a clip, tracked."""
    info = probe_video(path, LIMITS)
    with VideoReader(info, LIMITS) as reader:
        return tracked(info, reader, FaceOptions(), silent)


def each(pictures: Pictures, track: Track, change: Callable[[int, np.ndarray, Windows], None]) -> Pictures:
    """Copies of the pictures, changed in place by a function of frame number, picture and windows."""
    copies = [picture.copy() for picture in pictures]
    for k, picture in enumerate(copies):
        windows = windows_of(track.points[k], SIDE, SIDE)
        assert windows is not None
        change(k, picture, windows)
    return copies


def brighten(part: np.ndarray, levels: np.ndarray | float) -> None:
    """Add levels to a part of a picture, in place."""
    part[...] = np.clip(np.rint(part + levels), 0, 255).astype(np.uint8)
