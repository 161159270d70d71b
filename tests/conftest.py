"""Fixtures that several rooms share."""

from __future__ import annotations

import pytest
from real_artifacts import real_artifacts
from trt_checker.fixture import checker

from dubstream.engines.artifact import Artifact

__all__ = ["artifacts", "checker"]


@pytest.fixture(scope="session")
def artifacts() -> dict[str, Artifact]:
    """Verified artifacts of all networks, seeded weights; exported when they are not in the cache."""
    return real_artifacts()
