"""Units on disk: finished means digest and identity fit; anything else is made again."""

import json
import os
from pathlib import Path

import pytest

from dubstream.engines.errors import StorageError
from dubstream.engines.facts import digest_facts
from dubstream.runtime.units.unit_folder import UnitFolder


@pytest.fixture
def folder(tmp_path: Path) -> UnitFolder:
    return UnitFolder(tmp_path / "work", "identity")


def _make(folder: UnitFolder, name: str = "a.bin", content: bytes = b"pixels") -> None:
    facts = {"frames": 3}
    with folder.making(name, facts) as path:
        path.write_bytes(content)
        facts["bytes"] = len(content)


def test_a_unit_is_finished_after_its_block(folder: UnitFolder) -> None:
    assert folder.finished("a.bin") is None
    _make(folder)
    assert folder.finished("a.bin") == {"frames": 3, "bytes": 6}
    assert folder.path("a.bin").read_bytes() == b"pixels"


def test_an_exception_leaves_nothing(folder: UnitFolder) -> None:
    def fail() -> None:
        with folder.making("a.bin", {}) as path:
            path.write_bytes(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(folder.folder.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda unit, sidecar: unit.write_bytes(b"pixelz"),
        lambda unit, sidecar: unit.write_bytes(b"pixels!"),
        lambda unit, sidecar: unit.unlink(),
        lambda unit, sidecar: sidecar.unlink(),
        lambda unit, sidecar: sidecar.write_text("{"),
        lambda unit, sidecar: sidecar.write_text("[" * 100_000),
        lambda unit, sidecar: sidecar.write_text(json.dumps({"schema": 1})),
        lambda unit, sidecar: sidecar.write_bytes(b"\xff\xfe"),
    ],
)
def test_damage_means_not_finished(folder: UnitFolder, damage) -> None:  # type: ignore[no-untyped-def]
    _make(folder)
    damage(folder.path("a.bin"), folder.folder / "a.bin.json")
    assert folder.finished("a.bin") is None
    _make(folder)
    assert folder.finished("a.bin") is not None


def test_clearing_leaves_only_what_is_no_unit(folder: UnitFolder) -> None:
    _make(folder)
    (folder.folder / ".lock").touch()
    folder.clear()
    assert [path.name for path in folder.folder.iterdir()] == [".lock"]
    assert folder.finished("a.bin") is None


def test_a_unit_of_another_identity_is_not_finished(folder: UnitFolder) -> None:
    _make(folder)
    assert UnitFolder(folder.folder, "other").finished("a.bin") is None


def test_leftovers_of_dead_processes_are_swept_and_of_living_ones_kept(folder: UnitFolder) -> None:
    dead = folder.folder / ".dubstream-0123456789ab.4194999.part"
    living = folder.folder / f".dubstream-0123456789ab.{os.getpid()}.part"
    dead.write_bytes(b"x")
    living.write_bytes(b"x")
    UnitFolder(folder.folder, "identity")
    assert not dead.exists()
    assert living.exists()


def test_a_full_disk_is_a_storage_error(folder: UnitFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        _make(folder)
    assert list(folder.folder.iterdir()) == []


def test_equal_facts_have_equal_keys_whatever_their_order() -> None:
    assert digest_facts({"a": 1, "b": [2]}) == digest_facts({"b": [2], "a": 1})
    assert digest_facts({"a": 1}) != digest_facts({"a": 2})
