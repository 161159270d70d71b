"""The note beside a stored plan: what it is, and what its bytes must be.

A manifest is read before anything is deserialised, so it is treated as hostile: bounded size, exact
fields, exact types.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from dubstream.engines.errors import StorageError
from dubstream.engines.facts import canonical, digest_facts
from dubstream.engines.storage import open_plain, storage_errors

MAX_BYTES = 1 << 20
SECRET_BYTES = 32


class ManifestError(ValueError):
    """A manifest that is not well formed, or not ours; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """What is known about a stored plan.

    Attributes:
        key: `EngineKey.as_json` of the plan.
        size, sha256: of the plan's bytes.
        built: UTC time, ISO 8601.
        build_seconds: how long the builder took.
        hmac: HMAC-SHA-256 of all other fields with the installation's key, "" where none is used.
    """

    key: dict[str, Any]
    size: int
    sha256: str
    built: str
    build_seconds: float
    hmac: str = ""

    @property
    def digest(self) -> str:
        """The name under which the plan must lie."""
        return digest_facts(self.key)

    def signed(self, secret: bytes | None) -> Manifest:
        """This manifest with the HMAC under `secret`; unchanged for None."""
        return self if secret is None else replace(self, hmac=self._hmac(secret))

    def check_signature(self, secret: bytes | None) -> None:
        """Raise `ManifestError` unless the HMAC is the one under `secret`; None accepts any."""
        if secret is not None and not hmac.compare_digest(self._hmac(secret), self.hmac):
            raise ManifestError("its HMAC is not that of this installation's key")

    def to_bytes(self) -> bytes:
        """The JSON text."""
        return canonical(asdict(self)) + b"\n"

    def _hmac(self, secret: bytes) -> str:
        return hmac.new(secret, canonical({**asdict(self), "hmac": ""}), hashlib.sha256).hexdigest()


_TYPES = {
    "key": (dict,),
    "size": (int,),
    "sha256": (str,),
    "built": (str,),
    "build_seconds": (int, float),
    "hmac": (str,),
}


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in `raw`; `ManifestError` for anything `Manifest.to_bytes` could not have written."""
    try:
        data = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except (ValueError, RecursionError) as error:
        raise ManifestError("the manifest is not valid JSON") from error
    if not isinstance(data, dict) or set(data) != {field.name for field in fields(Manifest)}:
        raise ManifestError("the manifest has other fields than expected")
    wrong = [name for name, types in _TYPES.items() if type(data[name]) not in types]
    if wrong:
        raise ManifestError(f"the manifest's {', '.join(wrong)} have other types than expected")
    return Manifest(**data)


def read_secret(path: Path) -> bytes:
    """The installation's HMAC key in `path`: 32 random bytes, mode 0600, made now when there is no such file.

    Raises `StorageError` when others may read or write it, it is a link, or it is too short.
    """
    with storage_errors(path, "reading"):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
        with open_plain(path) as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            secret = stream.read()
    if mode & 0o077 or len(secret) < SECRET_BYTES:
        raise StorageError(
            f"HMAC key {path}: received mode {mode:04o} and {len(secret)} bytes, "
            f"expected mode 0600 and at least {SECRET_BYTES} bytes",
            hint=f"delete it to have a new one made (all plans are then built again), or chmod 600 {path}",
        )
    return secret
