"""Boundaries that turn whatever a media library raises into the errors of dubstream.

Hostile files make PyAV raise far more than its own errors (UnicodeDecodeError, IndexError,
AttributeError were seen), so the reading boundary is broad on purpose.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dubstream.engines.errors import DubError, InternalError, MediaError, StorageError, TruncatedMediaError

TRUNCATED_HINT = "get a complete copy, or pass --allow-truncated to dub what can be decoded"
_MACHINE_FAULTS = (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENODEV)


@contextmanager
def reading(path: Path, doing: str) -> Iterator[None]:
    """Run a block that reads `path`; every exception leaves as a `DubError`.

    Args:
        doing: what the block does, as in "could not {doing} PATH".

    Raises:
        TruncatedMediaError: the data ended early.
        StorageError: the machine failed, not the file.
        MediaError: anything else.
    """
    try:
        yield
    except DubError:
        raise
    except EOFError as error:
        raise TruncatedMediaError(
            f"{show(path)} ends while trying to {doing} it", hint=TRUNCATED_HINT
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
            raise StorageError(f"could not {doing} {show(path)}: {error.strerror}") from error
        raise MediaError(
            f"could not {doing} {show(path)}: {reason(error)}", hint="is the file damaged?"
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Run a block that writes `path`: the system's errors become `StorageError`, others `InternalError`."""
    try:
        yield
    except DubError:
        raise
    except OSError as error:
        raise StorageError(
            f"could not write {show(path)}: {error.strerror or error}", hint=_space_hint(path)
        ) from error
    except Exception as error:
        raise InternalError(f"encoding {show(path)} failed: {reason(error)}") from error


def show(path: Path) -> str:
    """The path for a one-line message: quoted, control characters and undecodable bytes escaped."""
    return ascii(str(path)) if not str(path).isprintable() else f"'{path}'"


def reason(error: BaseException) -> str:
    """One line that says what a foreign exception said."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{' '.join(str(text).split())[:200] or 'no message'} ({type(error).__name__})"


def _space_hint(path: Path) -> str:
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return f"check the folder {show(path.parent)}"
    return f"{free / 2**20:.0f} MiB are free in {show(path.parent)}; check space and permissions"
