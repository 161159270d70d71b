"""The JSON file beside an ONNX file: what it is, what it was made from, how well it was checked.

A sidecar is read from disk before anything else, so it is treated as hostile: bounded size, exact
keys, exact types, finite numbers, and a seal over all of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

FORMAT = 2
"""Raised whenever a reader of the previous format would misunderstand the new one."""

MAX_BYTES = 4 << 20
"""Far above any sidecar (about 6 KB; extra key names can add to it), far below harm."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SOURCE = re.compile(r"seeded:[a-z0-9]{1,40}|checkpoint:[A-Za-z0-9][A-Za-z0-9._-]{0,199}:[0-9a-f]{64}")


class SidecarError(ValueError):
    """A sidecar that is not well formed; the message says which field and what was expected."""


@dataclass(frozen=True)
class FidelityRow:
    """How far one output of the exported network was from its PyTorch original in one test case.

    Attributes:
        case: name of the inputs and their batch, e.g. ``"uniform/3"``.
        output: name of the output.
        max_abs, mean_abs: largest and mean absolute difference, in the output's unit.
        relative_l2: norm of the difference over the norm of the original.
        cosine: cosine similarity of the flattened outputs.
        tolerance_share: max_abs over the tolerance of the spec; at most 1 in a published artifact.
        psnr: peak signal-to-noise ratio in decibels, see `Tolerance`; None where there is no noise at all.
    """

    case: str
    output: str
    max_abs: float
    mean_abs: float
    relative_l2: float
    cosine: float
    tolerance_share: float
    psnr: float | None = None


@dataclass(frozen=True)
class RangeRow:
    """The largest magnitude that one half-precision tensor reached in the range audit.

    Attributes:
        tensor, node: names in the ONNX graph; the node with its operator.
        module: dotted path of the PyTorch module the node came from, "" outside all of them.
        case: the inputs it was reached on.
        max_abs: the magnitude.
    """

    tensor: str
    node: str
    module: str
    case: str
    max_abs: float


@dataclass(frozen=True)
class FileEntry:
    """One file of the artifact: its name inside the folder and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Sidecar:
    """Everything known about an artifact.

    Attributes:
        network, precision: what `NetworkSpec.name` and which numbers; together the file stem.
        recipe, recipe_version: how the precision was reached.
        spec: `NetworkSpec.as_json()` at export time.
        files: the ONNX file first, then external data files.
        sha256: of the bytes of `files`, one after the other.
        source: ``seeded:<salt>`` or ``checkpoint:<file name>:<sha256>``.
        ignored_keys: pattern of checkpoint keys skipped on purpose, and how many there were.
        extra_keys: unexpected checkpoint keys the user chose to accept.
        opset: ONNX operator set.
        tools: versions of the tools that made the file.
        fidelity: one row per test case and output.
        created: UTC time, ISO 8601.
        ranges: the largest of all half-precision tensors, largest first; empty in float32.
    """

    network: str
    precision: str
    recipe: str
    recipe_version: int
    spec: dict[str, Any]
    files: tuple[FileEntry, ...]
    sha256: str
    source: str
    ignored_keys: dict[str, int]
    extra_keys: tuple[str, ...]
    opset: int
    tools: dict[str, str]
    fidelity: tuple[FidelityRow, ...]
    created: str
    ranges: tuple[RangeRow, ...] = ()

    def to_bytes(self) -> bytes:
        """The JSON text, readable by people; SidecarError if it would be larger than `MAX_BYTES`."""
        data = {"format": FORMAT, **asdict(self)}
        data["seal"] = seal(data)
        raw = (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()
        if len(raw) > MAX_BYTES:
            raise SidecarError(f"{len(raw)} bytes, at most {MAX_BYTES} are allowed")
        return raw


def parse_sidecar(raw: bytes) -> Sidecar:
    """The sidecar in `raw`; `SidecarError` for anything that `Sidecar.to_bytes` could not have written."""
    if len(raw) > MAX_BYTES:
        raise SidecarError(f"larger than {MAX_BYTES} bytes")
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"not valid JSON ({str(error)[:120]})") from error
    if not isinstance(data, dict):
        raise SidecarError(f"expected an object, found {_kind(data)}")
    if data.get("format") != FORMAT or isinstance(data["format"], bool):
        raise SidecarError(f"expected format {FORMAT}, found {_short(data.get('format'))}")
    del data["format"]
    checked = _checked(data, {**_SIDECAR_FIELDS, "seal": _matching(_SHA256)}, "sidecar")
    del checked["seal"]
    sidecar = Sidecar(**checked)
    if sidecar.to_bytes() != raw:
        raise SidecarError("changed since it was written (its seal is not that of its content)")
    return sidecar


def seal(data: Mapping[str, Any]) -> str:
    """SHA-256 of a sidecar's other fields, so that no damaged byte of it goes unnoticed."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _refuse_constant(text: str) -> NoReturn:
    raise SidecarError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise SidecarError(f"number out of range: {text[:40]}")
    return value


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _short(value: object) -> str:
    return repr(value)[:80] if isinstance(value, (str, int, float, type(None))) else _kind(value)


