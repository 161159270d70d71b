"""The real inputs that every half-precision export is tried on.

`python -m dubstream.benchmarks.real_inputs` remakes `export/real_inputs.npz` from what the development
dependencies ship: two frames of the demo's portrait through this project's own detection, alignment and
crops, and the mel spectrogram of the demo's voice. Export itself knows neither frames nor sound, so it
reads the file. Pictures are kept as JPEG, as frames of a video would be.

Seeded weights give no expression, angle or translation of that face: those rows of the driving window are
drawn, in the magnitudes that trained regressors give; its alignment rows are real.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.benchmarks.demo_clip import SAMPLE_RATE, portrait_frames, speech
from dubstream.engines.specs import DRIVING_ROWS, DRIVING_WINDOW
from dubstream.kernels.face_inputs import FACE, LIPS, face_inputs
from dubstream.kernels.resample import crop_resize
from dubstream.runtime.audio import mel_spectrogram, mel_window, speech_from, window_start
from dubstream.runtime.coefficients import (
    ROW_ALIGNMENT,
    ROW_ANGLE,
    ROW_EXPRESSION,
    ROW_TRANSLATION,
)
from dubstream.runtime.faces.alignment import align_for_recon
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks
from dubstream.runtime.faces.geometry import crop_box, face_extent, padded_box, points_in_crop

TARGET = Path(__file__).resolve().parents[1] / "export" / "real_inputs.npz"
JPEG_QUALITY = 95
FRAMES = (0, 10)
"""Of 40: the portrait upright and shifted furthest; each is the other's stabilised reference."""

COUNT = 40
SPEECH_FRAMES = (12, 30)
CROP = 256

Picture = npt.NDArray[np.uint8]


def make() -> dict[str, npt.NDArray[Any]]:
    """Pictures, uint8 BGR (2, side, side, 3), by the names of `export.real_inputs`; mel and window."""
    frames = [frame for index, frame in enumerate(portrait_frames(COUNT)) if index in FRAMES]
    found = [_face(frame) for frame in frames]
    crops = [_crop(frame, points) for frame, points in zip(frames, found, strict=True)]
    pairs = [
        _lip_pictures(frame, points, other)
        for frame, points, other in zip(frames, found, reversed(crops), strict=True)
    ]
    aligned = [_aligned(frame, points) for frame, points in zip(frames, found, strict=True)]
    return {
        "crop": np.stack(crops),
        "aligned": np.stack([picture for picture, _ in aligned]),
        "face": np.stack([face for face, _ in pairs]),
        "reference": np.stack([reference for _, reference in pairs]),
        "mel": _mel(),
        "coefficients": np.stack([_window(alignment) for _, alignment in aligned]),
    }


def write(target: Path = TARGET) -> None:
    """Make the inputs and write them, pictures as JPEG."""
    packed = {name: array if array.dtype == np.float32 else _jpegs(array) for name, array in make().items()}
    with target.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **packed)


def _face(frame: Picture) -> npt.NDArray[np.float64]:
    return CascadeLandmarks().points(frame, CascadeDetector().detect(frame)[0])


def _crop(frame: Picture, points: npt.NDArray[np.float64]) -> Picture:
    box = crop_box(points, frame.shape[1], frame.shape[0])
    return crop_resize(frame, box, np.empty((CROP, CROP, 3), np.uint8))


def _aligned(frame: Picture, points: npt.NDArray[np.float64]) -> tuple[Picture, npt.NDArray[np.float32]]:
    box = crop_box(points, frame.shape[1], frame.shape[0])
    picture, fit = align_for_recon(_crop(frame, points)[..., ::-1], points_in_crop(points, box))
    return np.ascontiguousarray(picture[..., ::-1]), fit[2:]


def _lip_pictures(
    frame: Picture, points: npt.NDArray[np.float64], reference: Picture
) -> tuple[Picture, Picture]:
    """What L-Net and E-Net see of a frame whose stabilised reference is given."""
    size = (frame.shape[1], frame.shape[0])
    box = padded_box(face_extent(points), *size)
    planes = np.empty((3, FACE, FACE), np.float32)
    face_inputs(
        frame, reference, crop_box(points, *size), box,
        faces_96=np.empty((6, LIPS, LIPS), np.float32), reference_384=planes,
    )  # fmt: skip
    face = crop_resize(frame, box, np.empty((FACE, FACE, 3), np.uint8))
    return face, np.rint(planes.transpose(1, 2, 0) * 255).astype(np.uint8)


def _mel() -> npt.NDArray[np.float32]:
    mel = mel_spectrogram(speech_from(speech()[None], SAMPLE_RATE))
    return np.stack([mel_window(mel, window_start(index, Fraction(25))) for index in SPEECH_FRAMES])


def _window(alignment: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A driving window of a face that talks and nods a little where it is."""
    draw = np.random.default_rng(DRIVING_ROWS)
    time = np.arange(DRIVING_WINDOW) / 25
    window = np.empty((DRIVING_ROWS, DRIVING_WINDOW), np.float32)
    for rows, scale in ((ROW_EXPRESSION, 1.0), (ROW_ANGLE, 0.2), (ROW_TRANSLATION, 0.2)):
        middle, swing, phase = (draw.normal(0, 1, (rows.stop - rows.start, 1)) for _ in range(3))
        window[rows] = scale * (middle + 0.3 * swing * np.sin(6 * time + phase))
    window[ROW_ALIGNMENT] = alignment[:, None]
    return window


def _jpegs(pictures: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """JPEG files one after another as rows, padded with zeros to the longest."""
    files = [
        cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1] for picture in pictures
    ]
    rows = np.zeros((len(files), max(file.size for file in files)), np.uint8)
    for row, file in zip(rows, files, strict=True):
        row[: file.size] = file.ravel()
    return rows


if __name__ == "__main__":
    write()
