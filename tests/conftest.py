"""Fixtures that several rooms share."""

from __future__ import annotations

import signal

import pytest
from real_artifacts import real_artifacts
from trt_checker.fixture import checker

from dubstream.engines.artifact import Artifact

__all__ = ["artifacts", "checker"]


def pytest_configure() -> None:
    """Ctrl-C as on a terminal. What a script starts in the background has it ignored, children included."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def artifacts() -> dict[str, Artifact]:
    """Verified artifacts of all networks, seeded weights; exported when they are not in the cache."""
    return real_artifacts()
