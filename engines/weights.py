"""Where a network's weights come from, without torch: which files, and how a sidecar names them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dubstream.engines.cache import artifact_folder
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import CheckpointError, UsageError
from dubstream.engines.storage import NotPlainFileError, open_plain, sha256_of, storage_errors

SEEDED = "seeded"
SEED_SALT = "retalk"
_GET = "download the public checkpoints, or use --weights seeded to try without"


@dataclass(frozen=True)
class WeightsChoice:
    """The user's choice between trained checkpoints and seeded stand-ins.

    Attributes:
        checkpoints: folder with the public checkpoint files; None for seeded weights.
    """

    checkpoints: Path | None

    @classmethod
    def from_options(cls, checkpoints: Path | None, weights: str | None) -> WeightsChoice:
        """The choice behind ``--checkpoints DIR`` and ``--weights seeded``; UsageError unless it is one."""
        if weights is not None and weights != SEEDED:
            raise UsageError(f"--weights {weights!r}, expected '{SEEDED}'")
        if (checkpoints is None) == (weights is None):
            found = "neither" if weights is None else "both"
            raise UsageError(f"expected one of --checkpoints DIR and --weights {SEEDED}, received {found}")
        return cls(checkpoints)

    @property
    def arguments(self) -> tuple[str, str]:
        """The choice as options of the command line."""
        if self.checkpoints is None:
            return ("--weights", SEEDED)
        return ("--checkpoints", str(self.checkpoints))

    def path_of(self, spec: NetworkSpec) -> Path | None:
        """The network's checkpoint file; None for seeded weights."""
        return None if self.checkpoints is None else self.checkpoints / spec.checkpoint

    def source_of(self, spec: NetworkSpec) -> str:
        """``seeded:<salt>`` or ``checkpoint:<file name>:<sha256>``; reads the whole file.

        Raises:
            CheckpointError: there is no such file.
            StorageError: it cannot be read.
        """
        path = self.path_of(spec)
        if path is None:
            return f"{SEEDED}:{SEED_SALT}"
        with open_checkpoint(path) as stream, storage_errors(path, "reading"):
            return checkpoint_source(path, sha256_of(stream))

    def require_files(self, specs: Sequence[NetworkSpec]) -> None:
        """Raise one `CheckpointError` that lists all files the networks need and the folder lacks."""
        paths = [path for spec in specs if (path := self.path_of(spec)) is not None]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise CheckpointError(f"{self.checkpoints}: expected {', '.join(missing)}, found none", hint=_GET)

    def folder_of(self, spec: NetworkSpec) -> Path:
        """Where the cache keeps the network's artifacts; errors as in `source_of`.

        Each network's folder depends on its own checkpoint only: another one replaces nothing else.
        """
        return artifact_folder(self.identity([spec]))

    def identity(self, specs: Sequence[NetworkSpec]) -> str:
        """A folder name that changes whenever one of the networks' weights does; errors as in `source_of`."""
        if self.checkpoints is None:
            return f"{SEEDED}-{SEED_SALT}"
        self.require_files(specs)
        lines = sorted(f"{spec.name} {self.source_of(spec)}\n" for spec in specs)
        return f"checkpoints-{hashlib.sha256(''.join(lines).encode()).hexdigest()[:32]}"


def checkpoint_source(path: Path, digest: str) -> str:
    """How sidecars name a checkpoint file of SHA-256 `digest`."""
    return f"checkpoint:{path.name}:{digest}"


def open_checkpoint(path: Path) -> BinaryIO:
    """Open a checkpoint file for reading.

    Raises:
        CheckpointError: missing, or no plain file.
        StorageError: not readable.
    """
    try:
        # Checkpoint folders are often made of links into a download cache, so links are followed.
        return open_plain(path.resolve())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{path}: expected a checkpoint file, found none", hint=_GET) from error
    except NotPlainFileError as error:
        raise CheckpointError(f"{path}: expected a checkpoint file, found something else") from error
    except OSError:
        with storage_errors(path, "opening"):
            raise
