"""TensorRT's real ONNX parser and builder on a machine with neither a GPU nor TensorRT's libraries.

The Python bindings of TensorRT 11.4 (1 MB) are put in front of the libraries of its sibling TensorRT-RTX,
which builds plans on a CPU. The two products lay some C++ classes out differently, so the result is safe for
parsing and building only and must live in a subprocess (`checker.py`); plans it makes are evidence about the
graph, not a product. Nothing of it is ever committed: about 146 MB are downloaded once into a cache folder.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs
from filelock import FileLock

BINDINGS = "tensorrt-cu13-bindings==11.4.0.106"
LIBRARIES = "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"

_LINKS = {
    "libnvinfer.so.11": "libtensorrt_rtx.so.1.7.1",
    "libnvonnxparser.so.11": "libtensorrt_onnxparser_rtx.so.1.7.1",
}
_STUB = (
    "int initLibNvInferPlugins(void *logger, const char *space) { (void)logger; (void)space; return 1; }\n"
)
UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|Failed to establish a new connection|Name or service not known"
    r"|Temporary failure in name resolution|ConnectTimeoutError|ReadTimeoutError|Connection refused"
    r"|Network is unreachable|No route to host|ProxyError"
)


class IndexUnreachableError(RuntimeError):
    """The package index could not be reached: the one reason for which the checker may be missing."""


def cache_folder() -> Path:
    """``$DUBSTREAM_CHECKER``, or a folder of this interpreter in the user's cache."""
    named = os.environ.get("DUBSTREAM_CHECKER")
    if named:
        return Path(named)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    versions = "-".join(pin.rpartition("==")[2] for pin in (BINDINGS, LIBRARIES))
    return Path(platformdirs.user_cache_dir("dubstream-tests")) / f"checker-{versions}-{tag}"


def assembled(folder: Path) -> Path:
    """`folder`, holding an importable ``tensorrt``; made now, by one process only, when it is not there yet.

    Raises `IndexUnreachableError` when the download could not reach its index, RuntimeError for any other
    failure.
    """
    if (folder / "tensorrt").is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "tensorrt").is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".checker-") as scratch:
                made = _make(Path(scratch))
                if folder.is_dir():  # an empty or unfinished folder that the caller named
                    shutil.rmtree(folder)
                made.rename(folder)
    return folder


def _make(scratch: Path) -> Path:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise RuntimeError(f"the checker's wheels exist for Linux on x86_64, this is {platform.platform()}")
    wheels, site = scratch / "wheels", scratch / "site"
    download(wheels)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    bindings, libraries = site / "tensorrt_bindings", site / "onnxruntime_ep_nv_tensorrt_rtx"
    for link, target in _LINKS.items():
        if not (libraries / target).is_file():
            raise RuntimeError(f"{LIBRARIES} does not hold {target}")
        (bindings / link).symlink_to(Path("..") / libraries.name / target)
    _compile_stub(scratch, bindings / "libnvinfer_plugin.so.11")
    (site / "tensorrt").mkdir()
    (site / "tensorrt" / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    return site


def download(into: Path) -> None:
    """Fetch the two wheels with pip; raises as `assembled` does."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries", "1"]
    result = subprocess.run(
        [*command, "--dest", str(into), BINDINGS, LIBRARIES], capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return
    said = (result.stdout + result.stderr).strip()
    kind = IndexUnreachableError if UNREACHABLE.search(said) else RuntimeError
    raise kind(f"pip download of the TensorRT checker failed: {said[-1500:]}")


def _compile_stub(scratch: Path, library: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("the TensorRT checker needs a C compiler (cc, gcc or clang) on PATH")
    source = scratch / "stub.c"
    source.write_text(_STUB)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
