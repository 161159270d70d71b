"""The CUDA kernels of the finish, as C++: equal to their references, and at home in their memory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import cv2
import finish_cases
import numpy as np
import pytest

from dubstream.kernels.modules import KernelModules
from dubstream.kernels.parse_mask import FEATHER
from dubstream.kernels.sources import source


@pytest.mark.parametrize(
    "case", finish_cases.CASES + finish_cases.UNSANITIZED, ids=lambda case: case.__name__[5:]
)
def test_finish_equals_its_reference(
    case: Callable[[KernelModules], None], cpu_modules: KernelModules
) -> None:
    case(cpu_modules)


def test_finish_touches_nothing_but_its_memory(
    run_sanitized: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_sanitized(finish_cases.__file__)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{len(finish_cases.CASES)} cases\n"


def test_the_sanitizer_sees_an_overrun_of_a_mask(
    run_sanitized: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_sanitized(finish_cases.__file__, "case_planted_overrun")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_the_blur_is_opencvs() -> None:
    weights = cv2.getGaussianKernel(17, FEATHER, cv2.CV_32F).ravel()[8:]
    text = source("parse_mask")
    written = text[text.index("weights[REACH + 1] = {") :].split("{")[1].split("}")[0]
    np.testing.assert_array_equal(np.array(written.replace("f", "").split(","), np.float32), weights)
