from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cpu_kernels
import pytest

from dubstream.kernels.launchers import Launchers
from dubstream.kernels.modules import KernelModules


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...]], Path]:
    """Builds the kernels as a C++ library; skips where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: kernels cannot be compared with their references on the CPU")
    return lambda name, flags: cpu_kernels.build(compiler, tmp_path_factory.mktemp(name), flags)


@pytest.fixture(scope="session")
def cpu_modules(compiled: Callable[[str, tuple[str, ...]], Path]) -> KernelModules:
    return cpu_kernels.modules(compiled("plain", cpu_kernels.PLAIN))


@pytest.fixture(scope="session")
def cpu_launchers(cpu_modules: KernelModules) -> Launchers:
    return Launchers(cpu_modules)


@pytest.fixture(scope="session")
def run_sanitized(
    compiled: Callable[[str, tuple[str, ...]], Path],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of cases, all or one, on kernels under the address and undefined-behaviour sanitizers."""
    library = compiled("sanitized", cpu_kernels.SANITIZED)
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    # Python itself never frees everything at its end, so leaks are not looked for.
    setting = {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    setting["PYTHONPATH"] = os.pathsep.join(sys.path)  # helpers above the script's own folder

    def run(script: str, *case: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, str(library), *case]
        return subprocess.run(command, env=os.environ | setting, capture_output=True, text=True)

    return run
