from __future__ import annotations

import subprocess
from collections.abc import Callable

import cpu_cases
import pytest

from dubstream.kernels.launchers import Launchers


@pytest.mark.parametrize("case", cpu_cases.CASES, ids=lambda case: case.__name__[5:])
def test_kernel_equals_its_reference(case: Callable[[Launchers], None], cpu_launchers: Launchers) -> None:
    case(cpu_launchers)


def test_kernels_touch_nothing_but_their_memory(
    run_sanitized: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_sanitized(cpu_cases.__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{len(cpu_cases.CASES)} cases\n"


def test_the_sanitizer_sees_a_planted_overrun(
    run_sanitized: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_sanitized(cpu_cases.__file__, "case_planted_overrun")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
