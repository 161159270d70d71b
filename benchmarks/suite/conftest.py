"""Inputs that several benchmarks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def frame() -> np.ndarray[Any, Any]:
    """A smooth 720p picture with a little noise, uint8 BGR."""
    height, width = 720, 1280
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(rows / (60 + 20 * k)) * np.cos(columns / (80 + 10 * k)) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    return np.clip(np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8)
