"""What renders the output frames of a segment; the native mode has one, the upstream mode another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dubstream.runtime.job.synthesise import FramesAt, Picture
from dubstream.runtime.streaming.report import StreamReport


class Renderer(Protocol):
    """Renders segments; see `dubstream.runtime.job.synthesise.Synthesiser.render`.

    Attributes:
        unparsed: rendered frames so far in which the last look found no face: they show the source.
    """

    unparsed: int

    def render(
        self,
        frames_at: FramesAt,
        start: int,
        stop: int,
        write: Callable[[Picture], None],
        advance: Callable[[int], None],
        *,
        trace: bool = False,
    ) -> StreamReport:
        """Render output frames start..stop-1 in order."""
