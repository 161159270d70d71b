"""Whether a file is shorter than its own container headers say."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from dubstream.engines.errors import TruncatedMediaError
from dubstream.runtime.media.guard import TRUNCATED_HINT, show
from dubstream.runtime.media.structure import check_structure

_STREAMED_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE)
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_MAX_BOXES = 100_000


def check_extent(path: Path) -> None:
    """Raise `TruncatedMediaError` when a file lacks bytes that its headers promise, or its pieces do not fit.

    RIFF, RF64, MP4 and Matroska headers state sizes; for pieces that must fit see `structure`.
    Sizes that recorders write when they cannot seek back (0, all ones, "unknown") promise nothing.
    """
    actual = path.stat().st_size
    with path.open("rb") as file:
        promised = promised_size(file, actual)
    if promised is not None and promised > actual:
        raise TruncatedMediaError(
            f"{show(path)} is cut short: its header promises {promised} bytes, it has {actual}",
            hint=TRUNCATED_HINT,
        )
    check_structure(path)


def is_whole(path: Path) -> bool:
    """Whether `check_extent` has nothing to say against a file."""
    try:
        check_extent(path)
    except TruncatedMediaError:
        return False
    return True


def missing_share(path: Path) -> float:
    """Bytes that a file's headers promise and it lacks, over those it has; 0 where nothing is missing."""
    actual = path.stat().st_size
    with path.open("rb") as file:
        promised = promised_size(file, actual)
    return max(0.0, ((promised or 0) - actual) / actual)


def promised_size(file: BinaryIO, actual: int) -> int | None:
    """Bytes the outermost headers of an open file add up to, or None where they say nothing."""
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] in (b"WAVE", b"AVI "):
        return _riff_size(file, head, actual)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return _boxes_size(file, actual)
    if head[:4] == _EBML:
        return _ebml_size(file)
    return None


def _riff_size(file: BinaryIO, head: bytes, actual: int) -> int | None:
    if head[8:12] == b"AVI ":
        # OpenDML files go on in further RIFF chunks; the first one must be complete in any case.
        size = int.from_bytes(head[4:8], "little")
        return None if size in _STREAMED_SIZES else 8 + size
    position, long_data = 12, None
    while position + 8 <= actual:
        file.seek(position)
        chunk = file.read(8)
        name, size = chunk[:4], int.from_bytes(chunk[4:8], "little")
        if name == b"ds64":
            long_data = int.from_bytes(file.read(16)[8:16], "little")
        if name == b"data":
            size = long_data if long_data is not None and size == 0xFFFFFFFF else size
            return None if size in _STREAMED_SIZES else position + 8 + size
        position += 8 + size + (size & 1)
    return None


def _boxes_size(file: BinaryIO, actual: int) -> int | None:
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > actual:
            return position
        file.seek(position)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size == 0:  # the last box, open to the end of the file
            return None
        if size < 8 or not all(32 <= byte < 127 for byte in head[4:8]):
            return None  # trailing bytes that are no box
        position += size
    return None


def _ebml_size(file: BinaryIO) -> int | None:
    file.seek(4)
    size = _ebml_number(file)
    if size is None:
        return None
    file.seek(size, 1)
    if file.read(4) != _SEGMENT:
        return None
    size = _ebml_number(file)
    return None if size is None else file.tell() + size


def _ebml_number(file: BinaryIO) -> int | None:
    """A variable-length size at the file's position; None when it is the reserved "unknown" or broken."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + file.read(length - 1), "big")
    return None if value == (1 << (7 * length)) - 1 else value


def mp3_states_length(path: Path) -> bool:
    """Whether an MP3 file carries a Xing, Info or VBRI header, which holds its exact length."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            file.seek(
                10
                + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            )
        else:
            file.seek(0)
        start = file.read(4096)
    return any(mark in start for mark in (b"Xing", b"Info", b"VBRI"))
