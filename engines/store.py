"""Built plans on disk, and the only way from there to a deserialiser.

A TensorRT plan is executable: it carries GPU kernels and may carry whole libraries, and a damaged one
crashes the process that reads it. So a plan is handed out only after its bytes were found to be those this
installation wrote for exactly the key asked for; anything else is refused with the reason, and built again.

    <root>/                 mode 0700
      <digest of the key>/
        plan                the serialised engine
        manifest.json       key, size, SHA-256, optional HMAC; written last: without it there is no plan
        .lock               stays: deleting a lock that another process waits for would let two in

The SHA-256 finds damage and mix-ups; who may write the folder could forge it. A store shared with others
therefore needs a key file of its own (`secret`), and one without such a key must be writable by nobody else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dubstream.engines.atomic import PARTS, publish
from dubstream.engines.cache import folder_lock
from dubstream.engines.engine_key import EngineKey
from dubstream.engines.errors import ArtifactError, StorageError
from dubstream.engines.manifest import MAX_BYTES, Manifest, ManifestError, parse_manifest, read_secret
from dubstream.engines.storage import (
    NotPlainFileError,
    make_private_folder,
    open_plain,
    storage_error,
    storage_errors,
)

_log = logging.getLogger("dubstream.engines")
PLAN, MANIFEST = "plan", "manifest.json"

REFUSALS = (ManifestError, NotPlainFileError, NotADirectoryError)
"""What `PlanStore.verified` raises for an entry that is there and not as this installation wrote it."""


class PlanRefusedError(ArtifactError):
    """The store holds no plan of this key whose bytes are the ones it wrote."""


class PlanMissingError(PlanRefusedError):
    """The store never held this plan, or it was pruned."""


@dataclass(frozen=True)
class StoredPlan:
    """A plan whose bytes were verified; executors deserialise nothing else.

    Attributes:
        key: what was asked for.
        content: the serialised engine.
        manifest: what is known about it.
        built_because: why it was built in this call, None where it was in the store.
    """

    key: EngineKey
    content: bytes
    manifest: Manifest
    built_because: str | None = None

    def __repr__(self) -> str:
        return f"StoredPlan({self.key.network}, {self.key.digest()[:12]}, {len(self.content)} bytes)"


class PlanStore:
    """The plans in one folder.

    Args:
        root: created with mode 0700 when missing.
        secret: file with the HMAC key of this installation, made when missing; for stores others can write.

    Raises:
        StorageError: the folder cannot be made, or others may write it and there is no `secret`.
    """

    def __init__(self, root: Path, *, secret: Path | None = None) -> None:
        self.root = make_private_folder(root)
        self._secret = None if secret is None else read_secret(secret)
        with storage_errors(root, "reading"):
            facts = root.stat()
        if self._secret is None and (facts.st_mode & 0o022 or facts.st_uid != os.geteuid()):
            raise StorageError(
                f"engine store {root} has mode {stat.S_IMODE(facts.st_mode):04o} and owner {facts.st_uid}, "
                f"expected to be writable by user {os.geteuid()} alone",
                hint=f"chmod 700 {root}, or name a key file with --hmac-key",
            )

    def load(self, key: EngineKey) -> StoredPlan:
        """The verified plan of `key`; never waits for a lock, writes nothing.

        Raises `PlanMissingError` or, with the reason, `PlanRefusedError`.
        """
        try:
            manifest, content = self.verified(key.digest())
        except FileNotFoundError as error:
            raise PlanMissingError(
                f"the engine store {self.root} holds no plan of {key.network} for {key.environment.device}",
                hint=f"dubstream build {key.network}",
            ) from error
        except REFUSALS as error:
            raise PlanRefusedError(
                f"the stored plan of {key.network} is refused: {error}",
                hint=f"dubstream build {key.network} has it remade",
            ) from error
        except OSError as error:
            raise storage_error(self.root / key.digest(), "reading", error) from error
        return StoredPlan(key, content, manifest)

    def obtain(
        self, key: EngineKey, build: Callable[[], bytes], *, on_wait: Callable[[], None] = lambda: None
    ) -> StoredPlan:
        """The plan of `key`, built by `build` when the store has none it can vouch for.

        Of several processes one builds and the others wait (`on_wait` is called once), then load the result.

        Raises:
            RetryError: another process held the lock for too long.
            StorageError: disk full, permission.
        """
        try:
            return self.load(key)
        except PlanRefusedError:
            pass
        folder = self._folder(key.digest())
        with folder_lock(folder, on_wait=on_wait):
            try:
                return self.load(key)
            except PlanRefusedError as error:
                reason = error.message
                level = logging.INFO if isinstance(error, PlanMissingError) else logging.WARNING
                _log.log(level, "building a plan: %s", reason)
            clear(folder)
            started = time.monotonic()
            content = build()
            self._write(folder, key, content, time.monotonic() - started)
            plan = self.load(key)
        return StoredPlan(key, plan.content, plan.manifest, reason)

    def discard(self, key: EngineKey, reason: str) -> None:
        """Delete the plan of `key`, e.g. because TensorRT refused its bytes: they are never tried again."""
        _log.warning("discarding the plan of %s: %s", key.network, reason)
        folder = self._folder(key.digest())
        with folder_lock(folder):
            clear(folder)

    def _folder(self, digest: str) -> Path:
        folder = self.root / digest
        if folder.is_symlink():
            folder.unlink()
        return make_private_folder(folder)

    def manifest(self, digest: str) -> Manifest:
        """The manifest of the entry called `digest`; raises as `verified` does."""
        folder = self.root / digest
        if folder.is_symlink():
            raise NotPlainFileError(f"{folder} is a symbolic link")
        with open_plain(folder / MANIFEST) as stream:
            manifest = parse_manifest(stream.read(MAX_BYTES + 1))
        if manifest.digest != digest:
            raise ManifestError("it was written for another key")
        manifest.check_signature(self._secret)
        return manifest

    def verified(self, digest: str) -> tuple[Manifest, bytes]:
        """Manifest and plan of the entry called `digest`, both checked.

        Raises FileNotFoundError, or one of `REFUSALS`.
        """
        manifest = self.manifest(digest)
        with open_plain(self.root / digest / PLAN) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != manifest.size:
                raise ManifestError(f"expected {manifest.size} bytes, found {size}")
            content = stream.read()
        found = hashlib.sha256(content).hexdigest()
        if found != manifest.sha256:
            raise ManifestError(f"expected SHA-256 {manifest.sha256}, found {found}")
        return manifest, content

    def _write(self, folder: Path, key: EngineKey, content: bytes, seconds: float) -> None:
        manifest = Manifest(
            key=key.as_json(),
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            build_seconds=round(seconds, 3),
        )
        publish(folder / PLAN, content)
        publish(folder / MANIFEST, manifest.signed(self._secret).to_bytes())


def clear(folder: Path) -> None:
    """Delete what an entry holds, the manifest first; the caller holds its lock."""
    with storage_errors(folder, "deleting"):
        for path in [folder / MANIFEST, folder / PLAN, *folder.glob(PARTS)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
