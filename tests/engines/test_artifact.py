"""Artifacts: what is published opens, and nothing else does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstream.engines import artifact as artifact_module
from dubstream.engines.artifact import digest_files, open_artifact, publish_artifact, remake_hint
from dubstream.engines.cache import artifact_folder, cache_root, folder_lock
from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.errors import ArtifactError, CheckpointError, RetryError, StorageError, UsageError
from dubstream.engines.recipe_versions import FP32_RECIPE, RECIPE_VERSIONS
from dubstream.engines.sidecar import MAX_BYTES, FidelityRow, Sidecar, SidecarError, parse_sidecar, seal
from dubstream.engines.weights import WeightsChoice

SPEC = NetworkSpec(
    name="toy",
    title="a toy",
    inputs=(TensorSpec("x", "float32", (BATCH, 4), 0.0, 1.0, "numbers"),),
    outputs=(TensorSpec("y", "float32", (BATCH, 2), None, None, "numbers"),),
    max_batch=4,
    tolerances={"y": Tolerance(1e-4, 0.999999, "rounding")},
    gmacs=0.1,
    checkpoint="toy.pth",
    licence="none",
)
CONTENT = bytes(range(256)) * 40


def make_sidecar(tmp: Path, **changes: Any) -> Sidecar:
    files, digest = digest_files([tmp], ["toy.fp32.onnx"])
    sidecar = Sidecar(
        network="toy",
        precision="fp32",
        recipe=FP32_RECIPE,
        recipe_version=RECIPE_VERSIONS[FP32_RECIPE],
        spec=SPEC.as_json(),
        files=files,
        sha256=digest,
        source="seeded:retalk",
        ignored_keys={"low_res.*": 3},
        extra_keys=("odd 'key'\n",),
        opset=20,
        tools={"torch": "2.13"},
        fidelity=(FidelityRow("uniform/1", "y", 1e-6, 1e-7, 1e-6, 1.0, 0.01),),
        created="2026-01-01T00:00:00+00:00",
    )
    return replace(sidecar, **changes)


def publish(folder: Path, content: bytes = CONTENT, **changes: Any) -> None:
    tmp = folder / ".toy.part"
    tmp.write_bytes(content)
    publish_artifact(tmp, folder, make_sidecar(tmp, **changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish(tmp_path)
    return tmp_path


def edit_sidecar(folder: Path, **changes: Any) -> None:
    path = folder / "toy.fp32.json"
    data = {**json.loads(path.read_text()), **changes}
    del data["seal"]
    path.write_text(json.dumps({**data, "seal": seal(data)}, indent=1) + "\n")


def test_published_artifact_opens(folder: Path) -> None:
    artifact = open_artifact(folder, SPEC)
    assert artifact.path.read_bytes() == CONTENT
    assert artifact.sidecar == make_sidecar(artifact.path)
    assert (artifact.source, artifact.precision) == ("seeded:retalk", "fp32")
    assert len(artifact.digest) == 64
    assert sorted(path.name for path in folder.iterdir()) == ["toy.fp32.json", "toy.fp32.onnx"]


@pytest.mark.parametrize("position", [0, 5000, len(CONTENT) - 1])
def test_one_changed_bit_is_refused(folder: Path, position: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[position] ^= 1
    (folder / "toy.fp32.onnx").write_bytes(damaged)
    with pytest.raises(
        ArtifactError, match=r"toy\.fp32\.onnx: expected SHA-256 [0-9a-f]{64}, found"
    ) as caught:
        open_artifact(folder, SPEC)
    assert "dubstream export toy --artifacts" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x"])
def test_other_size_is_refused(folder: Path, content: bytes) -> None:
    (folder / "toy.fp32.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=f"expected {len(CONTENT)} bytes, found {len(content)}"):
        open_artifact(folder, SPEC)


def test_swapped_files_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, content in ((first, CONTENT), (second, CONTENT[::-1])):
        folder.mkdir()
        publish(folder, content)
    (first / "toy.fp32.onnx").replace(second / "toy.fp32.onnx")
    with pytest.raises(ArtifactError, match="SHA-256"):
        open_artifact(second, SPEC)
    with pytest.raises(ArtifactError, match="found none"):
        open_artifact(first, SPEC)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_version_of_the_recipe_is_refused_with_the_command_that_remakes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    publish(tmp_path)
    made = RECIPE_VERSIONS[FP32_RECIPE]
    version = made + change
    monkeypatch.setitem(artifact_module.RECIPE_VERSIONS, FP32_RECIPE, version)
    problem = rf"version {made} of recipe as-trained, expected version {version}"
    with pytest.raises(ArtifactError, match=problem) as caught:
        open_artifact(tmp_path, SPEC)
    command = f"dubstream export toy --artifacts {tmp_path} --weights seeded"
    assert caught.value.hint == f"remake it: {command}"


def test_a_recipe_of_somebody_elses_may_have_any_version(tmp_path: Path) -> None:
    publish(tmp_path, recipe="theirs", recipe_version=7)
    assert open_artifact(tmp_path, SPEC).sidecar.recipe_version == 7


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([], "with --weights seeded or --checkpoints DIR"),
        (["seeded:retalk"], "--weights seeded"),
        (["checkpoint:toy.pth:" + "0" * 64], "--checkpoints DIR"),
        (["seeded:retalk", "checkpoint:toy.pth:" + "0" * 64], "with --weights seeded or --checkpoints DIR"),
    ],
)
def test_the_command_names_the_weights_that_the_folder_knows(
    tmp_path: Path, sources: list[str], words: str
) -> None:
    for number, source in enumerate(sources):
        publish(tmp_path, source=source)
        (tmp_path / "toy.fp32.json").rename(tmp_path / f"{number}.json")
    (tmp_path / "odd.json").write_text("{}")
    expected = f"remake it: dubstream export --artifacts {tmp_path} --precision fp16 {words}"
    assert remake_hint(tmp_path, [], "fp16") == expected


def test_the_command_names_the_weights_that_the_user_chose(tmp_path: Path) -> None:
    choice = WeightsChoice(Path("my checkpoints"))
    command = f"dubstream export toy --artifacts {tmp_path} --checkpoints 'my checkpoints'"
    assert remake_hint(tmp_path, ["toy"], choice=choice) == f"remake it: {command}"


def test_other_spec_is_refused_with_the_difference(folder: Path) -> None:
    wider = replace(SPEC, inputs=(replace(SPEC.inputs[0], high=2.0),))
    with pytest.raises(ArtifactError, match=r"spec\.inputs\[0\]\.high expected 2\.0, found 1\.0"):
        open_artifact(folder, wider)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "expected format 2, found 3"),
        ({"format": True}, "expected format 2"),
        ({"network": "other"}, "expected toy in fp32, found other"),
        ({"precision": "fp16"}, "expected toy in fp32, found toy in fp16"),
        ({"precision": "../fp32"}, "does not match"),
        ({"spec": {}}, "exported for another spec"),
        ({"spec": []}, "expected an object, found list"),
        ({"files": []}, "at least one file"),
        ({"files": [{"name": "../toy.fp32.onnx", "size": 1}]}, "does not match"),
        ({"files": [{"name": "other.onnx", "size": 1}]}, "expected toy.fp32.onnx as first file"),
        ({"files": [{"name": "toy.fp32.onnx", "size": -1}]}, "expected a count"),
        ({"files": [{"name": "toy.fp32.onnx", "size": 1e999}]}, "Infinity is not a number"),
        ({"files": {"name": "toy.fp32.onnx"}}, "expected a list"),
        ({"sha256": "A" * 64}, "does not match"),
        ({"sha256": None}, "expected a string, found null"),
        ({"source": "trust me"}, "does not match"),
        ({"fidelity": [{"case": 1}]}, "missing fields"),
        ({"opset": "20"}, "expected a count"),
        ({"surprise": 1}, "unknown fields"),
    ],
)
def test_changed_sidecar_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_sidecar(folder, **changes)
    with pytest.raises(ArtifactError, match=r"toy\.fp32\.json: ") as caught:
        open_artifact(folder, SPEC)
    assert message in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b'{"format": 2}',
        b'{"format": NaN}',
        b'{"format": 1e999}',
        b'{"format": ' + b"9" * 10_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b" " * (MAX_BYTES + 1),
    ],
    ids=[
        "empty",
        "bytes",
        "null",
        "list",
        "bare",
        "nan",
        "inf",
        "digits",
        "deep-list",
        "deep-object",
        "huge",
    ],
)
def test_hostile_sidecar_is_refused(folder: Path, raw: bytes) -> None:
    (folder / "toy.fp32.json").write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"toy\.fp32\.json"):
        open_artifact(folder, SPEC)


def test_any_damage_to_a_sidecar_is_noticed(folder: Path) -> None:
    path, random = folder / "toy.fp32.json", np.random.default_rng(0)
    raw = path.read_bytes()
    for position in random.integers(0, len(raw), 300):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"toy\.fp32\.json"):
            open_artifact(folder, SPEC)
    path.write_bytes(raw)
    open_artifact(folder, SPEC)


def test_every_field_is_needed_and_typed(folder: Path) -> None:
    data = json.loads((folder / "toy.fp32.json").read_text())
    del data["seal"]
    for key in data:
        for wrong in (None, object, {}, [], "", 1.5, True):
            broken = {name: value for name, value in data.items() if name != key}
            if wrong is not object:
                broken[key] = wrong
            if key in ("recipe", "created") and wrong == "":
                continue  # free text
            if (key, wrong) in [
                ("extra_keys", []),
                ("files", []),
                ("fidelity", []),
                ("ranges", []),
            ] or wrong == {}:
                continue  # an empty collection is well formed
            raw = json.dumps({**broken, "seal": seal(broken)}, indent=1) + "\n"
            with pytest.raises(SidecarError, match=f"{key}|format"):
                parse_sidecar(raw.encode())


def test_links_folders_and_pipes_are_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "toy.fp32.onnx"
    target = folder / "toy.fp32.onnx"
    target.rename(outside)
    target.symlink_to(outside)
    with pytest.raises(ArtifactError, match="symbolic link"):
        open_artifact(folder, SPEC)
    target.unlink()
    target.mkdir()
    with pytest.raises(ArtifactError, match="not a plain file"):
        open_artifact(folder, SPEC)
    target.rmdir()
    os.mkfifo(target)
    with pytest.raises(ArtifactError, match="not a plain file"):
        open_artifact(folder, SPEC)


def test_linked_sidecar_is_refused(folder: Path) -> None:
    (folder / "toy.fp32.json").rename(folder / "real.json")
    (folder / "toy.fp32.json").symlink_to(folder / "real.json")
    with pytest.raises(ArtifactError, match="symbolic link"):
        open_artifact(folder, SPEC)


@pytest.mark.parametrize("name", ["../toy", "a/b", "", "toy.fp32", "T"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be part of an artifact's name"):
        open_artifact(tmp_path, replace(SPEC, name=name))


def test_missing_folder_names_the_command(tmp_path: Path) -> None:
    missing = tmp_path / "with space"
    with pytest.raises(ArtifactError, match="found none") as caught:
        open_artifact(missing, SPEC)
    assert f"dubstream export toy --artifacts '{missing}'" in str(caught.value.hint)


def test_external_data_is_part_of_the_digest(tmp_path: Path) -> None:
    parts = [tmp_path / ".a.part", tmp_path / ".b.part"]
    for part, content in zip(parts, (b"graph", b"weights"), strict=True):
        part.write_bytes(content)
    files, digest = digest_files(parts, ["toy.fp32.onnx", "toy.fp32.data"])
    publish_artifact(
        parts[0], tmp_path, make_sidecar(parts[0], files=files, sha256=digest), external=parts[1:]
    )
    assert open_artifact(tmp_path, SPEC).digest == digest
    (tmp_path / "toy.fp32.data").write_bytes(b"Weights")
    with pytest.raises(ArtifactError, match="SHA-256"):
        open_artifact(tmp_path, SPEC)


KILLED = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[2])
import test_artifact as t
real = pathlib.Path.replace
def replace(self, target):
    if str(target).endswith(".json"):
        os.kill(os.getpid(), 9)
    return real(self, target)
pathlib.Path.replace = replace
t.publish(pathlib.Path(sys.argv[1]), b"new" * 100)
"""


