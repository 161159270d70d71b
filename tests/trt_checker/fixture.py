"""The `checker` fixture: TensorRT's real parser and builder, in subprocesses."""

from __future__ import annotations

import os

import pytest
from trt_checker.assemble import IndexUnreachableError, assembled, cache_folder
from trt_checker.checker import Checker


def must_have_checker() -> bool:
    """Whether a missing checker is a failure: wherever the network is promised."""
    promised = ("CI", "DUBSTREAM_REQUIRE_CHECKER")
    return any(os.environ.get(name, "").lower() in ("1", "true") for name in promised)


@pytest.fixture(scope="session")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Checker:
    """The assembled checker. Skips only where the package index cannot be reached, and never in CI."""
    try:
        site = assembled(cache_folder())
    except IndexUnreachableError as error:
        if must_have_checker():
            raise
        pytest.skip(f"the TensorRT checker is not there: {error}")
    return Checker(site, tmp_path_factory.mktemp("checker"))