_Check = Callable[[Any, str], Any]


def _checked(data: dict[str, Any], checks: dict[str, _Check], where: str) -> dict[str, Any]:
    """`data` with every value checked; keys must be exactly those of `checks`."""
    missing, unknown = sorted(set(checks) - set(data)), sorted(set(data) - set(checks))
    if missing or unknown:
        raise SidecarError(
            f"{where}: missing fields {missing[:5]}, unknown fields {[k[:40] for k in unknown[:5]]}"
        )
    return {key: check(data[key], f"{where}.{key}") for key, check in checks.items()}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise SidecarError(f"{where}: expected a string, found {_kind(value)}")
    return value


def _matching(pattern: re.Pattern[str]) -> _Check:
    def check(value: Any, where: str) -> str:
        if not pattern.fullmatch(_text(value, where)):
            raise SidecarError(f"{where}: {_short(value)} does not match {pattern.pattern}")
        return str(value)

    return check


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SidecarError(f"{where}: expected a count, found {_short(value)}")
    return value


def _number(value: Any, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise SidecarError(f"{where}: expected a number, found {_kind(value)}")
    return float(value)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SidecarError(f"{where}: expected an object, found {_kind(value)}")
    return value


def _mapping(item: _Check) -> _Check:
    return lambda value, where: {
        key: item(entry, f"{where}.{key[:40]}") for key, entry in _object(value, where).items()
    }


def _sequence(item: _Check) -> _Check:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise SidecarError(f"{where}: expected a list, found {_kind(value)}")
        return tuple(item(entry, f"{where}[{index}]") for index, entry in enumerate(value))

    return check


def _record(kind: type, checks: dict[str, _Check]) -> _Check:
    return lambda value, where: kind(**_checked(_object(value, where), checks, where))


def _optional(item: _Check) -> _Check:
    return lambda value, where: None if value is None else item(value, where)


_FIDELITY: dict[str, _Check] = {
    field.name: _text if field.name in ("case", "output") else _number for field in fields(FidelityRow)
} | {"psnr": _optional(_number)}
_RANGE: dict[str, _Check] = {
    field.name: _number if field.name == "max_abs" else _text for field in fields(RangeRow)
}
_SIDECAR_FIELDS: dict[str, _Check] = {
    "network": _matching(_FILE_NAME),
    "precision": _matching(_FILE_NAME),
    "recipe": _text,
    "recipe_version": _count,
    "spec": _object,
    "files": _sequence(_record(FileEntry, {"name": _matching(_FILE_NAME), "size": _count})),
    "sha256": _matching(_SHA256),
    "source": _matching(_SOURCE),
    "ignored_keys": _mapping(_count),
    "extra_keys": _sequence(_text),
    "opset": _count,
    "tools": _mapping(_text),
    "fidelity": _sequence(_record(FidelityRow, _FIDELITY)),
    "created": _text,
    "ranges": _sequence(_record(RangeRow, _RANGE)),
}
