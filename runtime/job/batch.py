"""Many dubs one after another: a failure stops no other, and what is done is not done again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dubstream.engines.atomic import publish
from dubstream.engines.errors import DubError, InternalError
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.opening import content_digest

log = logging.getLogger(__name__)

SCHEMA = 1

_WORST_FIRST = (70, 74, 69, 2, 75, 1)
"""Exit codes: our fault, the disk, the device, the input; "run it again" only where nothing else is wrong."""

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class JobResult:
    """What became of one job.

    Attributes:
        line: of the file of jobs, from 1.
        video, audio, output: as they stand there; empty where they do not.
        status: ``done``, ``skipped`` (found done), or ``failed``.
        frames: of the output, where it was made now.
        wall_s: seconds it took.
        exit_code: 0, or what a single `dub` would have ended with.
        error: its message; empty for none.
    """

    line: int
    video: str
    audio: str
    output: str
    status: Status
    frames: int = 0
    wall_s: float = 0.0
    exit_code: int = 0
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class BatchJob:
    """One job of a batch.

    Attributes:
        line: of the file of jobs, from 1.
        video, audio, output: for the table.
        key: gives the digest of everything that decides the output; may fail as the job may.
        run: does it.
    """

    line: int
    video: str
    audio: str
    output: str
    key: Callable[[], str]
    run: Callable[[], DubSummary]


class BatchState:
    """The jobs that are done, in a file beside the file of jobs.

    A job counts as done while its output still has the bytes it had then. A file that cannot be read, or was
    written by another version, counts for nothing: jobs are done again.

    Args:
        path: the file; written whole after every job, so it may be killed at any moment.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        """Make sure that it can be written, before hours of work depend on it.

        Raises:
            StorageError: it cannot.
        """
        self._write(self._entries())

    def is_done(self, key: str, output: Path) -> bool:
        """Whether the job of this key wrote this output, and nobody changed it since."""
        entry = self._entries().get(key)
        if not isinstance(entry, dict) or not output.is_file():
            return False
        return bool(entry.get("sha256") == content_digest(output))

    def record(self, key: str, output: Path) -> None:
        """Remember a job that was just done.

        Raises:
            StorageError: the file cannot be written.
        """
        # Read again: another batch over the same file may have written since.
        self._write({**self._entries(), key: {"output": str(output), "sha256": content_digest(output)}})

    def _write(self, entries: dict[str, Any]) -> None:
        publish(self._path, json.dumps({"schema": SCHEMA, "done": entries}, indent=1).encode())

    def _entries(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._path.read_bytes())
            done = kept["done"] if kept["schema"] == SCHEMA else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        return done if isinstance(done, dict) else {}


def run_batch(jobs: Iterable[BatchJob], state: BatchState) -> Iterator[JobResult]:
    """Do the jobs in order, one result after the other. An interrupt ends the batch; what is done is kept."""
    for job in jobs:
        yield _result(job, state)


def failed(line: int, files: tuple[str, str, str], error: DubError) -> JobResult:
    """The result of a job that ended, or could not begin, with this error."""
    return JobResult(
        line, *files, status="failed", exit_code=error.exit_code, error=" ".join(str(error).split())
    )


def worst_exit_code(results: Iterable[JobResult]) -> int:
    """What the batch ends with: 0 where every job is done."""
    codes = {result.exit_code for result in results} - {0}
    known = [code for code in _WORST_FIRST if code in codes]
    return known[0] if known else max(codes, default=0)


def _result(job: BatchJob, state: BatchState) -> JobResult:
    files = (job.video, job.audio, job.output)
    try:
        key = job.key()
        if state.is_done(key, Path(job.output)):
            return JobResult(job.line, *files, status="skipped")
        summary = job.run()
        state.record(key, Path(job.output))
    except DubError as error:
        return failed(job.line, files, error)
    except Exception as error:
        log.debug("unexpected failure", exc_info=True)
        fault = InternalError(f"unexpected {type(error).__name__}: {error}", hint="report it")
        return failed(job.line, files, fault)
    return JobResult(job.line, *files, status="done", frames=summary.frames, wall_s=summary.wall_s)
