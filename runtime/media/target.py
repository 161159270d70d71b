"""Whether the output can be written where it is wanted, asked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dubstream.engines.errors import UsageError
from dubstream.runtime.media.guard import show

MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


def check_output_target(out: Path, inputs: Iterable[Path]) -> None:
    """Raise `UsageError` unless `out` is a name we can create or replace and none of the inputs.

    The folder must exist and be writable; `out` must have a known extension and be no folder, no device
    and no second name (symbolic or hard link) of an input.
    """
    muxer_of(out)
    folder = out.parent
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"the output folder {show(folder)} {what}", hint=f"mkdir -p {show(folder)}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the output folder {show(folder)} is not writable", hint="choose another with -o")
    if not out.exists():
        return
    if not out.is_file():
        raise UsageError(f"output {show(out)} is no regular file", hint="name a file, such as OUT.mp4")
    for source in inputs:
        if source.exists() and out.samefile(source):
            raise UsageError(
                f"output {show(out)} and input {show(source)} are the same file", hint="choose another -o"
            )


def muxer_of(out: Path) -> str:
    """FFmpeg's name of the container for an output name; `UsageError` for an extension we do not write."""
    try:
        return MUXERS[out.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"output {show(out)} ends in '{out.suffix}', expected one of {', '.join(MUXERS)}"
        ) from None
