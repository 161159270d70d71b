"""Which source frame every output frame shows, and how long the output is.

A clip has two clocks: its own frames, already laid on a constant rate by the planner, and the new
audio. `Timeline` joins them by the audio mode:

The sound is cut, or filled with silence, to the length of the output's frames.

| mode | audio longer than video | audio shorter than video |
|---|---|---|
| cut | audio cut to the video | video cut to the audio |
| loop | video starts again at frame 0 (upstream's behaviour, jumps) | video cut to the audio |
| bounce | video runs backwards, then forwards, ... (default, no jump) | video cut to the audio |
| freeze | the last frame is held | video cut to the audio |
| silence | the last frame is held | audio padded with silence: the whole video is kept |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import MediaError, UsageError


class AudioMode(StrEnum):
    """What to do when audio and video differ in length; see the module's table."""

    CUT = "cut"
    LOOP = "loop"
    BOUNCE = "bounce"
    FREEZE = "freeze"
    SILENCE = "silence"


@dataclass(frozen=True)
class Timeline:
    """The output's frames.

    Attributes:
        rate: output frames per second, exact.
        sources: int64 (frames,), for every output frame the source frame it shows.
    """

    rate: Fraction
    sources: npt.NDArray[np.int64]

    @property
    def frames(self) -> int:
        """Number of output frames."""
        return len(self.sources)


def plan_timeline(
    plan: npt.NDArray[np.int64], rate: Fraction, audio_seconds: Fraction, mode: AudioMode
) -> Timeline:
    """Join a constant-rate plan of the video with the length of the audio.

    Args:
        plan: int64 (M,), source frame of every constant-rate video frame, M >= 1.
        rate: constant rate in frames per second.
        audio_seconds: length of the new audio.
        mode: see the module's table.

    Raises:
        MediaError: an empty plan or audio without length.
    """
    if len(plan) == 0 or audio_seconds <= 0:
        raise MediaError(
            f"nothing to dub: {len(plan)} video frames and {float(audio_seconds):.3f} s of audio, "
            "expected at least one frame and some audio"
        )
    # A frame is shown for every begun frame period, so that no audio plays without a picture.
    wanted = math.ceil(audio_seconds * rate)
    video = len(plan)
    if mode is AudioMode.CUT:
        frames = min(video, wanted)
    elif mode is AudioMode.SILENCE:
        frames = max(video, wanted)
    else:
        frames = wanted
    return Timeline(rate, plan[_positions(frames, video, mode)])


def _positions(frames: int, video: int, mode: AudioMode) -> npt.NDArray[np.int64]:
    k = np.arange(frames, dtype=np.int64)
    if mode is AudioMode.LOOP:
        return k % video
    if mode is AudioMode.BOUNCE and video > 1:
        k %= 2 * video - 2
        return np.where(k < video, k, 2 * video - 2 - k)
    return np.minimum(k, video - 1)


def parse_audio_mode(text: str) -> AudioMode:
    """The mode called `text`; `UsageError` for anything else."""
    try:
        return AudioMode(text)
    except ValueError:
        known = ", ".join(mode.value for mode in AudioMode)
        raise UsageError(f"--audio-mode received '{text}', expected one of {known}") from None
