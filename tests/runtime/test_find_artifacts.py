"""Artifacts on the way to a dub: given, cached, or exported by a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from toy_networks import publish_toys

from dubstream.engines.cache import CACHE_VARIABLE, artifact_folder
from dubstream.engines.errors import ArtifactError, DubError, UsageError
from dubstream.engines.recipe_versions import RECIPE_VERSIONS
from dubstream.runtime.artifacts import find_artifacts

PYTHON = sys.executable


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def _exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a script in the place of the interpreter that would run the export."""
    script = tmp_path / "exporter"
    script.write_text(f"#!{PYTHON}\nimport sys\nfolder = sys.argv[sys.argv.index('--artifacts') + 1]\n{body}")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("artifacts", "checkpoints", "weights"),
    [
        (None, None, None),
        (Path("a"), None, "seeded"),
        (None, Path("c"), "seeded"),
        (Path("a"), Path("c"), None),
    ],
)
def test_exactly_one_source_is_wanted(
    artifacts: Path | None, checkpoints: Path | None, weights: str | None
) -> None:
    with pytest.raises(UsageError, match="expected one"):
        find_artifacts(artifacts, checkpoints, weights)


def test_given_artifacts_are_verified_and_never_exported(tmp_path: Path) -> None:
    assert set(find_artifacts(_toys(tmp_path), None, None)) == {"dnet", "lnet", "enet", "recon"}
    with pytest.raises(ArtifactError, match="found none"):
        find_artifacts(tmp_path / "nothing", None, None)


def _toys(tmp_path: Path) -> Path:
    publish_toys(tmp_path / "toys")
    return tmp_path / "toys"


def test_missing_artifacts_are_exported_once_with_progress(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = Path(__file__).resolve().parents[1]
    body = (
        f"sys.path.insert(0, {str(tests)!r})\n"
        "from pathlib import Path\nfrom toy_networks import publish_toys\n"
        'print(\'{"event": "step", "position": 3, "total": 24}\', flush=True)\n'
        "publish_toys(Path(folder))\n"
    )
    _exporter(tmp_path, monkeypatch, body)
    seen: list[tuple[str, int, int]] = []
    found = find_artifacts(None, None, "seeded", progress=lambda *report: seen.append(report))
    assert seen == [("export", 3, 24)]
    assert found["lnet"].path.is_relative_to(cache)
    _exporter(tmp_path, monkeypatch, "sys.exit('must not run again')")
    assert find_artifacts(None, None, "seeded")["lnet"].digest == found["lnet"].digest


def test_artifacts_of_an_older_recipe_are_refused_or_made_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = _toys(tmp_path)
    publish_toys(artifact_folder("seeded-retalk"))
    monkeypatch.setitem(RECIPE_VERSIONS, "toy", 2)
    with pytest.raises(ArtifactError, match="version 1 of recipe toy, expected version 2") as caught:
        find_artifacts(toys, None, None)
    assert f"dubstream export --artifacts {toys} --weights seeded" in str(caught.value.hint)
    _exporter(tmp_path, monkeypatch, 'print(\'{"event": "error", "message": "remaking"}\')\nsys.exit(70)')
    with pytest.raises(DubError, match="remaking"):
        find_artifacts(None, None, "seeded")


def test_a_failed_export_speaks_with_its_own_words_and_code(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _exporter(tmp_path, monkeypatch, 'print(\'{"event": "error", "message": "disk full"}\')\nsys.exit(74)')
    with pytest.raises(DubError, match="disk full") as caught:
        find_artifacts(None, None, "seeded")
    assert caught.value.exit_code == 74
    _exporter(tmp_path, monkeypatch, "sys.exit(9)")
    with pytest.raises(DubError, match="code 9") as caught:
        find_artifacts(None, None, "seeded")
    assert caught.value.exit_code == 70


def test_without_torch_the_next_command_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"dubstream\[export\]"):
        find_artifacts(None, None, "seeded")
