"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

from fake_cuda.fixture import fake_cuda_child, fake_cuda_folders, kernels

__all__ = ["fake_cuda_child", "fake_cuda_folders", "kernels"]
