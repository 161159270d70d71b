from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cpu_kernels
import pytest

from dubstream.kernels.launchers import Launchers


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...]], Path]:
    """Builds the kernels as a C++ library; skips where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: kernels cannot be compared with their references on the CPU")
    return lambda name, flags: cpu_kernels.build(compiler, tmp_path_factory.mktemp(name), flags)


@pytest.fixture(scope="session")
def cpu_launchers(compiled: Callable[[str, tuple[str, ...]], Path]) -> Launchers:
    return Launchers(cpu_kernels.modules(compiled("plain", cpu_kernels.PLAIN)))
