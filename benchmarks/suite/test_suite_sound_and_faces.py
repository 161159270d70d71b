"""Sound to mel, and the alignment of a face. Each result is checked; a wrong one fails its benchmark."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from dubstream.benchmarks.demo_clip import SAMPLE_RATE, portrait_frames, speech
from dubstream.runtime.audio import mel_spectrogram, mel_window, speech_from, window_start
from dubstream.runtime.faces.alignment import align_for_recon
from dubstream.runtime.faces.detector import CascadeDetector

SECONDS = 5.0
POINTS = np.array([(95, 105), (160, 103), (128, 137), (101, 170), (154, 169)], float)
"""Eyes, nose and mouth corners in a picture of 256 pixels."""


def test_mel_of_five_seconds(benchmark: Any) -> None:
    voice = speech_from(speech(SECONDS)[None], SAMPLE_RATE)
    mel = benchmark.pedantic(mel_spectrogram, (voice,), rounds=5, warmup_rounds=1)
    assert mel.shape == (80, 1 + len(voice) // 200)
    assert -4 <= mel.min() < 0 < mel.max() <= 4


def test_resampling_of_five_seconds(benchmark: Any) -> None:
    time = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)[None]
    voice = benchmark.pedantic(speech_from, (tone, SAMPLE_RATE), rounds=5, warmup_rounds=1)
    spectrum = np.abs(np.fft.rfft(voice))
    assert np.argmax(spectrum) * 16000 / len(voice) == 440


def test_mel_windows_of_a_batch(benchmark: Any) -> None:
    mel = np.random.default_rng(0).normal(size=(80, 401)).astype(np.float32)

    def windows() -> list[np.ndarray[Any, Any]]:
        return [mel_window(mel, window_start(frame, Fraction(25))) for frame in range(16)]

    found = benchmark(windows)
    np.testing.assert_array_equal(found[5][0], mel[:, 16:32])


def test_alignment_of_a_face(benchmark: Any) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    aligned, trans = benchmark(align_for_recon, picture, POINTS)
    assert aligned.shape == (224, 224, 3)
    np.testing.assert_allclose(trans[:3], [256, 256, 1.00672281], rtol=1e-6)


def test_detection_of_a_face(benchmark: Any) -> None:
    frame = next(iter(portrait_frames(8)))
    faces = benchmark.pedantic(CascadeDetector().detect, (frame,), rounds=5, warmup_rounds=1)
    height, width = frame.shape[:2]
    assert 0 < faces[0].x1 < width / 2 < faces[0].x2 < width
    assert 0 < faces[0].y1 < faces[0].y2 < height
