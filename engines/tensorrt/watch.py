"""What the builder says while it works: its log, its progress, and how it is stopped."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with (phase, steps done, steps in all), from a thread of the builder."""

_log = logging.getLogger("dubstream.tensorrt")
_LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}


class LogTail:
    """The last messages at WARNING or above, for error messages."""

    def __init__(self, length: int = 40) -> None:
        self._lines: deque[str] = deque(maxlen=length)

    def take(self, severity: str, message: str) -> None:
        """Pass one message on to Python's logging and remember it if it matters."""
        level = _LEVELS.get(severity, logging.INFO)
        _log.log(level, "%s", message)
        if level >= logging.WARNING:
            self._lines.append(f"{severity}: {message}")

    def clear(self) -> None:
        """Forget everything, before a new build."""
        self._lines.clear()

    def __str__(self) -> str:
        return "; ".join(self._lines) or "the log is empty"


tail = LogTail()
"""The tail of the one logger of this process."""


@lru_cache(maxsize=1)
def logger(trt: Any) -> Any:
    """The process's one `trt.ILogger`: TensorRT keeps the first it meets and ignores all others."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            tail.take(str(severity).rpartition(".")[2], message)

    return Logger()


class Watch:
    """Steps of nested build phases, for a callback; `cancel` makes the builder give up at its next step.

    An exception of the callback cancels too and is kept in `failure`: it must not cross C++ frames.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._totals: dict[str, int] = {}
        self._cancelled = threading.Event()
        self.failure: BaseException | None = None

    def cancel(self) -> None:
        """Ask the builder to stop."""
        self._cancelled.set()

    def started(self, phase: str, steps: int) -> None:
        """A phase of `steps` steps begins."""
        self._totals[phase] = steps
        self._tell(phase, 0)

    def stepped(self, phase: str, step: int) -> bool:
        """Step `step` (from 0) is done; False asks the builder to stop."""
        self._tell(phase, step + 1)
        return not self._cancelled.is_set()

    def finished(self, phase: str) -> None:
        """The phase is over."""
        self._tell(phase, self._totals.pop(phase, 0))

    def _tell(self, phase: str, done: int) -> None:
        if self._progress is None or self.failure is not None:
            return
        try:
            self._progress(phase, done, self._totals.get(phase, done))
        except BaseException as error:  # C++ above us cannot carry it; build_plan raises it again
            self.failure = error
            self.cancel()


def progress_monitor(trt: Any, watch: Watch) -> Any:
    """`watch` as a `trt.IProgressMonitor`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            watch.started(name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            return watch.stepped(name, step)

        def phase_finish(self, name: str) -> None:
            watch.finished(name)

    return Monitor()
