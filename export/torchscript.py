"""The tensors of a TorchScript archive, read without running anything that is in it.

FAN-4 is published as such an archive: a zip with a program as text (``code/``), its objects as a pickle
(``data.pkl``) and the bytes of every storage (``data/<key>``); freezing moves tensors to ``constants.pkl``
and ``constants/<key>``. `torch.jit.load` would compile the program. Here it is never opened, and the pickle
is interpreted by a machine that can call nothing (`dubstream.export.script_pickle`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dubstream.engines.errors import CheckpointError
from dubstream.engines.storage import sha256_of, storage_errors
from dubstream.engines.weights import open_checkpoint
from dubstream.export.script_pickle import Instance, Machine, RefusedError

_MAX_PICKLE = 64 << 20  # bytes; the structure of FAN-4 takes below 1 MB
_MAX_DEPTH = 64  # modules inside modules
_MAX_ATTRIBUTES = 100_000  # over all modules; those of a module that is inside several are counted in each
_FROZEN = "constants."
_HINT = "download it again; only tensors are ever read from such a file"


def read_torchscript(path: Path) -> tuple[dict[str, Tensor], str]:
    """The parameters and buffers of a TorchScript archive.

    Args:
        path: a file written by `torch.jit.save`.

    Returns:
        Tensors on the CPU by dotted names, a module's own before those of its parts, and the SHA-256 of
        exactly the bytes they came from. A frozen archive has no names: ``constants.0``, ``constants.1``, ...
        in the file's order.

    Raises:
        CheckpointError: missing, damaged, no such archive, or holding anything but modules of tensors.
            Nothing in the file is executed.
        StorageError: the file cannot be read.
    """
    with open_checkpoint(path) as stream, storage_errors(path, "reading"):
        digest = sha256_of(stream)
        try:
            return _state(stream), digest
        except OSError:
            raise
        # Damaged files make the zip and the pickle reader raise nearly anything.
        except Exception as error:
            why = str(error) if isinstance(error, RefusedError) else f"damaged ({type(error).__name__})"
            raise CheckpointError(f"{path}: not a usable TorchScript archive: {why}", hint=_HINT) from error


def in_order_of(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An archive's tensors under the names of a network.

    Names win. Where the archive has others, its floating-point tensors are taken in order if their number
    and, one by one, their shapes and the last parts of their names are the network's (a frozen archive has no
    names to compare). Counters of training batches that the archive lacks are zero. In all other cases
    `state` comes back as it is, for the strict loader to list what does not fit.

    Args:
        expected: the network's `state_dict()`, in its own order.
        state: what `read_torchscript` gave.
    """
    learned = {name: like for name, like in expected.items() if like.is_floating_point()}
    zeros = {name: torch.zeros_like(like) for name, like in expected.items() if name not in learned}
    if learned.keys() <= state.keys():
        return {**zeros, **state}
    found = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if [_look(name, like) for name, like in learned.items()] == [_look(*entry) for entry in found.items()]:
        return {**zeros, **dict(zip(learned, found.values(), strict=True))}
    frozen = all(name.startswith(_FROZEN) for name in found)
    if frozen and [like.shape for like in learned.values()] == [tensor.shape for tensor in found.values()]:
        return {**zeros, **dict(zip(learned, found.values(), strict=True))}
    return dict(state)


def _look(name: str, tensor: Tensor) -> tuple[str, torch.Size]:
    return name.rsplit(".", 1)[-1], tensor.shape


def _state(stream: BinaryIO) -> dict[str, Tensor]:
    archive = _Archive(stream)
    state = dict(_named(archive.unpickled("data"), count()))
    if state or not archive.has("constants.pkl"):
        return state
    constants = archive.unpickled("constants")
    if not isinstance(constants, tuple):
        raise RefusedError("its constants are no tuple")
    tensors = [value for value in constants if isinstance(value, Tensor)]
    return {f"{_FROZEN}{index}": tensor for index, tensor in enumerate(tensors)}


def _named(module: Any, seen: count[int], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a module: its own, then those of its parts."""
    if not isinstance(module, Instance):
        raise RefusedError(f"its object is a {type(module).__name__}, expected a module")
    if depth > _MAX_DEPTH:
        raise RefusedError("its modules are nested without end")
    parts = []
    for name, value in module.attributes.items():
        if next(seen) > _MAX_ATTRIBUTES:
            raise RefusedError(f"its modules have more than {_MAX_ATTRIBUTES} attributes")
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, Instance):
            parts.append((f"{prefix}{name}.", value))
    for inner, part in parts:
        yield from _named(part, seen, inner, depth + 1)


class _Archive:
    """The entries of a TorchScript zip, below the one folder they are all in; the program is left out."""

    def __init__(self, stream: BinaryIO) -> None:
        if not zipfile.is_zipfile(stream):
            raise RefusedError("it is no zip file")
        size = stream.seek(0, 2)
        self._zip = zipfile.ZipFile(stream)
        entries = self._zip.infolist()
        roots = {entry.filename.partition("/")[0] for entry in entries}
        if len(roots) != 1 or len({entry.filename for entry in entries}) != len(entries):
            raise RefusedError("expected one folder with every entry once")
        self._root = roots.pop()
        self._sizes = {
            entry.filename: entry.file_size
            for entry in entries
            if not entry.filename.startswith(f"{self._root}/code/")
        }
        if sum(self._sizes.values()) > size:
            raise RefusedError(f"its entries claim more than the {size} bytes of the file")
        if self.has("byteorder") and self._bytes("byteorder") != b"little":
            raise RefusedError("it was written on a big-endian machine")

    def has(self, name: str) -> bool:
        return f"{self._root}/{name}" in self._sizes

    def unpickled(self, part: str) -> Any:
        """The value of ``<part>.pkl``, its storages from ``<part>/``."""
        read: dict[tuple[str, torch.dtype, int], Tensor] = {}

        def storage(key: str, dtype: torch.dtype, elements: int) -> Tensor:
            if (key, dtype, elements) not in read:
                found = self._bytes(f"{part}/{key}", elements * dtype.itemsize)
                whole = torch.frombuffer(found, dtype=dtype) if found else torch.empty(0, dtype=dtype)
                read[key, dtype, elements] = whole
            return read[key, dtype, elements]

        return Machine(bytes(self._bytes(f"{part}.pkl", limit=_MAX_PICKLE)), storage).run()

    def _bytes(self, name: str, expected: int | None = None, *, limit: int | None = None) -> bytearray:
        """The entry's bytes; refused when it is not there, not of the expected length, or too long."""
        full = f"{self._root}/{name}"
        if full not in self._sizes:
            raise RefusedError(f"it has no entry '{name:.40}'")
        size = self._sizes[full]
        if (expected is not None and size != expected) or (limit is not None and size > limit):
            wanted = f"at most {limit}" if expected is None else expected
            raise RefusedError(f"'{name:.40}' has {size} bytes, expected {wanted}")
        return bytearray(self._zip.read(full))
