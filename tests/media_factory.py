"""Small video and audio files of every kind, made with PyAV, for tests of reading and writing.

Each picture carries its number as a bar code, so that a frame is recognised after any encoder.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange

_BITS = 8


def picture(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """uint8 BGR picture: a bar code of `number` (0..255) above, a smooth ramp that moves with it below."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[..., 0] = (np.linspace(60, 180, width) + number) % 256
    canvas[..., 1] = np.linspace(90, 200, height)[:, None]
    canvas[..., 2] = 120
    for bit in range(_BITS):
        left, right = bit * width // _BITS, (bit + 1) * width // _BITS
        canvas[: height // 2, left:right] = 235 if number >> bit & 1 else 20
    return canvas


def number_of(shown: np.ndarray) -> int:
    """Number in the bar code of a picture of any size."""
    height, width = shown.shape[:2]
    row = shown[height // 4].mean(axis=-1)
    centres = [(2 * bit + 1) * width // (2 * _BITS) for bit in range(_BITS)]
    return sum(int(row[centre] > 127) << bit for bit, centre in enumerate(centres))


@dataclass(frozen=True)
class Sound:
    """A sine to be stored beside the video."""

    rate: int = 48000
    seconds: float = 1.0
    codec: str = "aac"
    layout: str = "stereo"
    hertz: float = 440.0


@dataclass(frozen=True)
class Clip:
    """What `make_video` stores.

    `stamps` are presentation times in units of `time_base` (default: one per frame at `rate`).
    `colour` is (matrix, full range) of the tags and of the conversion; `matrix` the display matrix.
    """

    frames: int = 12
    width: int = 96
    height: int = 64
    rate: Fraction = Fraction(25)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"preset": "ultrafast", "crf": "4"})
    container: dict[str, str] = field(default_factory=dict)
    format: str | None = None
    stamps: Sequence[int] | None = None
    time_base: Fraction | None = None
    colour: tuple[int, bool] | None = None
    rotate_ccw: int = 0
    hflip: bool = False
    sounds: tuple[Sound, ...] = ()
    numbers: Sequence[int] | None = None


def make_video(path: Path, clip: Clip = Clip()) -> Path:
    """Encode numbered pictures."""
    with av.open(str(path), "w", format=clip.format, container_options=clip.container) as output:
        stream = output.add_stream(clip.codec, rate=clip.rate, options=clip.options)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, clip.pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        if clip.time_base is not None:
            context.time_base = clip.time_base
        if clip.colour is not None:
            context.colorspace, context.color_primaries = clip.colour[0], clip.colour[0]
            context.color_trc, context.color_range = clip.colour[0], 2 if clip.colour[1] else 1
        if clip.rotate_ccw or clip.hflip:
            stream.set_display_rotation(clip.rotate_ccw, hflip=clip.hflip)
        sounds = [(output.add_stream(s.codec, rate=s.rate, layout=s.layout), s) for s in clip.sounds]
        for index, frame in enumerate(_frames(clip)):
            frame.pts = index if clip.stamps is None else clip.stamps[index]
            frame.time_base = clip.time_base or 1 / clip.rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for track, sound in sounds:
            _store(output, track, sound)
    return path


def _frames(clip: Clip) -> Iterable[Any]:
    matrix, full = clip.colour or (5, False)
    for number in clip.numbers if clip.numbers is not None else range(clip.frames):
        source = av.VideoFrame.from_ndarray(picture(number % 256, clip.width, clip.height), format="bgr24")
        yield source.reformat(
            format=clip.pix_fmt,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        )


def sine(rate: int, seconds: float, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    """float32 (channels, n), amplitude a half."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave[None].astype(np.float32), channels, axis=0)


def make_audio(
    path: Path, sound: Sound, samples: np.ndarray | None = None, format: str | None = None
) -> Path:
    """Encode a sine, or the given float32 (channels, n) samples."""
    with av.open(str(path), "w", format=format) as output:
        track = output.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
        _store(output, track, sound, samples)
    return path


def make_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """32-bit float WAV written byte by byte, so that any value can be stored."""
    channels = samples.shape[0]
    data = np.ascontiguousarray(samples.T, dtype="<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, channels, rate,
                       rate * channels * 4, channels * 4, 32, b"data", len(data))  # fmt: skip
    path.write_bytes(head + data)
    return path


def _store(output: Any, track: Any, sound: Sound, samples: np.ndarray | None = None) -> None:
    channels = av.AudioLayout(sound.layout).nb_channels
    if samples is None:
        samples = sine(sound.rate, sound.seconds, sound.hertz, channels)
    for start in range(0, samples.shape[1], 1024):
        block = np.ascontiguousarray(samples[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, start, Fraction(1, sound.rate)
        output.mux(track.encode(frame))
    output.mux(track.encode(None))
