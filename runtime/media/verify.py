"""Checks of files we wrote ourselves, by opening them again.

FFmpeg does not report every failed write when it closes a file, so nothing is believed unread.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from dubstream.engines.errors import InternalError, MediaError, StorageError
from dubstream.runtime.media.extent import check_extent
from dubstream.runtime.media.guard import show
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import opened

# Our own output may be as large as its source was allowed to be.
_OWN = MediaLimits(max_pixels=2**31 - 1, max_frames=2**31 - 1)


@dataclass(frozen=True)
class StreamFacts:
    """One stream of a finished file: number of packets, and where it ends in seconds (starting at 0)."""

    packets: int
    end_s: Fraction


def check_segment(path: Path, frames: int) -> None:
    """Raise `StorageError` unless the file is complete and holds `frames` frames."""
    found = _facts(path).get("video")
    if found is None or found.packets != frames:
        count = 0 if found is None else found.packets
        raise StorageError(
            f"{show(path)} holds {count} frames after writing {frames}", hint="is the disk full or failing?"
        )


def check_output(
    path: Path, frames: int, rate: Fraction, *, has_audio: bool, untrimmed_s: Fraction = Fraction(0)
) -> dict[str, StreamFacts]:
    """Check a finished output and return its streams by kind ("video", "audio").

    Args:
        untrimmed_s: seconds of padding in the last audio packet that the container does not mark as such.

    Raises:
        StorageError: the file is incomplete.
        InternalError: decode times that do not ascend, or audio and video whose lengths differ by a frame.
    """
    facts = _facts(path)
    found = facts["video"].packets if "video" in facts else 0
    if found != frames or has_audio != ("audio" in facts):
        raise StorageError(
            f"{show(path)} holds {found} frames and {'an' if 'audio' in facts else 'no'} audio stream, "
            f"expected {frames} frames and {'an' if has_audio else 'no'} audio stream",
            hint="is the disk full or failing?",
        )
    if has_audio:
        difference = abs(facts["video"].end_s - facts["audio"].end_s)
        if difference >= 1 / rate + untrimmed_s:
            raise InternalError(
                f"audio and video of {show(path)} differ by {float(difference):.3f} s, a frame or more"
            )
    return facts


def _facts(path: Path) -> dict[str, StreamFacts]:
    try:
        check_extent(path)
        with opened(path, _OWN, "check") as container:
            return _read_facts(container, path)
    except MediaError as error:
        raise StorageError(f"{show(path)} cannot be read back: {error.message}") from error


def _read_facts(container: Any, path: Path) -> dict[str, StreamFacts]:
    counts: dict[int, int] = {}
    ends: dict[int, Fraction] = {}
    last_dts: dict[int, int] = {}
    for packet in container.demux():
        if packet.size == 0:
            continue
        index = packet.stream_index
        if packet.pts is None or packet.dts is None or packet.dts <= last_dts.get(index, packet.dts - 1):
            raise InternalError(f"{show(path)} has a decode time that does not ascend at {packet.dts}")
        last_dts[index] = packet.dts
        counts[index] = counts.get(index, 0) + 1
        end = (packet.pts + (packet.duration or 0)) * packet.time_base
        ends[index] = max(ends.get(index, end), end)
    return {
        str(stream.type): StreamFacts(counts[stream.index], ends[stream.index])
        for stream in container.streams
        if stream.index in counts
    }
