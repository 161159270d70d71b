"""Plain files done carefully: digests, atomic publication, and disk faults as `StorageError`."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dubstream.engines.errors import StorageError

_CHUNK = 1 << 20  # bytes


class NotPlainFileError(OSError):
    """A link, folder, pipe or device where a plain file is expected."""


class TooLargeError(ValueError):
    """A file has more bytes than anything of its kind; the message says how many would be."""


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file for reading; its last component must not be a link.

    Raises:
        NotPlainFileError: it is a link, folder, pipe, socket or device.
        OSError: it is not there or not readable.
    """
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotPlainFileError(f"{path} is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotPlainFileError(f"{path} is not a plain file")
    return os.fdopen(handle, "rb")


def read_plain(path: Path, most: int) -> bytes:
    """The content of a small plain file.

    Raises:
        FileNotFoundError, NotADirectoryError, NotPlainFileError: none is there; callers know what should be.
        TooLargeError: it has more than `most` bytes; no more of them are read.
        StorageError: it cannot be read.
    """
    try:
        stream = open_plain(path)
    except (FileNotFoundError, NotADirectoryError, NotPlainFileError):
        raise
    except OSError as error:
        raise storage_error(path, "opening", error) from error
    with stream, storage_errors(path, "reading"):
        content = stream.read(most + 1)
    if len(content) > most:
        raise TooLargeError(f"larger than {most} bytes")
    return content


def sha256_of(*streams: BinaryIO) -> str:
    """SHA-256 (hexadecimal) of the streams' bytes, one after the other, from their positions on."""
    digest = hashlib.sha256()
    for stream in streams:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def free_bytes(path: Path) -> int | None:
    """Free bytes of the file system that holds `path` or its nearest existing parent; None if unknown."""
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


@contextmanager
def storage_errors(path: Path, doing: str, *, needed: int | None = None) -> Iterator[None]:
    """Turn an `OSError` inside the block into a `StorageError` that names path, need and free space.

    Args:
        path: the file or folder concerned.
        doing: what was being done, e.g. ``"writing"``.
        needed: bytes the block needs on disk, when known.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(path, doing, error, needed=needed) from error


def storage_error(path: Path, doing: str, error: OSError, *, needed: int | None = None) -> StorageError:
    """The `StorageError` for `error`; see `storage_errors`."""
    parts = [f"{doing} {path} failed: {error.strerror or error}"]
    if needed is not None:
        parts.append(f"needed {needed} bytes")
    free = free_bytes(path)
    if free is not None:
        parts.append(f"free {free} bytes")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = (
        "free some space or choose another folder" if full else "check that the folder exists and is writable"
    )
    return StorageError(", ".join(parts), hint=hint)


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on disk."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def make_private_folder(folder: Path) -> Path:
    """Create `folder` and its missing parents, readable by this user only; existing ones stay as they are."""
    with storage_errors(folder, "creating"):
        for path in (*reversed(folder.parents), folder):
            if not path.exists():
                path.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    return folder
