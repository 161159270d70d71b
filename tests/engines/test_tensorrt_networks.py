"""The real networks through TensorRT's real parser and builder."""

from __future__ import annotations

import pytest
from trt_checker.checker import Checker

from dubstream.engines.artifact import Artifact

CASTS = {"dnet": 2, "lnet": 108, "enet": 0, "recon": 0}
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
