"""How long-running work tells whoever asked how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called between units of work, from the thread that called the work; must be cheap."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` frames (or files) of `stage` are finished; `done == total` ends the stage."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress for callers who do not look."""
