"""The real networks through TensorRT's real parser and builder."""

from __future__ import annotations

import pytest
from trt_checker.checker import Checker

from dubstream.engines.artifact import Artifact
from dubstream.engines.inspect_model import inspect_model

CASTS = {"dnet": 23, "lnet": 108, "enet": 0, "recon": 0}
"""Launches with a cast fused in, on the checker's float32 plans (inside fused norms); more is a storm."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CASTS)
def test_a_network_parses_fits_its_spec_and_builds_without_a_cast_storm(
    checker: Checker, artifacts: dict[str, Artifact], name: str
) -> None:
    built = checker.build(artifacts[name].path, artifacts[name].spec)
    assert built.error is None
    assert built.census.pure_casts == 0
    assert built.census.casts <= CASTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASTS)
def test_float32_islands_leave_no_trace_in_a_float32_graph(artifacts: dict[str, Artifact], name: str) -> None:
    census = inspect_model(artifacts[name].path)
    assert census.casts == ()
    assert {dtype for _, dtype in census.operators} <= {"float32", "int64", "int32", "bool", "unknown"}
