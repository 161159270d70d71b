"""Build what the CUDA tests need: the fake driver, and real pycuda linked against it.

pycuda comes as source only. It is compiled once into a cache folder of this interpreter, with CUDA's headers
from two small wheels and a library of one function in the driver's place: neither a toolkit nor a driver is
needed. It is never installed into an environment; tests put the folder on a subprocess's path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs
from filelock import FileLock
from trt_checker.assemble import UNREACHABLE, IndexUnreachableError

PYCUDA = "pycuda==2026.1"
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-profiler-api==13.0.85")  # cuda.h, cudaProfiler.h

HERE = Path(__file__).parent
_C = ("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


class NoCompilerError(RuntimeError):
    """No C or C++ compiler: the other reason, besides the index, for which these tests may be skipped."""


def cache_folder() -> Path:
    """``$DUBSTREAM_PYCUDA``, or a folder of this interpreter in the user's cache."""
    named = os.environ.get("DUBSTREAM_PYCUDA")
    if named:
        return Path(named)
    tag = f"{PYCUDA.replace('==', '-')}-cp{sys.version_info.major}{sys.version_info.minor}"
    return Path(platformdirs.user_cache_dir("dubstream-tests")) / tag


def fake_driver(folder: Path) -> Path:
    """`folder`, holding ``libcuda.so.1`` and ``kernels.so``; compiled now, about a second."""
    hidden = ("-fvisibility=hidden", "-Wl,-soname,libcuda.so.1")
    compile_c([HERE / "model.c", HERE / "driver.c"], folder / "libcuda.so.1", *hidden, "-ldl", "-lpthread")
    compile_c([HERE / "kernels.c"], folder / "kernels.so")
    return folder


def compile_c(sources: list[Path], library: Path, *flags: str) -> None:
    """Compile a shared library; raises `NoCompilerError` or RuntimeError with the compiler's words."""
    command = [_compiler("cc", "gcc", "clang"), *_C, "-o", str(library), *map(str, sources), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{library.name} does not compile: {done.stderr}")


def pycuda_site(folder: Path) -> Path:
    """`folder`, holding an importable pycuda; built now, by one process only, when it is not there yet.

    Raises `IndexUnreachableError` when pip could not reach its index, `NoCompilerError`, and RuntimeError
    for any other failure.
    """
    if (folder / "pycuda").is_dir():
        return folder
    _compiler("g++", "c++")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "pycuda").is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pycuda-") as scratch:
                _build(Path(scratch))
                shutil.rmtree(folder, ignore_errors=True)
                (Path(scratch) / "site").rename(folder)
    return folder


def _build(scratch: Path) -> None:
    _pip("download", "--dest", str(scratch / "wheels"), "--only-binary=:all:", *HEADERS, env=dict(os.environ))
    for wheel in (scratch / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch / "headers")
    stub = scratch / "stub.c"
    stub.write_text("int cuInit(unsigned flags) { (void)flags; return 999; }\n")
    compile_c([stub], scratch / "libcuda.so", "-Wl,-soname,libcuda.so.1")
    # pycuda reads its settings from the home folder; what pip reads there stays where it is.
    (scratch / ".aksetup-defaults.py").write_text(
        "CUDA_ENABLE_CURAND = False\n"
        f"CUDA_INC_DIR = [{str(scratch / 'headers/nvidia/cu13/include')!r}]\n"
        f"CUDADRV_LIB_DIR = [{str(scratch)!r}]\n"
        "CXXFLAGS = ['-O0', '-w']\n"  # the tests wait for the compiler, not for pycuda
    )
    config = os.environ.get("XDG_CONFIG_HOME", str(Path.home() / ".config"))
    settings = {**os.environ, "HOME": str(scratch), "XDG_CONFIG_HOME": config}
    # Without pip's cache: a wheel built for tests must not turn up in somebody's installation.
    _pip(
        "install",
        "--no-cache-dir",
        "--no-binary=pycuda",
        "--target",
        str(scratch / "site"),
        PYCUDA,
        env=settings,
    )


def _pip(verb: str, *arguments: str, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pip", verb, "--no-deps", "--retries", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        kind = IndexUnreachableError if UNREACHABLE.search(said) else RuntimeError
        raise kind(f"pip {verb} of {arguments[-1]} failed: {said[-3000:]}")


def _compiler(*names: str) -> str:
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise NoCompilerError(f"no compiler, expected one of {', '.join(names)} on PATH")
