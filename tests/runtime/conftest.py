"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_cuda.fixture import fake_cuda_child, fake_cuda_folders, kernels
from streaming_parts import our_threads

__all__ = ["fake_cuda_child", "fake_cuda_folders", "kernels", "no_threads_left"]


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """After the test, no thread of a streamer or device is alive."""
    yield
    assert our_threads() == []
