"""Short clips of a real portrait and a synthetic voice, for tests of faces and of the job."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy.io import wavfile

from dubstream.benchmarks.demo_clip import RATE, SAMPLE_RATE, SIDE, portrait_frames, speech
from dubstream.runtime.media.colour import ColourTags
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.media.writer import EncodeOptions, SegmentWriter

QUICK = EncodeOptions(crf=12, preset="ultrafast", threads=1)


def write_video(
    path: Path, frames: Iterable[np.ndarray], rate: Fraction = RATE, options: EncodeOptions = QUICK
) -> Path:
    """Encode BGR pictures of one size."""
    pictures = list(frames)
    height, width = pictures[0].shape[:2]
    with SegmentWriter(
        path, width=width, height=height, rate=rate, colour=ColourTags(), options=options
    ) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


def write_portrait(path: Path, frames: int = 24, side: int = SIDE) -> Path:
    """The demo's portrait: one eighth of the frames without the face."""
    return write_video(path, portrait_frames(frames, side))


def frames_of(path: Path) -> np.ndarray:
    """All pictures of a video: int (n, H, W, 3), BGR levels whose differences keep their sign."""
    limits = MediaLimits()
    with VideoReader(probe_video(path, limits), limits) as reader:
        return np.stack([picture.astype(int) for _, picture in reader.frames()])


def write_speech(path: Path, seconds: float = 0.96, *, rate: int = SAMPLE_RATE, seed: int = 7) -> Path:
    """The demo's voice as 16-bit WAV."""
    wavfile.write(path, rate, (speech(seconds, rate, seed) * 32767).astype(np.int16))
    return path


def remux(source: Path, target: Path) -> Path:
    """The same packets in another container; Matroska needs no index at its end, so it can be cut off."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                writing.mux(packet)
    return target
