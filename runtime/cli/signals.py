"""SIGINT and SIGTERM end a job between two frames: no output, no temporary file, finished segments kept."""

from __future__ import annotations

import signal
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`, for the reason `KeyboardInterrupt` is none."""


def install_handlers() -> None:
    """Raise `KeyboardInterrupt` on SIGINT and `Terminated` on SIGTERM, in the main thread, once each.

    A second signal while the first is being cleaned up is ignored, so that impatience cannot leave
    temporary files behind; SIGKILL remains.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)


def _ignore_further() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _ignore_further()
    raise KeyboardInterrupt


def _terminate(_number: int, _frame: FrameType | None) -> None:
    _ignore_further()
    raise Terminated
