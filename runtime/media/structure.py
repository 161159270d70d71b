"""Whether a stream container is whole: each byte belongs to an element, page or packet in its place.

FFmpeg looks for the next good piece after damaged ones and says nothing, so a film gets shorter unnoticed.
Matroska, Ogg and MPEG transport streams can be walked cheaply, by their headers alone.
"""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

from dubstream.engines.errors import TruncatedMediaError
from dubstream.runtime.media.guard import TRUNCATED_HINT, show

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_IN_SEGMENT = {
    0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367,
}  # fmt: skip
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
_ANYWHERE = {0xEC, 0xBF}  # padding and checksum
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OGG_HEADER = 27
_OGG_LAST_PAGE = 0x04
_TS_SYNC = 0x47


def check_structure(path: Path) -> None:
    """Raise `TruncatedMediaError` at the first misfit of a Matroska, Ogg or transport stream."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == _EBML.to_bytes(4, "big"):
            fault = _matroska_fault(data)
        elif data[:4] == b"OggS":
            fault = _ogg_fault(data)
        else:
            fault = _transport_fault(data)
    if fault is not None:
        raise TruncatedMediaError(
            f"{show(path)} is damaged or cut short at byte {fault} of {path.stat().st_size}",
            hint=TRUNCATED_HINT,
        )


def _matroska_fault(data: mmap.mmap) -> int | None:
    """Position of the first thing that is no element of its place; elements must tile the file exactly."""
    position, cluster_end = 0, None
    while position < len(data):
        identity, begin = _number(data, position, keep_marker=True)
        size, body = _number(data, begin)
        if identity is None or size is None:
            return position
        unknown = size == (1 << (7 * (body - begin))) - 1
        if identity in _IN_SEGMENT or identity == _EBML:
            if cluster_end is not None and position != cluster_end:
                return position
            cluster_end = None
        elif identity not in (_SEGMENT, *_IN_CLUSTER, *_ANYWHERE):
            return position
        if identity == _CLUSTER and not unknown:
            cluster_end = body + size
        if not unknown and identity in _IN_SEGMENT and _checksum_fails(data, body, body + size):
            return position
        if identity in (_SEGMENT, _CLUSTER):
            position = body
        elif unknown:
            return position
        else:
            position = body + size
    complete = position == len(data) and cluster_end in (None, position)
    return None if complete else len(data)


def _number(data: mmap.mmap, position: int, *, keep_marker: bool = False) -> tuple[int | None, int]:
    """A variable-length number and the position after it; None where there is none."""
    if position >= len(data) or data[position] == 0:
        return None, position
    length = 9 - data[position].bit_length()
    if position + length > len(data):
        return None, position
    value = int.from_bytes(data[position : position + length], "big")
    return (value if keep_marker else value & ((1 << (7 * length)) - 1)), position + length


def _checksum_fails(data: mmap.mmap, begin: int, end: int) -> bool:
    """Whether an element starts with a CRC-32 of the rest of its body that does not match."""
    if data[begin : begin + 2] != b"\xbf\x84":
        return False
    return zlib.crc32(data[begin + 6 : end]) != int.from_bytes(data[begin + 2 : begin + 6], "little")


def _ogg_fault(data: mmap.mmap) -> int | None:
    """Position of the first page that is broken or out of order; each stream must end with its last page."""
    position = 0
    expected: dict[bytes, int] = {}
    ended: dict[bytes, bool] = {}
    while position < len(data):
        head = data[position : position + _OGG_HEADER]
        if len(head) < _OGG_HEADER or head[:4] != b"OggS":
            return position
        table = data[position + _OGG_HEADER : position + _OGG_HEADER + head[26]]
        end = position + _OGG_HEADER + head[26] + sum(table)
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        page = data[position:end]
        if end > len(data) or number != expected.get(stream, number) or _ogg_checksum(page) != page[22:26]:
            return position
        expected[stream], ended[stream] = number + 1, bool(head[5] & _OGG_LAST_PAGE)
        position = end
    return None if all(ended.values()) else len(data)


def _ogg_checksum(page: bytes) -> bytes:
    """CRC-32 of Ogg (most significant bit first, no inversion), by way of zlib's mirrored one."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED_BITS)
    raw = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return raw.to_bytes(4, "big").translate(_REVERSED_BITS)


def _transport_fault(data: mmap.mmap) -> int | None:
    """Position of the first packet without its sync byte, or of a partial last one."""
    for size, lead in ((188, 0), (192, 4), (204, 0)):
        if len(data) > 2 * size and data[lead] == data[lead + size] == data[lead + 2 * size] == _TS_SYNC:
            for position in range(lead, len(data), size):
                if data[position] != _TS_SYNC:
                    return position
            whole = len(data) - len(data) % size
            return None if whole == len(data) else whole
    return None
