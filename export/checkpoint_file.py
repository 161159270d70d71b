"""Reading a checkpoint file that may be hostile: scanned first, then `torch.load(weights_only=True)` only.

There is no second way of loading on purpose: whatever `weights_only` refuses stays refused.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dubstream.engines.errors import CheckpointError
from dubstream.engines.storage import sha256_of, storage_errors
from dubstream.engines.weights import open_checkpoint

_LEGACY_PICKLES = 4  # magic number, protocol, system information, object
_MAX_SCANNED_BYTES = 64 << 20  # pickled structure without tensors; the public files have below 1 MB


def read_checkpoint(path: Path) -> tuple[Any, str]:
    """Load a file written by `torch.save`, zip or legacy format.

    Returns:
        The unpickled object, tensors on the CPU, and the SHA-256 of exactly the bytes it came from.

    Raises:
        CheckpointError: missing, truncated, no checkpoint, compressed, or holding anything but
            tensors and plain containers. Nothing in the file is executed.
        StorageError: the file cannot be read.
    """
    with open_checkpoint(path) as stream, storage_errors(path, "reading"):
        digest = sha256_of(stream)
        stream.seek(0)
        if zipfile.is_zipfile(stream):
            _check_zip(path, stream)
        stream.seek(0)
        return _load(path, stream), digest


def _check_zip(path: Path, stream: BinaryIO) -> None:
    """Refuse archives that unpack to more than they are."""
    try:
        entries = zipfile.ZipFile(stream).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: damaged zip directory ({error})") from error
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise CheckpointError(f"{path}: expected stored zip entries only, found compressed {packed[0]!r:.80}")
    total, size = sum(entry.file_size for entry in entries), stream.seek(0, 2)
    if total > size:
        raise CheckpointError(f"{path}: zip entries claim {total} bytes, the file has {size}")


def _load(path: Path, stream: BinaryIO) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript files are announced before they are refused
            return torch.load(stream, map_location="cpu", weights_only=True)
    # Damaged files make the unpickler and the zip reader raise nearly anything, KeyError and
    # MemoryError included; none of it says more than that the file is unusable.
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a usable checkpoint: {_reason(path, error)}",
            hint="download it again; files with pickled objects other than tensors are never loaded",
        ) from error


def _reason(path: Path, error: Exception) -> str:
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden is not None:
        key = _key_before(path, forbidden[1])
        return f"it holds a {forbidden[1]}, expected tensors only" + (f", at key {key!r:.120}" if key else "")
    # torch's own advice is to try weights_only=False, which must not be passed on.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = next((line for line in lines if "weights_only" not in line and "torch.load" not in line), "")
    return f"{type(error).__name__}: {detail[:120]}"


def _key_before(path: Path, forbidden: str) -> str | None:
    """The last text pickled before the object called `forbidden`: in a state dict, its key.

    Only reads the opcodes; executes nothing.
    """
    text = None
    try:
        for stream in _pickles(path):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL" and str(argument).replace(" ", ".") == forbidden:
                    return text
                if "UNICODE" in opcode.name:
                    text = str(argument)
    except Exception:  # a help for the message only; the file is refused already
        return None
    return None


def _pickles(path: Path) -> list[Any]:
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            stream.seek(0)
            legacy = io.BytesIO(stream.read(_MAX_SCANNED_BYTES))
            return [legacy] * _LEGACY_PICKLES
        archive = zipfile.ZipFile(stream)
        return [io.BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith("data.pkl")]
