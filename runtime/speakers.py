"""Who says what: the value of `--speaker`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dubstream.engines.errors import UsageError


@dataclass(frozen=True)
class Speaker:
    """One person's new speech.

    Attributes:
        face: which person, as `--face` has it.
        audio: the file with the speech.
    """

    face: str
    audio: Path


def parse_speakers(texts: Sequence[str]) -> tuple[Speaker, ...]:
    """Read ``FACE=AUDIO`` entries, e.g. ``0=anna.wav``; the face is what `--face` takes.

    Raises:
        UsageError: another form, or a face named twice.
    """
    speakers = []
    for text in texts:
        face, sign, audio = text.partition("=")
        if not (face and sign and audio):
            raise UsageError(f"--speaker received '{text}', expected FACE=AUDIO, e.g. 0=anna.wav")
        speakers.append(Speaker(face, Path(audio)))
    faces = [speaker.face for speaker in speakers]
    twice = sorted({face for face in faces if faces.count(face) > 1})
    if twice:
        raise UsageError(f"--speaker names face {', '.join(twice)} twice, expected one speech a face")
    return tuple(speakers)
