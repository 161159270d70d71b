"""The only way a media file is opened for reading: real containers, local regular files, known limits."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dubstream.engines.errors import MediaError, StorageError
from dubstream.runtime.media.guard import reading, show
from dubstream.runtime.media.limits import MediaLimits

# Containers that hold coded streams themselves. Left out on purpose: everything that names other files
# or devices (concat, hls, dash, sdp, image2, lavfi, ...) and single pictures.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,ogg,asf,"
    "wav,w64,aiff,au,caf,mp3,flac,aac,ac3,eac3,amr,h264,hevc"
)
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/")
_HEAD_BYTES = 64
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")


def open_media(path: Path, limits: MediaLimits, *, strict: bool = True) -> Any:
    """Open a local file as a PyAV input container; the caller closes it.

    Args:
        path: a regular file. Any legal name works (leading dash, quotes, newline, "file:" and the like).
        limits: `max_pixels` already binds the scan that FFmpeg does while opening.
        strict: let the container's own checksums and contradictions be errors instead of skipped data.

    Raises:
        MediaError: URL, missing, unreadable, empty, not a regular file, a still picture or animation,
            or nothing that one of the admitted containers recognises.
    """
    import av

    absolute = check_regular_file(path)
    _refuse_still_picture(absolute)
    options = {
        "format_whitelist": CONTAINERS,
        "protocol_whitelist": "file",
        "max_pixels": str(limits.max_pixels),
    }
    if strict:
        options["err_detect"] = "crccheck+explode"
    try:
        with reading(path, "open"):
            return av.open(str(absolute), "r", options=options, metadata_errors="replace")
    except MediaError as error:
        raise MediaError(
            f"{show(path)} is not a video or audio file that can be opened: {error.message}",
            hint=_opening_hint(absolute),
        ) from error


@contextmanager
def opened(path: Path, limits: MediaLimits, doing: str, *, strict: bool = True) -> Iterator[Any]:
    """`open_media` that closes, with every foreign exception of the block named after `doing`."""
    container = open_media(path, limits, strict=strict)
    try:
        with reading(path, doing):
            yield container
    finally:
        container.close()


def check_regular_file(path: Path) -> Path:
    """Absolute path of a readable, non-empty regular file; otherwise `MediaError` says what it is instead."""
    if "\0" in str(path):
        raise MediaError(f"{show(path)} holds a NUL character, expected a file name")
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - keeps symlinks and "..", which resolve() follows
    try:
        status = absolute.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(f"{show(path)} is {_kind(status.st_mode)}, expected a regular file")
        with absolute.open("rb"):
            pass
    except OSError as error:
        hint = None
        if _URL.match(str(path)):
            hint = "addresses are not opened: download the file first"
        raise MediaError(f"cannot read {show(path)}: {error.strerror}", hint=hint) from error
    if status.st_size == 0:
        raise MediaError(f"{show(path)} is empty (0 bytes)")
    return absolute


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 lower-case hex digits. Raises `MediaError` as opening does."""
    digest = hashlib.sha256()
    with check_regular_file(path).open("rb") as file:
        try:
            while block := file.read(1 << 20):
                digest.update(block)
        except OSError as error:
            raise StorageError(f"could not read {show(path)}: {error.strerror}") from error
    return digest.hexdigest()


def _refuse_still_picture(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    kind = _picture_kind(head)
    if kind is not None:
        raise MediaError(
            f"{show(path)} is a still picture ({kind}), not a video",
            hint="make a video of it first, for example with: ffmpeg -loop 1 -i PICTURE -t 5 VIDEO.mp4",
        )
    if head.startswith((b"GIF87a", b"GIF89a")):
        raise MediaError(
            f"{show(path)} is a GIF, which is handled as a still picture, not a video",
            hint="convert an animation first, for example with: ffmpeg -i PICTURE.gif VIDEO.mp4",
        )


def _picture_kind(head: bytes) -> str | None:
    signatures = {
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"\xff\xd8\xff": "JPEG",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"\0\0\1\0": "ICO",
    }
    for signature, kind in signatures.items():
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        return head[8:12].decode().upper()
    return None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def _opening_hint(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if _looks_like_text(head):
        return "it is a text file; scripts and playlists are not opened"
    if head[4:8] in (b"ftyp", b"mdat", b"moov", b"wide", b"free"):
        return "an MP4 without its index is usually an interrupted copy or recording: get a complete one"
    return "expected a video or audio file such as .mp4, .mov, .mkv, .avi, .wav, .mp3 or .flac"


def _looks_like_text(head: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head.removeprefix(b"\xef\xbb\xbf"))