@pytest.mark.parametrize("had_one_before", [False, True])
def test_kill_between_network_and_sidecar_is_refused(tmp_path: Path, had_one_before: bool) -> None:
    if had_one_before:
        publish(tmp_path)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert (tmp_path / "toy.fp32.onnx").read_bytes() == b"new" * 100
    with pytest.raises(ArtifactError):
        open_artifact(tmp_path, SPEC)
    publish(tmp_path)
    assert open_artifact(tmp_path, SPEC).path.read_bytes() == CONTENT


def test_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifact_module, "write_synced", full)
    with pytest.raises(
        StorageError, match=r"No space left on device, needed \d+ bytes, free \d+ bytes"
    ) as caught:
        publish(tmp_path)
    assert caught.value.exit_code == 74
    assert not list(tmp_path.glob("*.json*"))
    assert not list(tmp_path.glob(".*.json.part"))


def test_cache_root_is_private_and_movable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTREAM_CACHE", str(tmp_path / "deep" / "cache"))
    assert cache_root() == tmp_path / "deep" / "cache"
    assert cache_root().stat().st_mode & 0o777 == 0o700
    folder = artifact_folder("seeded-retalk")
    assert folder == cache_root() / "artifacts" / "seeded-retalk"
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("DUBSTREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "dubstream"


def test_cache_root_that_is_a_file_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DUBSTREAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="creating"):
        cache_root()
    monkeypatch.setenv("DUBSTREAM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(StorageError, match="creating"):
        cache_root()


HOLDER = """
import pathlib, sys, time
from dubstream.engines.cache import folder_lock
with folder_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_excludes_and_dies_with_its_holder(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waited: list[bool] = []
        with (
            pytest.raises(RetryError, match="locked by another process") as caught,
            folder_lock(tmp_path, timeout_s=0.2, on_wait=lambda: waited.append(True)),
        ):
            pytest.fail("two holders")
        assert (caught.value.exit_code, waited) == (75, [True])
        holder.kill()
        holder.wait()
        with folder_lock(tmp_path, timeout_s=5.0):
            pass


def test_lock_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="locking"), folder_lock(tmp_path / "file"):
        pytest.fail("locked nothing")


def test_weights_choice_takes_exactly_one_source(tmp_path: Path) -> None:
    assert WeightsChoice.from_options(None, "seeded").source_of(SPEC) == "seeded:retalk"
    for options in ((None, None), (tmp_path, "seeded"), (None, "random")):
        with pytest.raises(UsageError, match="expected"):
            WeightsChoice.from_options(*options)


def test_identity_follows_the_checkpoints_contents(tmp_path: Path) -> None:
    choice = WeightsChoice(tmp_path)
    with pytest.raises(CheckpointError, match=r"toy\.pth, toy2\.pth"):
        choice.identity([SPEC, replace(SPEC, name="toy2", checkpoint="toy2.pth")])
    (tmp_path / "toy.pth").write_bytes(b"one")
    (tmp_path / "unrelated.pth").write_bytes(b"x")
    first = choice.identity([SPEC])
    (tmp_path / "unrelated.pth").write_bytes(b"y")
    assert choice.identity([SPEC]) == first
    (tmp_path / "toy.pth").write_bytes(b"two")
    assert choice.identity([SPEC]) != first
    assert WeightsChoice(None).identity([SPEC]) == "seeded-retalk"
