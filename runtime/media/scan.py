"""Where every frame of a video lies in time, without decoding where the container can be trusted."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import LimitError, MediaError, TruncatedMediaError
from dubstream.runtime.media.decoding import decode
from dubstream.runtime.media.guard import TRUNCATED_HINT, show
from dubstream.runtime.media.limits import MediaLimits

# Containers whose packet time stamps are the frames' own, and codecs with one shown frame per packet.
_INDEXED_CONTAINERS = {"mov", "mp4", "matroska", "webm"}
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "av1", "libdav1d", "vp9", "prores", "dnxhd", "ffv1", "mjpeg"}
_PROGRESSIVE = (0, 1)  # AV_FIELD_UNKNOWN, AV_FIELD_PROGRESSIVE: a field of its own packet is not a frame
_MOST_PER_SECOND = 1000
_MEDIA_END_SLACK_S = Fraction(1, 10)  # audio frames of unknown duration


@dataclass(frozen=True)
class FrameIndex:
    """Frames of one video stream in presentation order.

    Attributes:
        pts: int64 time stamps in stream ticks, strictly ascending.
        end: when the last frame stops being shown, in ticks.
        key_pts: int64 time stamps of the frames that decoding can start at; empty when the reader
            must always decode from the file's beginning.
        key_dts: int64 decode time stamps of the same frames: what to seek to.
        lost: frames that the file promises and decoding does not give; 0 unless damage was allowed.
    """

    pts: npt.NDArray[np.int64]
    end: int
    key_pts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    key_dts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    lost: int = 0

    @property
    def seekable(self) -> bool:
        """Whether frames are found by time stamp after a seek, rather than by counting from the start."""
        return len(self.key_pts) > 0


@dataclass
class PacketScan:
    """Video packets of one pass over a file; those outside the edit list are only counted.

    Attributes:
        pts, durations: of the shown packets with a pts in file order, in stream ticks.
        dts: of all shown packets with a dts, same order and units.
        keys: (pts, dts) of the packets that decoding can start at.
        discarded, untimed, corrupt: numbers of packets that are not shown, have no pts, are flagged damaged.
        media_end_s: latest end of any packet of any stream, seconds.
    """

    pts: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    keys: list[tuple[int, int]] = field(default_factory=list)
    discarded: int = 0
    untimed: int = 0
    corrupt: int = 0
    media_end_s: Fraction = Fraction(0)

    @property
    def shown(self) -> int:
        """Packets that should each give a frame."""
        return len(self.pts) + self.untimed


def scan_packets(container: Any, stream: Any, limits: MediaLimits, *, strict: bool) -> PacketScan:
    """Read all packets once. Not strict: a demuxer that fails ends the scan.

    Raises:
        LimitError: more frames than `max_frames`, promised or found.
    """
    limits.check_most("max_frames", stream.frames, "frames promised by the video's header")
    scan = PacketScan()
    try:
        for packet in container.demux():
            if packet.size > 0:  # the flush packets at the end are empty
                _note_packet(scan, packet, stream)
                limits.check_most("max_frames", scan.shown, "frames in the video")
    except LimitError:
        raise
    except Exception:
        if strict:
            raise
    return scan


def packet_index(
    scan: PacketScan, container: Any, stream: Any, path: Path, limits: MediaLimits
) -> FrameIndex | None:
    """Index from the packets alone, or None when only decoding can tell the frames.

    Raises:
        TruncatedMediaError: fewer packets than the header promises, or an end before the declared one.
        LimitError: longer than `max_duration_s`.
    """
    _check_complete(scan, container, stream, path)
    if not _trustworthy(scan, container, stream):
        return None
    file_order = np.asarray(scan.pts, dtype=np.int64)
    order = np.argsort(file_order)
    pts = file_order[order]
    keys = np.asarray(sorted(scan.keys), dtype=np.int64).reshape(-1, 2)
    end = int(pts[-1]) + _last_duration(pts, scan.durations[int(order[-1])], stream)
    _check_duration(pts, end, stream, limits)
    return FrameIndex(pts, end, keys[:, 0].copy(), keys[:, 1].copy())


def decoded_index(
    scan: PacketScan, container: Any, stream: Any, path: Path, limits: MediaLimits, *, strict: bool
) -> FrameIndex:
    """Index from decoding the whole file once, without converting colours.

    Frames keep the decoder's order. Where their time stamps do not ascend (AVI stores none), the packets'
    decode times in ascending order stand in; failing that, a bad stamp becomes the previous one plus a tick.

    Raises:
        MediaError: no frame decodes.
        TruncatedMediaError: strict, and the stream is damaged or gives fewer frames than promised.
        LimitError: too many frames, or longer than `max_duration_s`.
    """
    raw: list[int | None] = []
    last_duration = 0
    for frame in decode(container, stream, path, strict=strict):
        raw.append(frame.pts)
        last_duration = frame.duration or 0
        limits.check_most("max_frames", len(raw), "frames decoded")
    if not raw:
        raise MediaError(f"{show(path)} holds no frame that can be decoded (0 frames)")
    lost = max(0, _promised(scan, container, stream, strict=strict) - len(raw))
    if strict and lost:
        raise TruncatedMediaError(
            f"{show(path)} decodes to {len(raw)} frames, its header promises {len(raw) + lost}",
            hint=TRUNCATED_HINT,
        )
    stamps = _ascending(raw, scan.dts)
    end = int(stamps[-1]) + _last_duration(stamps, last_duration, stream)
    _check_duration(stamps, end, stream, limits)
    return FrameIndex(stamps, end, lost=lost)


def _ascending(raw: list[int | None], dts: array[int]) -> npt.NDArray[np.int64]:
    if not _strictly_ascending(raw) and len(dts) == len(raw) and _strictly_ascending(sorted(dts)):
        return np.asarray(sorted(dts), dtype=np.int64)
    stamps: list[int] = []
    for stamp in raw:
        least = stamps[-1] + 1 if stamps else 0
        stamps.append(least if stamp is None else max(stamp, least) if stamps else stamp)
    return np.asarray(stamps, dtype=np.int64)


def _strictly_ascending(stamps: Sequence[int | None]) -> bool:
    return all(a is not None and b is not None and a < b for a, b in pairwise(stamps))


def _note_packet(scan: PacketScan, packet: Any, stream: Any) -> None:
    duration = packet.duration or 0
    if packet.pts is not None and packet.time_base:
        scan.media_end_s = max(scan.media_end_s, (packet.pts + duration) * packet.time_base)
    if packet.stream_index != stream.index:
        return
    scan.corrupt += bool(packet.is_corrupt)
    if packet.is_discard:
        scan.discarded += 1
        return
    if packet.dts is not None:
        scan.dts.append(packet.dts)
    if packet.pts is None:
        scan.untimed += 1
    else:
        scan.pts.append(packet.pts)
        scan.durations.append(duration)
        if packet.is_keyframe:
            scan.keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))


def _check_complete(scan: PacketScan, container: Any, stream: Any, path: Path) -> None:
    if scan.shown == 0:
        raise MediaError(f"{show(path)} has a video stream without a single frame (0 frames)")
    found = scan.shown + scan.discarded
    if scan.corrupt:
        raise TruncatedMediaError(f"{show(path)} holds {scan.corrupt} damaged packets", hint=TRUNCATED_HINT)
    if stream.frames > found:
        raise TruncatedMediaError(
            f"{show(path)} holds {found} frames, its header promises {stream.frames}", hint=TRUNCATED_HINT
        )
    if "matroska" in container.format.name and container.duration:
        declared_s = Fraction(max(container.start_time or 0, 0) + container.duration, 1_000_000)
        if scan.media_end_s + _MEDIA_END_SLACK_S < declared_s:
            raise TruncatedMediaError(
                f"{show(path)} ends at {float(scan.media_end_s):.2f} s, "
                f"its header promises {float(declared_s):.2f} s",
                hint=TRUNCATED_HINT,
            )


def _trustworthy(scan: PacketScan, container: Any, stream: Any) -> bool:
    stamps = scan.pts
    return (
        not scan.untimed
        and len(set(stamps)) == len(stamps)
        and bool(scan.keys)
        and min(stamps) == scan.keys[0][0]
        and _in_indexed_container(container)
        and _one_frame_per_packet(stream)
    )


def _promised(scan: PacketScan, container: Any, stream: Any, *, strict: bool) -> int:
    # Outside indexed containers a capture may begin before its first key frame: those packets are no loss.
    promised: int = stream.frames - scan.discarded
    if _one_frame_per_packet(stream) and (not strict or _in_indexed_container(container)):
        promised = max(promised, scan.shown)
    if not strict and not stream.frames and container.duration and _in_indexed_container(container):
        expected = Fraction(container.duration, 1_000_000) * (stream.average_rate or 0)
        promised = max(promised, round(expected))  # Matroska counts no frames
    return promised


def _in_indexed_container(container: Any) -> bool:
    return not _INDEXED_CONTAINERS.isdisjoint(container.format.name.split(","))


def _one_frame_per_packet(stream: Any) -> bool:
    context = stream.codec_context
    return bool(context.name in _ONE_FRAME_PER_PACKET and context.field_order in _PROGRESSIVE)


def _last_duration(pts: npt.NDArray[np.int64], duration: int, stream: Any) -> int:
    if duration > 0:
        return duration
    if len(pts) > 1:
        return max(1, int(np.median(np.diff(pts))))
    ticks = 1 / ((stream.guessed_rate or Fraction(25)) * stream.time_base)
    return max(1, round(float(ticks)))


def _check_duration(pts: npt.NDArray[np.int64], end: int, stream: Any, limits: MediaLimits) -> None:
    seconds = (end - int(pts[0])) * stream.time_base
    if len(pts) > _MOST_PER_SECOND * seconds + 1:
        raise MediaError(
            f"{len(pts)} frames in {float(seconds):.6f} s, expected at most {_MOST_PER_SECOND} a second",
            hint="the time stamps of the video are damaged",
        )
    limits.check_most("max_duration_s", seconds, "seconds of video")
