from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cpu_cases
import cpu_kernels
import pytest

from dubstream.kernels.launchers import Launchers


@pytest.mark.parametrize("case", cpu_cases.CASES, ids=lambda case: case.__name__[5:])
def test_kernel_equals_its_reference(case: Callable[[Launchers], None], cpu_launchers: Launchers) -> None:
    case(cpu_launchers)


@pytest.fixture(scope="module")
def run_sanitized(
    compiled: Callable[[str, tuple[str, ...]], Path],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    library = compiled("sanitized", cpu_kernels.SANITIZED)
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    # Python itself never frees everything at its end, so leaks are not looked for.
    setting = {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}

    def run(*case: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, cpu_cases.__file__, str(library), *case]
        return subprocess.run(command, env=os.environ | setting, capture_output=True, text=True)

    return run


def test_kernels_touch_nothing_but_their_memory(
    run_sanitized: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_sanitized()
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{len(cpu_cases.CASES)} cases\n"


def test_the_sanitizer_sees_a_planted_overrun(
    run_sanitized: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_sanitized("case_planted_overrun")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
