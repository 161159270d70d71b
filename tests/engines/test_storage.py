"""Plain files that are read whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dubstream.engines.errors import StorageError
from dubstream.engines.storage import NotPlainFileError, TooLargeError, read_plain


def test_a_file_of_just_the_limit_is_read_and_a_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(TooLargeError, match="larger than 4 bytes"):
        read_plain(path, 4)


def test_what_is_no_plain_file_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(NotPlainFileError):
            read_plain(tmp_path / name, 9)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none", 9)
    with pytest.raises(NotADirectoryError):
        read_plain(tmp_path / "file" / "below", 9)


def test_another_fault_of_the_disk_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="opening"):
        read_plain(tmp_path / ("n" * 300), 9)
