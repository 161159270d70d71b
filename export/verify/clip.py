"""Frames of a clip as inputs, for `--clip`: what a network sees of a real production's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dubstream.engines.errors import MediaError
from dubstream.export.fidelity import Array

MAX_PIXELS = 8192 * 8192


def clip_frames(path: Path, count: int = 2) -> list[Array]:
    """The first frames of a video, a second apart where it is long enough.

    They are taken as they are, without a search for faces: what is checked is arithmetic on real pictures.

    Returns:
        `count` or fewer uint8 BGR (height, width, 3), at least one.

    Raises:
        MediaError: not a video, damaged before its first frame, or larger than `MAX_PIXELS`.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path}: expected a video, found no video stream")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise MediaError(
                    f"{path}: {stream.width} x {stream.height}, expected at most {MAX_PIXELS} pixels"
                )
            step = max(1, round(float(stream.average_rate or 1)))
            frames: list[Array] = []
            for index, frame in enumerate(container.decode(stream)):
                if index % step == 0:
                    frames.append(np.asarray(frame.to_ndarray(format="bgr24")))
                if len(frames) == count:
                    break
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: expected a video that can be decoded, found {error}") from error
    if not frames:
        raise MediaError(f"{path}: expected at least one frame, found none")
    return frames
