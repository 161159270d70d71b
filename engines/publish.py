"""Small files that appear under their name complete, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dubstream.engines.storage import storage_errors, sync_file

TEMPORARY = ".part-"
"""How names of unfinished files begin."""


def publish(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, wait until it is on disk, then rename it to `path`, mode 0600.

    Raises `StorageError` (disk full, permission, missing folder) and leaves nothing half-written behind.
    """
    with storage_errors(path, "writing", needed=len(content)):
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_file(path.parent)
