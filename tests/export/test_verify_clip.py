"""Frames for `--clip`: from any video, and a named error from anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import write_portrait, write_speech

from dubstream.engines.errors import MediaError
from dubstream.export.verify.clip import clip_frames


def test_frames_are_a_second_apart_where_the_clip_is_long_enough(tmp_path: Path) -> None:
    clip = write_portrait(tmp_path / "clip.mp4", frames=27)
    frames = clip_frames(clip, 2)
    assert len(frames) == 2
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert frames[0].shape[2] == 3
    assert len(clip_frames(write_portrait(tmp_path / "short.mp4", frames=3), 2)) == 1


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    sound = write_speech(tmp_path / "speech.wav", 0.2)
    for path in (text, sound, tmp_path, tmp_path / "missing.mp4"):
        with pytest.raises(MediaError, match="expected a video"):
            clip_frames(path)
