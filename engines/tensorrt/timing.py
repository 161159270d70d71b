"""The timing cache: measured kernel times, kept between builds on one device and TensorRT version."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from dubstream.engines.atomic import publish

_log = logging.getLogger("dubstream.tensorrt")
_DIGEST_BYTES = hashlib.sha256().digest_size


def attach(config: Any, file: Path) -> None:
    """Give `config` the timings saved in `file`, or none where it is missing, damaged or of another device.

    The file starts with the SHA-256 of the rest, so that TensorRT never parses a damaged one.
    """
    cache = config.create_timing_cache(_saved(file))
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        _log.warning(
            "timing cache %s is not of this device and TensorRT version: starting an empty one", file
        )
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def save(config: Any, file: Path) -> None:
    """Write the timings of `config` to `file`; the last of several builds wins, which costs time only."""
    cache = config.get_timing_cache()
    blob = b"" if cache is None else bytes(cache.serialize())
    if blob:
        publish(file, hashlib.sha256(blob).digest() + blob)


def _saved(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return b""
    digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(blob).digest() == digest:
        return blob
    _log.warning("timing cache %s is damaged: starting an empty one", file)
    return b""
