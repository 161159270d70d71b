"""Compile the CUDA kernels ahead of time, without a GPU and without a toolkit (NVRTC).

    python -m dubstream.kernels.compile            builds every kernel for every architecture below

Cubins are kept in a folder of this user. A file's name holds the digest of everything that went in
(source, architecture, options, compiler version), so a changed kernel is another file; its last 32 bytes
are the digest of what came out, so a damaged file is built again instead of loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dubstream.engines.atomic import publish
from dubstream.engines.cache import cache_root
from dubstream.engines.errors import DubError, UsageError
from dubstream.engines.storage import make_private_folder
from dubstream.kernels import nvrtc
from dubstream.kernels.sources import SUBJECTS, source

ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_120")
# Without contraction into fused multiply-adds the arithmetic is the same, operation by operation, as the
# CPU build's; these kernels wait for memory, not for arithmetic.
OPTIONS = ("--std=c++17", "--fmad=false")
_FORMAT = 1
_DIGEST_BYTES = 32


def architecture_of(compute_capability: tuple[int, int]) -> str:
    """The architecture to load on a device: the nearest prebuilt one that runs there, else the device's own.

    A cubin runs on its own and on later minor versions of the same major version.
    """
    major, minor = compute_capability
    prebuilt = [(int(name[3:-1]), int(name[-1])) for name in ARCHITECTURES]
    fitting = [version for version in prebuilt if version[0] == major and version[1] <= minor]
    chosen = max(fitting, default=(major, minor))
    return f"sm_{chosen[0]}{chosen[1]}"


def cubin(subject: str, architecture: str, *, folder: Path | None = None) -> bytes:
    """The machine code of one subject, from the cache or compiled now.

    Args:
        subject: one of `sources.SUBJECTS`.
        architecture: ``sm_NN``.
        folder: the cache's folder; default is `cubins` in the user's cache.

    Raises:
        UsageError: an architecture this compiler does not know.
        DeviceError: NVRTC is not installed.
        InternalError: the source does not compile; carries the compiler's log.
        StorageError: the cache cannot be written.
    """
    _check_architecture(architecture)
    path = cubin_path(subject, architecture, folder=folder)
    kept = _read(path)
    if kept is not None:
        return kept
    code = nvrtc.compile_cubin(
        source(subject), f"{subject}.cu", [f"--gpu-architecture={architecture}", *OPTIONS]
    )
    make_private_folder(path.parent)
    publish(path, code + hashlib.sha256(code).digest())
    return code


def cubin_path(subject: str, architecture: str, *, folder: Path | None = None) -> Path:
    """Where the cubin is kept; the name changes with everything it is made from."""
    made_from = [_FORMAT, source(subject), architecture, OPTIONS, nvrtc.version()]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
    return (folder or cache_root() / "cubins") / f"{subject}-{architecture}-{key}.cubin"


def build_all(
    architectures: Sequence[str] = ARCHITECTURES, *, folder: Path | None = None
) -> dict[tuple[str, str], bytes]:
    """Every subject for every architecture: (subject, architecture) to cubin."""
    return {
        (subject, name): cubin(subject, name, folder=folder) for name in architectures for subject in SUBJECTS
    }


def _check_architecture(name: str) -> None:
    known = nvrtc.architectures()
    if not re.fullmatch(r"sm_\d+", name) or int(name[3:]) not in known:
        listed = ", ".join(f"sm_{number}" for number in known)
        raise UsageError(f"architecture '{name}' is not one NVRTC compiles for, expected one of {listed}")


def _read(path: Path) -> bytes | None:
    """The cubin in a cache file, or None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: build, list, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dubstream.kernels.compile", description="Build the CUDA kernels."
    )
    parser.add_argument(
        "--arch", action="append", metavar="sm_NN", help=f"default: {' '.join(ARCHITECTURES)}"
    )
    parser.add_argument("--folder", type=Path, help="where to keep them; default: the user's cache")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        built = build_all(options.arch or ARCHITECTURES, folder=options.folder)
    except DubError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for (subject, architecture), code in built.items():
        print(f"{architecture:8} {subject:12} {len(code):8} bytes")
    print(f"{len(built)} cubins in {time.perf_counter() - start:.1f} s, NVRTC {nvrtc.version()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
