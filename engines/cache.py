"""Where things live when nobody says where, and the lock that lets two processes build one thing once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from dubstream.engines.errors import RetryError
from dubstream.engines.storage import make_private_folder, storage_errors

CACHE_VARIABLE = "DUBSTREAM_CACHE"
LOCK_NAME = ".lock"
LOCK_TIMEOUT_S = 1800.0


def cache_root() -> Path:
    """The cache folder, created for this user only (mode 0700).

    `$DUBSTREAM_CACHE`, or else the platform's user cache. An existing folder keeps its mode; what
    is created below it is private in any case.

    Raises:
        StorageError: it cannot be created.
    """
    named = os.environ.get(CACHE_VARIABLE)
    return make_private_folder(Path(named).expanduser().absolute() if named else user_cache_path("dubstream"))


def artifact_folder(identity: str) -> Path:
    """The cached artifacts' folder for a `WeightsChoice.identity`, created if missing."""
    return make_private_folder(cache_root() / "artifacts" / identity)


@contextmanager
def folder_lock(
    folder: Path, *, timeout_s: float = LOCK_TIMEOUT_S, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the folder's lock; other processes wait. The lock of a killed holder is free at once.

    Whoever gets it must look again whether the work is still to be done.

    Args:
        folder: an existing folder; the lock is a hidden file in it.
        timeout_s: how long to wait, in seconds.
        on_wait: called once when the lock is not free.

    Raises:
        RetryError: the lock was not free in time.
        StorageError: the lock file cannot be created.
    """
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        with storage_errors(folder / LOCK_NAME, "locking"):
            _acquire(lock, timeout_s, on_wait)
    except _LockTimeoutError as error:
        raise RetryError(
            f"{folder} is locked by another process, waited {timeout_s:g} s",
            hint="run the command again later",
        ) from error
    try:
        yield
    finally:
        lock.release()


class _LockTimeoutError(Exception):
    """filelock's own is an OSError, which here means a disk fault."""


def _acquire(lock: FileLock, timeout_s: float, on_wait: Callable[[], None]) -> None:
    try:
        lock.acquire()
    except Timeout:
        on_wait()
        try:
            lock.acquire(timeout=timeout_s, poll_interval=0.1)
        except Timeout as error:
            raise _LockTimeoutError from error
