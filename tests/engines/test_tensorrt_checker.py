"""When the checker may be missing: only where the package index cannot be reached, and never in CI."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from trt_checker import assemble
from trt_checker.assemble import IndexUnreachableError, assembled, download
from trt_checker.fixture import must_have_checker


@pytest.fixture
def dead_index(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # free again, so connections are refused
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.mark.usefixtures("dead_index")
def test_an_index_that_cannot_be_reached_is_told_apart_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(IndexUnreachableError, match=r"Connection refused|NewConnectionError"):
        assembled(tmp_path / "checker")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_package_that_is_not_there_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    with pytest.raises(RuntimeError, match="No matching distribution") as error:
        download(tmp_path / "wheels")
    assert not isinstance(error.value, IndexUnreachableError)


@pytest.mark.parametrize(
    ("variable", "value", "promised"),
    [
        ("CI", "true", True),
        ("DUBSTREAM_REQUIRE_CHECKER", "1", True),
        ("CI", "", False),
        ("CI", "false", False),
    ],
)
def test_where_the_checker_is_promised(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, promised: bool
) -> None:
    for name in ("CI", "DUBSTREAM_REQUIRE_CHECKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    assert must_have_checker() is promised


def test_an_assembled_checker_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.setattr(assemble, "download", lambda into: pytest.fail("downloaded again"))
    assert assembled(tmp_path) == tmp_path
