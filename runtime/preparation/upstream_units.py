"""What the parts of the first pass of `--mode upstream` share: chunks, units, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import InternalError, NoFaceError, StageError
from dubstream.kernels.checks import U8
from dubstream.runtime.coefficients import WINDOW_BEFORE, WINDOW_SIZE
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.upstream import SizedDetectors
from dubstream.runtime.platforms.calls import Calls, account_calls, opened_calls
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.progress import Progress
from dubstream.runtime.timing import Timing
from dubstream.runtime.units.arrays import save_arrays
from dubstream.runtime.units.unit_folder import UnitFolder

CHUNK_FRAMES = 24
"""Source frames per unit, few, as a frame takes many seconds; a constant, as it decides what is stored."""

_AHEAD = WINDOW_SIZE - WINDOW_BEFORE - 1  # frames of a driving window behind the driven one


def chunks_of(frames: int) -> range:
    """Numbers of the chunks that hold the first `frames` frames."""
    return range(-(-frames // CHUNK_FRAMES))


def table_name(chunk: int) -> str:
    """File name of landmarks and coefficients of a chunk."""
    return f"measured-{chunk:05d}.npz"


@contextmanager
def at_frame(stage: str, frame: int) -> Iterator[None]:
    """Errors of this block name the frame."""
    try:
        yield
    except NoFaceError as error:
        raise NoFaceError(f"frame {frame}: {error.message}", hint=error.hint) from error
    except InternalError as error:
        raise StageError(stage, frame, error) from error


@dataclass(frozen=True)
class Work:
    """One clip, what looks at it, and who is told.

    Attributes:
        reader: reads the clip.
        count: of its frames.
        used: of them, the first ones, which are dubbed.
        artifacts: verified ones by network.
        detectors: names of those for pictures of the clip's size.
        platform: where networks run.
        timing, progress: told about every stage.
    """

    reader: VideoReader
    count: int
    used: int
    artifacts: Mapping[str, Artifact]
    detectors: SizedDetectors
    platform: Platform
    timing: Timing
    progress: Progress

    @property
    def chunks(self) -> range:
        """Those with used frames."""
        return chunks_of(self.used)

    @property
    def driving(self) -> int:
        """How many of the first frames the driving windows of these chunks see."""
        return min(self.span(self.chunks[-1])[1] + _AHEAD, self.count)

    def span(self, chunk: int) -> tuple[int, int]:
        """First frame of a chunk, and the one after its last."""
        return chunk * CHUNK_FRAMES, min((chunk + 1) * CHUNK_FRAMES, self.count)

    def opened(self, *names: str) -> AbstractContextManager[Calls]:
        """Networks, ready to be called."""
        return opened_calls(self.platform, self.artifacts, *names)

    def frames(self, chunk: int, stage: str, total: int) -> Iterator[tuple[int, U8]]:
        """(index, uint8 BGR frame) of a chunk; each is reported when it is done with."""
        for index, frame in self.reader.frames(*self.span(chunk)):
            yield index, frame
            self.progress(stage, min(index + 1, total), total)

    @contextmanager
    def making(
        self, units: UnitFolder, name: str, stage: str, frames: int, calls: Calls
    ) -> Iterator[Callable[..., None]]:
        """Make one unit of arrays, timed; gives what saves them."""
        with self.timing.measure(stage, frames), units.making(name, {}) as path:

            def save(**arrays: npt.NDArray[Any]) -> None:
                save_arrays(path, arrays)

            yield save
        account_calls(self.timing, stage, calls)
