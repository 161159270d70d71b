"""Fixtures that several rooms share."""

from trt_checker.fixture import checker

__all__ = ["checker"]
