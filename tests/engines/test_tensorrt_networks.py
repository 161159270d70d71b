"""The real networks through TensorRT's real parser and builder: artifacts in ``$DUBSTREAM_ARTIFACTS``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trt_checker.checker import Checker

from dubstream.engines.artifact import open_artifact
from dubstream.engines.specs import spec_of

FOLDER = Path(os.environ.get("DUBSTREAM_ARTIFACTS", "/nonexistent"))
ARTIFACTS = sorted(path.name.split(".")[:2] for path in FOLDER.glob("*.*.onnx"))

CASTS = {("dnet", "fp32"): 2, ("lnet", "fp32"): 108, ("recon", "fp32"): 0}
"""Launches with a cast fused in, on the checker's plans (in FP32: inside fused norms); more is a storm."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), ARTIFACTS)
def test_a_network_parses_fits_its_spec_and_builds_without_a_cast_storm(
    checker: Checker, name: str, precision: str
) -> None:
    artifact = open_artifact(FOLDER, spec_of(name), precision)
    built = checker.build(artifact.path, artifact.spec)
    assert built.error is None
    assert built.census.pure_casts == 0
    assert (name, precision) in CASTS, (
        f"{built.census.casts} launches with a cast: look at them, write the count down"
    )
    assert built.census.casts <= CASTS[name, precision]
