"""Stabilised references on disk: one lossless file per chunk of source frames, read frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import StorageError
from dubstream.runtime.units.unit_folder import UnitFolder

PNG_COMPRESSION = 1
"""Fastest level: a 256 x 256 picture takes about 3 ms, far below the network that made it."""


class ReferenceWriter:
    """Writes one chunk: PNG pictures one behind the other; `facts` tell where each one is.

    Args:
        path: the file to write.
        facts: filled with `frames` (source indices) and `offsets` (one more than frames), in bytes.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self._file: BinaryIO = path.open("wb")
        self._frames: list[int] = facts.setdefault("frames", [])
        self._offsets: list[int] = facts.setdefault("offsets", [0])

    def append(self, index: int, picture: npt.NDArray[np.uint8]) -> None:
        """Add the reference of source frame `index`: uint8 BGR (256, 256, 3)."""
        _, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
        self._file.write(encoded.tobytes())
        self._frames.append(index)
        self._offsets.append(self._offsets[-1] + len(encoded))

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


class ReferenceReader:
    """Reads references by source frame; keeps one chunk open, so neighbouring frames are cheap.

    Args:
        units: the preparation's folder.
        chunk_frames: source frames per chunk.
    """

    def __init__(self, units: UnitFolder, chunk_frames: int) -> None:
        self._units = units
        self._chunk_frames = chunk_frames
        self._chunk = -1
        self._file: BinaryIO | None = None
        self._spans: dict[int, tuple[int, int]] = {}

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """The reference of source frame `index`: uint8 BGR (256, 256, 3).

        Raises:
            StorageError: the preparation was deleted or damaged while it was in use.
        """
        self._open(index // self._chunk_frames)
        start, stop = self._spans.get(index, (0, 0))
        if self._file is None or stop == start:
            raise StorageError(f"the preparation holds no reference for frame {index}", hint=_HINT)
        self._file.seek(start)
        data = np.frombuffer(self._file.read(stop - start), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if picture is None:
            raise StorageError(f"the reference of frame {index} cannot be read", hint=_HINT)
        return np.asarray(picture, np.uint8)

    def close(self) -> None:
        """Close the open chunk."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._chunk = -1

    def _open(self, chunk: int) -> None:
        if chunk == self._chunk:
            return
        self.close()
        name = chunk_name(chunk)
        facts = self._units.finished(name)
        if facts is None:
            raise StorageError(f"the preparation's '{name}' is missing or damaged", hint=_HINT)
        offsets: Sequence[int] = facts["offsets"]
        self._spans = dict(zip(facts["frames"], pairwise(offsets), strict=True))
        self._file = self._units.path(name).open("rb")
        self._chunk = chunk


def chunk_name(chunk: int) -> str:
    """File name of the references of chunk number `chunk`."""
    return f"references-{chunk:05d}.pngs"


_HINT = "run the same command again: the preparation is made anew where it is not complete"
