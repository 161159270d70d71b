"""Plans are handed out only when they are what this installation wrote for the key asked for."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dubstream.engines.cache import folder_lock
from dubstream.engines.engine_key import EngineKey, Environment
from dubstream.engines.errors import StorageError
from dubstream.engines.store import PlanMissingError, PlanRefusedError, PlanStore
from dubstream.engines.store_upkeep import entries, prune

SPAWN = multiprocessing.get_context("spawn")
ENVIRONMENT = Environment(
    tensorrt="11.4.0.106",
    parser="110400",
    cuda="13.0",
    driver="580",
    device="NVIDIA H200",
    compute_capability="9.0",
    multiprocessors=132,
    platform="linux-x86_64",
)
KEY = EngineKey("lnet", "a" * 64, "fp16 1", {"profiles": [[1, 8, 16]], "tf32": False}, ENVIRONMENT)
OTHER = replace(KEY, network="enet", onnx_sha256="b" * 64)
PLAN = b"a plan" * 1000


def filled(root: Path, **options: Any) -> PlanStore:
    store = PlanStore(root / "engines", **options)
    store.obtain(KEY, lambda: PLAN)
    return store


def never() -> bytes:
    raise AssertionError("built although the store had the plan")


def entry(store: PlanStore, key: EngineKey = KEY) -> Path:
    return store.root / key.digest()


def test_a_plan_is_built_once_and_comes_back_verified(tmp_path: Path) -> None:
    first = PlanStore(tmp_path / "engines").obtain(KEY, lambda: PLAN)
    assert first.built_because is not None
    assert "holds no plan of lnet" in first.built_because
    again = PlanStore(tmp_path / "engines").obtain(KEY, never)
    assert (again.content, again.built_because) == (PLAN, None)
    assert again.manifest.key == KEY.as_json()


def test_store_and_entries_are_private(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert store.root.stat().st_mode & 0o777 == 0o700
    assert entry(store).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in entry(store).iterdir() if path.name != ".lock"} == {0o600}


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "c" * 64},
        {"recipe": "fp16 2"},
        {"options": {"profiles": [[1, 8, 32]], "tf32": False}},
        {"options": {"profiles": [[1, 8, 16]], "tf32": True}},
        {"schema": 2},
        *(
            {"environment": replace(ENVIRONMENT, **{name: value})}
            for name, value in {
                "tensorrt": "11.4.0.107",
                "parser": "110401",
                "cuda": "13.1",
                "driver": "590",
                "device": "NVIDIA H100",
                "compute_capability": "9.1",
                "multiprocessors": 114,
                "platform": "linux-aarch64",
                "plugins": (("libplugin.so", "d" * 64),),
            }.items()
        ),
    ],
)
def test_whatever_changes_the_plan_changes_the_key(tmp_path: Path, change: dict[str, Any]) -> None:
    store = filled(tmp_path)
    changed = replace(KEY, **change)
    assert changed.digest() != KEY.digest()
    with pytest.raises(PlanMissingError):
        store.load(changed)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def link(path: Path) -> None:
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)


TAMPERINGS = {
    "one bit of the plan": (lambda folder: flip(folder / "plan"), "expected SHA-256"),
    "truncated plan": (
        lambda folder: (folder / "plan").write_bytes(PLAN[:-1]),
        "expected 6000 bytes, found 5999",
    ),
    "empty plan": (lambda folder: (folder / "plan").write_bytes(b""), "found 0"),
    "plan behind a link": (lambda folder: link(folder / "plan"), "symbolic link"),
    "manifest behind a link": (lambda folder: link(folder / "manifest.json"), "symbolic link"),
    "plan is a folder": (
        lambda folder: ((folder / "plan").unlink(), (folder / "plan").mkdir()),
        "not a plain file",
    ),
    "manifest is no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "not valid JSON"),
    "manifest is a list": (lambda folder: (folder / "manifest.json").write_text("[]"), "other fields"),
    "manifest too deep": (
        lambda folder: (folder / "manifest.json").write_text("[" * 99999),
        "not valid JSON",
    ),
    "manifest too large": (
        lambda folder: (folder / "manifest.json").write_text(" " * (2 << 20)),
        "other fields",
    ),
    "size is text": (lambda folder: edit(folder / "manifest.json", size="6000"), "other types"),
    "unknown field": (lambda folder: edit(folder / "manifest.json", more=1), "other fields"),
    "another key": (
        lambda folder: edit(folder / "manifest.json", key=OTHER.as_json()),
        "written for another key",
    ),
    "manifest missing": (lambda folder: (folder / "manifest.json").unlink(), "holds no plan"),
    "plan missing": (lambda folder: (folder / "plan").unlink(), "holds no plan"),
}


@pytest.mark.parametrize("case", TAMPERINGS)
def test_a_tampered_entry_is_refused_and_built_again_saying_why(tmp_path: Path, case: str) -> None:
    tamper, reason = TAMPERINGS[case]
    store = filled(tmp_path)
    tamper(entry(store))
    with pytest.raises(PlanRefusedError, match=reason):
        store.load(KEY)
    rebuilt = store.obtain(KEY, lambda: b"a new plan")
    assert rebuilt.content == b"a new plan"
    assert rebuilt.built_because is not None
    assert reason in rebuilt.built_because
    assert store.load(KEY).content == b"a new plan"


def test_swapped_entries_are_refused(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.obtain(OTHER, lambda: b"another plan")
    aside = tmp_path / "aside"
    entry(store).rename(aside)
    entry(store, OTHER).rename(entry(store))
    aside.rename(entry(store, OTHER))
    for key in (KEY, OTHER):
        with pytest.raises(PlanRefusedError, match="another key"):
            store.load(key)


def test_an_entry_behind_a_link_is_not_followed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    entry(store).rename(tmp_path / "elsewhere")
    entry(store).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlanRefusedError, match="symbolic link"):
        store.load(KEY)
    assert store.obtain(KEY, lambda: b"new").content == b"new"
    assert not entry(store).is_symlink()
    assert (tmp_path / "elsewhere" / "plan").read_bytes() == PLAN


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702])
def test_a_store_others_can_write_needs_a_key(tmp_path: Path, mode: int) -> None:
    root = filled(tmp_path).root
    root.chmod(mode)
    with pytest.raises(StorageError, match=f"{mode:04o}"):
        PlanStore(root)
    shared = PlanStore(root, secret=tmp_path / "key")
    with pytest.raises(PlanRefusedError, match="HMAC"):
        shared.load(KEY)  # it was written before there was a key


def test_only_plans_signed_with_this_installations_key_are_handed_out(tmp_path: Path) -> None:
    mine = filled(tmp_path, secret=tmp_path / "mine")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
    assert PlanStore(mine.root, secret=tmp_path / "mine").load(KEY).content == PLAN
    with pytest.raises(PlanRefusedError, match="HMAC"):
        PlanStore(mine.root, secret=tmp_path / "theirs").load(KEY)


def test_a_forged_but_consistent_entry_fails_its_hmac(tmp_path: Path) -> None:
    store = filled(tmp_path, secret=tmp_path / "mine")
    forger = PlanStore(tmp_path / "forged")
    forger.obtain(KEY, lambda: b"an evil plan")
    for name in ("plan", "manifest.json"):
        (entry(store) / name).write_bytes((entry(forger) / name).read_bytes())
    with pytest.raises(PlanRefusedError, match="HMAC"):
        store.load(KEY)


@pytest.mark.parametrize(("content", "mode"), [(b"k" * 32, 0o640), (b"short", 0o600)])
def test_a_weak_key_file_is_refused(tmp_path: Path, content: bytes, mode: int) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(StorageError, match="HMAC key"):
        PlanStore(tmp_path / "engines", secret=tmp_path / "key")


def test_a_failed_build_leaves_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    store = PlanStore(tmp_path / "engines")
    with pytest.raises(ZeroDivisionError):
        store.obtain(KEY, lambda: bytes(1 // 0))
    assert list(entries(store, verify=True)) == []
    assert store.obtain(KEY, lambda: PLAN).content == PLAN


def test_discarded_bytes_are_not_tried_again(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.discard(KEY, "TensorRT rejected it")
    with pytest.raises(PlanMissingError):
        store.load(KEY)


def _obtain(root: Path, log: Path, seconds: float) -> None:
    def build() -> bytes:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(seconds)
        return PLAN

    plan = PlanStore(root).obtain(KEY, build)
    assert plan.content == PLAN


def test_of_several_processes_one_builds(tmp_path: Path) -> None:
    arguments = (tmp_path / "engines", tmp_path / "log", 0.5)
    workers = [SPAWN.Process(target=_obtain, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_after_a_builder_was_killed_the_next_builds_at_once(tmp_path: Path) -> None:
    victim = SPAWN.Process(target=_obtain, args=(tmp_path / "engines", tmp_path / "log", 600.0))
    victim.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(10)
    started = time.monotonic()
    assert PlanStore(tmp_path / "engines").obtain(KEY, lambda: PLAN).built_because is not None
    assert time.monotonic() - started < 2


def test_the_listing_names_what_is_wrong(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.obtain(OTHER, lambda: b"another plan")
    assert [each.problem for each in entries(store, verify=True)] == [None, None]
    flip(entry(store, OTHER) / "plan")
    assert [each.problem for each in entries(store, verify=False)] == [None, None]
    problems = {each.digest: each.problem for each in entries(store, verify=True)}
    assert problems[KEY.digest()] is None
    assert "SHA-256" in str(problems[OTHER.digest()])


def test_prune_deletes_the_broken_and_the_unwanted(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.obtain(OTHER, lambda: b"another plan")
    third = replace(KEY, recipe="fp16 9")
    store.obtain(third, lambda: b"third plan")
    flip(entry(store, OTHER) / "plan")
    deleted, busy = prune(store, lambda each: each.digest == third.digest())
    assert {each.digest for each in deleted} == {OTHER.digest(), third.digest()}
    assert busy == []
    assert [each.digest for each in entries(store, verify=True)] == [KEY.digest()]


def test_prune_sweeps_what_a_killed_build_left(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (entry(store) / "manifest.json").unlink()
    (entry(store) / ".dubstream-0123456789ab.1.part").write_bytes(b"half")
    (store.root / ("e" * 64)).symlink_to(tmp_path)
    deleted, _ = prune(store, lambda _: False)
    assert len(deleted) == 2
    assert [path.name for path in entry(store).iterdir()] == [".lock"]
    assert tmp_path.is_dir()


def test_prune_leaves_a_locked_entry_alone(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with folder_lock(entry(store)):
        deleted, busy = prune(store, lambda _: True)
    assert (deleted, [each.digest for each in busy]) == ([], [KEY.digest()])
    assert store.load(KEY).content == PLAN


def test_a_plan_in_use_survives_its_pruning(tmp_path: Path) -> None:
    store = filled(tmp_path)
    plan = store.load(KEY)
    prune(store, lambda _: True)
    assert plan.content == PLAN
    assert store.obtain(KEY, lambda: PLAN).built_because is not None


def test_a_full_disk_is_a_storage_error_and_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    store = PlanStore(tmp_path / "engines")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            store.obtain(KEY, lambda: PLAN)
    assert list(entries(store, verify=True)) == []
    assert [path.name for path in entry(store).iterdir()] == [".lock"]
