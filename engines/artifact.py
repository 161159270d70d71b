"""Verified artifacts: an ONNX file and its sidecar, opened only when both are what they say.

    lnet.fp32.onnx      the network
    lnet.fp32.json      its sidecar, see `dubstream.engines.sidecar`

The digest is checked before any parser sees the ONNX file: a quarter of randomly damaged ONNX files
would otherwise load and compute wrong values without an error.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.errors import ArtifactError, UsageError
from dubstream.engines.recipe_versions import RECIPE_VERSIONS
from dubstream.engines.sidecar import MAX_BYTES, FileEntry, Sidecar, SidecarError, parse_sidecar
from dubstream.engines.storage import (
    NotPlainFileError,
    open_plain,
    sha256_of,
    storage_errors,
    sync_file,
    write_synced,
)
from dubstream.engines.weights import SEEDED, WeightsChoice


@dataclass(frozen=True)
class Artifact:
    """An ONNX file whose digest, size and spec were found to equal its sidecar.

    Attributes:
        path: the ONNX file.
        spec: the spec it was opened for, equal to the one it was exported for.
        sidecar: everything else known about it.
    """

    path: Path
    spec: NetworkSpec
    sidecar: Sidecar

    @property
    def digest(self) -> str:
        """SHA-256 of the ONNX file and its external data; the identity engines are cached under."""
        return self.sidecar.sha256

    @property
    def source(self) -> str:
        """``seeded:<salt>`` or ``checkpoint:<file name>:<sha256>``."""
        return self.sidecar.source

    @property
    def precision(self) -> str:
        """``fp32`` or the name of another precision recipe."""
        return self.sidecar.precision


def artifact_paths(folder: Path, name: str, precision: str = "fp32") -> tuple[Path, Path]:
    """Paths of the ONNX file and of the sidecar of network `name`."""
    for part in (name, precision):
        if not re.fullmatch(r"[a-z0-9_]{1,40}", part):
            raise UsageError(f"'{part}' cannot be part of an artifact's name, expected a-z, 0-9 and _")
    return folder / f"{name}.{precision}.onnx", folder / f"{name}.{precision}.json"


def remake_hint(
    folder: Path, names: Sequence[str], precision: str = "fp32", choice: WeightsChoice | None = None
) -> str:
    """The command that makes artifacts anew.

    Args:
        folder: where they belong.
        names: of the networks; none means all.
        precision: theirs.
        choice: the weights the user named; None for those the folder's other artifacts were made from.
    """
    words = ["dubstream", "export", *names, "--artifacts", str(folder)]
    words += [] if precision == "fp32" else ["--precision", precision]
    if choice is not None:
        return f"remake it: {shlex.join([*words, *choice.arguments])}"
    return f"remake it: {shlex.join(words)} {_likely_weights(folder)}"


def _likely_weights(folder: Path) -> str:
    """Options for the weights that the sidecars in `folder` name, both where they do not agree."""
    options = {SEEDED: f"--weights {SEEDED}", "checkpoint": "--checkpoints DIR"}
    kinds = {_kind_of_source(path) for path in folder.glob("*.json")}
    likely = [option for kind, option in options.items() if kind in kinds]
    return likely[0] if len(likely) == 1 else f"with {' or '.join(options.values())}"


def _kind_of_source(path: Path) -> str | None:
    try:
        with open_plain(path) as stream:
            return parse_sidecar(stream.read(MAX_BYTES + 1)).source.partition(":")[0]
    except (OSError, NotPlainFileError, SidecarError):  # it is only a hint
        return None


def open_artifact(
    folder: Path, spec: NetworkSpec, precision: str = "fp32", *, remake: str | None = None
) -> Artifact:
    """Verify the artifact of `spec` in `folder` and return it; nothing parses the ONNX file here.

    Args:
        folder, spec, precision: which artifact.
        remake: the hint of errors, where the caller knows more than `remake_hint` does by itself.

    Raises:
        ArtifactError: a file is missing, a link, malformed, of another version, made for another
            spec or by another version of its recipe, or its size or digest differs. The message says which
            file, expected and found.
        StorageError: the files cannot be read.
    """
    onnx_path, sidecar_path = artifact_paths(folder, spec.name, precision)
    refuse = _Refusal(lambda: remake or remake_hint(folder, [spec.name], precision))
    with refuse.opening(sidecar_path) as stream, storage_errors(sidecar_path, "reading"):
        raw = stream.read(MAX_BYTES + 1)
    try:
        sidecar = parse_sidecar(raw)
    except SidecarError as error:
        refuse(sidecar_path, str(error))
    _check_identity(sidecar, spec, precision, sidecar_path, refuse)
    if sidecar.files[0].name != onnx_path.name:
        refuse(sidecar_path, f"expected {onnx_path.name} as first file, found {sidecar.files[0].name}")
    _check_files(folder, sidecar, refuse)
    return Artifact(onnx_path, spec, sidecar)


def digest_files(paths: Sequence[Path], names: Sequence[str]) -> tuple[tuple[FileEntry, ...], str]:
    """The `files` and `sha256` fields of a sidecar for files that will be published under `names`."""
    with ExitStack() as stack, storage_errors(paths[0], "reading"):
        streams = [stack.enter_context(open_plain(path)) for path in paths]
        sizes = [os.fstat(stream.fileno()).st_size for stream in streams]
        entries = tuple(FileEntry(name, size) for name, size in zip(names, sizes, strict=True))
        return entries, sha256_of(*streams)


def publish_artifact(
    tmp_onnx: Path, folder: Path, sidecar: Sidecar, *, external: Sequence[Path] = ()
) -> None:
    """Give temporary files in `folder` their final names, the sidecar last.

    A crash at any moment leaves the previous artifact, or one that `open_artifact` refuses because
    the old sidecar's digest, or no sidecar at all, is beside the new bytes.

    Args:
        tmp_onnx: the ONNX file, on the file system of `folder`.
        sidecar: its `files` and `sha256` as `digest_files` gives them.
        external: external data files, in the order of `sidecar.files[1:]`.

    Raises:
        StorageError: disk full, permission.
    """
    _, sidecar_path = artifact_paths(folder, sidecar.network, sidecar.precision)
    tmp_sidecar = tmp_onnx.with_suffix(".json.part")
    raw = sidecar.to_bytes()
    with storage_errors(sidecar_path, "publishing", needed=len(raw)):
        try:
            write_synced(tmp_sidecar, raw)
            for path, entry in zip((tmp_onnx, *external), sidecar.files, strict=True):
                sync_file(path)
                path.replace(folder / entry.name)
            # The order of two renames is only kept across a power cut when the folder is synced between.
            sync_file(folder)
            tmp_sidecar.replace(sidecar_path)
            sync_file(folder)
        finally:
            tmp_sidecar.unlink(missing_ok=True)


class _Refusal:
    """Raises `ArtifactError`s that name the file and the command that remakes it."""

    def __init__(self, hint: Callable[[], str]) -> None:
        self._hint = hint

    def __call__(self, path: Path, problem: str) -> NoReturn:
        raise ArtifactError(f"{path}: {problem}", hint=self._hint())

    def opening(self, path: Path) -> BinaryIO:
        try:
            return open_plain(path)
        except (FileNotFoundError, NotADirectoryError):
            self(path, "expected an artifact file, found none")
        except NotPlainFileError as error:
            self(path, f"expected a plain file, found something else: {error}")
        except OSError:
            with storage_errors(path, "opening"):
                raise


def _check_identity(
    sidecar: Sidecar, spec: NetworkSpec, precision: str, path: Path, refuse: _Refusal
) -> None:
    found = (sidecar.network, sidecar.precision)
    if found != (spec.name, precision):
        refuse(path, f"expected {spec.name} in {precision}, found {found[0]} in {found[1]}")
    version = RECIPE_VERSIONS.get(sidecar.recipe, sidecar.recipe_version)  # tests and plug-ins have their own
    if sidecar.recipe_version != version:
        made = f"version {sidecar.recipe_version} of recipe {sidecar.recipe}"
        refuse(path, f"made by {made}, expected version {version}")
    expected = spec.as_json()
    if sidecar.spec != expected:
        where, want, got = _first_difference(expected, sidecar.spec, "spec")
        refuse(path, f"exported for another spec: {where} expected {want}, found {got}")
    if not sidecar.files:
        refuse(path, "expected at least one file, found none")


def _first_difference(want: Any, got: Any, where: str) -> tuple[str, str, str]:
    """Place and short texts of the first difference of two unequal JSON values."""
    if isinstance(want, dict) and isinstance(got, dict) and set(want) == set(got):
        key = next(key for key in want if want[key] != got[key])
        return _first_difference(want[key], got[key], f"{where}.{key}")
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        index = next(index for index in range(len(want)) if want[index] != got[index])
        return _first_difference(want[index], got[index], f"{where}[{index}]")
    return where, repr(want)[:80], repr(got)[:80]


def _check_files(folder: Path, sidecar: Sidecar, refuse: _Refusal) -> None:
    with ExitStack() as stack:
        streams = []
        for entry in sidecar.files:
            path = folder / entry.name
            stream = stack.enter_context(refuse.opening(path))
            size = os.fstat(stream.fileno()).st_size
            if size != entry.size:
                refuse(path, f"expected {entry.size} bytes, found {size}")
            streams.append(stream)
        with storage_errors(folder, "reading"):
            digest = sha256_of(*streams)
    if digest != sidecar.sha256:
        refuse(folder / sidecar.files[0].name, f"expected SHA-256 {sidecar.sha256}, found {digest}")
