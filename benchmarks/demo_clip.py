"""A clip and a voice for the demo, made from what the dependencies ship.

`python -m dubstream.benchmarks.demo_clip FOLDER` writes `portrait.mp4`, a real portrait (NASA's Eileen
Collins, public domain, from scikit-image) moved and zoomed a little, with one eighth of the frames
turned away from the face, and `speech.wav`, a synthetic voice: a glottal pulse train through the
formants of changing vowels, with the pauses and the rhythm of speech.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

RATE = Fraction(25)
SECONDS = 3.0
SIDE = 480
"""Width and height of the clip in pixels."""

SAMPLE_RATE = 22050
PITCH_HZ = 118.0
SYLLABLE_SECONDS = 0.21
VOWEL_FORMANTS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
"""First three formants of /a/, /i/, /u/, /e/ (Peterson and Barney 1952, men)."""


def portrait_frames(frames: int, side: int = SIDE) -> Iterator[npt.NDArray[np.uint8]]:
    """The portrait in gentle motion: uint8 BGR (side, side, 3) pictures.

    The last frames of the sixth eighth look at the model of a shuttle beside her, where no face is.
    """
    from skimage import data

    picture = np.ascontiguousarray(data.astronaut()[..., ::-1])  # type: ignore[no-untyped-call]
    away = range(frames * 5 // 8, frames * 6 // 8)
    for k in range(frames):
        phase = 2 * np.pi * k / max(frames, 1)
        zoom = 1.25 + 0.06 * np.sin(phase)
        centre = (226 + 10 * np.sin(phase), 200 + 6 * np.cos(2 * phase))
        if k in away:
            zoom, centre = 2.4, (410.0, 190.0)
        matrix = np.array(
            [[zoom, 0, side / 2 - zoom * centre[0]], [0, zoom, side / 2 - zoom * centre[1]]], np.float64
        )
        frame = cv2.warpAffine(
            picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        yield np.asarray(frame, np.uint8)


def speech(seconds: float = SECONDS, rate: int = SAMPLE_RATE, seed: int = 7) -> npt.NDArray[np.float32]:
    """A synthetic voice: float32 (samples,) in [-1, 1]."""
    from scipy import signal

    draw = np.random.default_rng(seed)
    total = round(seconds * rate)
    voice = np.zeros(total, np.float64)
    time = np.arange(total) / rate
    pitch = PITCH_HZ * (1 + 0.08 * np.sin(2 * np.pi * 0.9 * time))
    pulses = np.diff(np.floor(np.cumsum(pitch) / rate), prepend=0.0)
    step = round(SYLLABLE_SECONDS * rate)
    for start in range(0, total, step):
        if draw.random() < 0.15:
            continue
        part = pulses[start : start + step]
        for formant in VOWEL_FORMANTS_HZ[draw.integers(len(VOWEL_FORMANTS_HZ))]:
            numerator, denominator = signal.iirpeak(formant, formant / 90.0, fs=rate)
            voice[start : start + step] += signal.lfilter(numerator, denominator, part) * np.hanning(
                len(part)
            )
    return np.asarray(0.7 * voice / np.abs(voice).max(), np.float32)


def write_demo(folder: Path, seconds: float = SECONDS) -> tuple[Path, Path]:
    """Write `portrait.mp4` and `speech.wav` into `folder`; returns their paths."""
    from scipy.io import wavfile

    from dubstream.runtime.media.colour import ColourTags
    from dubstream.runtime.media.writer import EncodeOptions, SegmentWriter

    folder.mkdir(parents=True, exist_ok=True)
    video, audio = folder / "portrait.mp4", folder / "speech.wav"
    with SegmentWriter(
        video, width=SIDE, height=SIDE, rate=RATE, colour=ColourTags(), options=EncodeOptions()
    ) as writer:
        for frame in portrait_frames(round(seconds * RATE)):
            writer.write(frame)
    wavfile.write(audio, SAMPLE_RATE, (speech(seconds) * 32767).astype(np.int16))
    return video, audio


def main() -> None:
    """Command line: one argument, the folder."""
    parser = argparse.ArgumentParser(description="Make the demo's clip and voice.")
    parser.add_argument("folder", type=Path)
    for path in write_demo(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
