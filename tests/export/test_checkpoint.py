"""Checkpoints: every public format loads, everything else is refused in one error, without side effects."""

from __future__ import annotations

import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_toys import Toy, toy_state
from reference_data import layout

from dubstream.engines.errors import CheckpointError, StorageError
from dubstream.export.checkpoint import Container, Weights, load_checkpoint
from dubstream.export.recipes import RECIPES

STATE = toy_state()
PLAIN = Container("net")


def save(path: Path, state: dict[Any, Any], *, key: str = "net", legacy: bool = False, **beside: Any) -> Path:
    torch.save({key: state, **beside}, path, _use_new_zipfile_serialization=not legacy)
    return path


def load(path: Path, container: Container = PLAIN, **options: Any) -> Weights:
    return load_checkpoint(path, container, STATE, **options)


def refused(path: Path, container: Container = PLAIN, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path, container, **options)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert len(text) < 2000
    return text


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("key", "prefix"), [("net_G_ema", ""), ("state_dict", "module."), ("net_recon", "")])
def test_public_formats_round_trip(tmp_path: Path, key: str, prefix: str, legacy: bool) -> None:
    stored = OrderedDict((prefix + name, tensor) for name, tensor in STATE.items())
    path = save(tmp_path / "Toy.pth", stored, key=key, legacy=legacy, optimiser={"step": 3}, epoch=20)
    weights = load(path, Container(key, prefix))
    assert list(weights.state) == list(STATE)
    assert all(torch.equal(weights.state[name], STATE[name]) for name in STATE)
    assert weights.source.startswith("checkpoint:Toy.pth:")
    assert (weights.ignored_keys, weights.extra_keys) == ({}, ())


def test_source_is_the_files_digest(tmp_path: Path) -> None:
    import hashlib

    path = save(tmp_path / "Toy.pth", STATE)
    assert load(path).source == f"checkpoint:Toy.pth:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_links_into_a_download_cache_are_followed(tmp_path: Path) -> None:
    (tmp_path / "Toy.pth").symlink_to(save(tmp_path / "blob", STATE))
    assert load(tmp_path / "Toy.pth").source.startswith("checkpoint:Toy.pth:")


def test_named_patterns_are_skipped_and_counted(tmp_path: Path) -> None:
    stored = {f"module.{name}": tensor for name, tensor in STATE.items()}
    stored |= {"module.low_res.a": torch.zeros(1), "module.low_res.b.c": torch.zeros(2)}
    path = save(tmp_path / "Toy.pth", stored)
    assert load(path, Container("net", "module.", ("low_res.*",))).ignored_keys == {"low_res.*": 2}
    assert "2 unexpected: low_res.a, low_res.b.c" in refused(path, Container("net", "module."))


def test_what_the_network_has_is_never_ignored(tmp_path: Path) -> None:
    path = save(tmp_path / "Toy.pth", {**STATE, "norm.running_mode": torch.zeros(5), "step": 3})
    weights = load(path, Container("net", ignored=("*",)))
    assert (set(weights.state), weights.ignored_keys) == (set(STATE), {"*": 2})
    assert "1 missing: mix.bias" in refused(
        save(tmp_path / "Less.pth", {key: value for key, value in STATE.items() if key != "mix.bias"}),
        Container("net", ignored=("*",)),
    )


@pytest.mark.parametrize("key", ["best", "net", None])
def test_keys_are_tried_in_order_and_a_flat_file_last(tmp_path: Path, key: str | None) -> None:
    container = Container("best", others=("net", None))
    payload = dict(STATE) if key is None else {"net": {"old": 1}, key: dict(STATE)}
    torch.save(payload, tmp_path / "Toy.pth")
    assert set(load(tmp_path / "Toy.pth", container).state) == set(STATE)


def test_all_keys_that_were_tried_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "Toy.pth", dict(STATE), key="other")
    assert "under the key 'best' or 'net', found keys 'other'" in refused(
        path, Container("best", others=("net",))
    )
    assert f"{len(STATE)} missing" in refused(path, Container(None))


def test_a_container_may_read_and_name_in_its_own_way(tmp_path: Path) -> None:
    def read(path: Path) -> tuple[dict[str, torch.Tensor], str]:
        return {f"old.{name}": tensor for name, tensor in STATE.items()}, "d" * 64

    def named(expected: Any, state: Any) -> Any:
        return dict(zip(expected, state.values(), strict=True))

    weights = load(tmp_path / "Toy.zip", Container(None, read=read, named=named))
    assert all(torch.equal(weights.state[name], STATE[name]) for name in STATE)
    assert weights.source == f"checkpoint:Toy.zip:{'d' * 64}"


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "fan4"])
def test_recipes_read_states_packed_as_the_layouts_say(tmp_path: Path, name: str) -> None:
    facts = layout(name)
    stored: dict[Any, Any] = {facts["prefix"] + key: tensor for key, tensor in STATE.items()}
    key = str(facts["container"]).split()[0] if facts["container"] else None
    for number, payload in enumerate([stored] if key is None else [{key: stored}, stored]):
        path = tmp_path / f"{number}.pth"
        torch.save(payload, path)
        if number == 0 or "else the top level" in facts["container"]:
            assert set(load(path, RECIPES[name].container).state) == set(STATE)
        else:
            refused(path, RECIPES[name].container)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_landmarks_recipe_reads_an_archive(tmp_path: Path) -> None:
    toy = Toy().eval()
    torch.jit.save(torch.jit.trace(toy, (torch.zeros(1, 3, 8, 8), torch.zeros(1, 4))), tmp_path / "Toy.zip")
    weights = load(tmp_path / "Toy.zip", RECIPES["fan4"].container)
    assert all(torch.equal(weights.state[name], toy.state_dict()[name]) for name in STATE)


def test_one_error_lists_everything(tmp_path: Path) -> None:
    stored: dict[str, Any] = dict(STATE)
    del stored["conv.bias"], stored["mix.weight"]
    stored["conv.weight"] = torch.zeros(5, 3, 1, 1)
    stored["mix.bias"] = torch.tensor([0, 1, float("nan"), 3, 4])
    stored["norm.running_var"] = 7
    stored["norm.weight"] = stored["norm.weight"].half()
    stored["norm.bias"] = torch.full((5,), float("inf"))
    stored |= {f"extra{index}": torch.zeros(1) for index in range(9)}
    text = refused(save(tmp_path / "Toy.pth", stored))
    for part in (
        "nothing was loaded",
        "2 missing: conv.bias, mix.weight",
        "1 misshaped: conv.weight (found (5, 3, 1, 1), expected (5, 3, 3, 3))",
        "1 not a tensor: norm.running_var (int)",
        "1 of another type: norm.weight (found torch.float16",
        "2 with NaN or infinity: norm.bias, mix.bias",
        "9 unexpected: extra0, extra1, extra2, extra3, extra4, extra5 and 3 more",
        "--allow-extra-keys",
    ):
        assert part in text


def test_extra_keys_are_accepted_on_request_and_reported(tmp_path: Path) -> None:
    path = save(tmp_path / "Toy.pth", {**STATE, "note": "hello", "more": torch.zeros(3)})
    assert "2 unexpected: note, more" in refused(path)
    weights = load(path, allow_extra_keys=True)
    assert weights.extra_keys == ("note", "more")
    assert set(weights.state) == set(STATE)


def test_extra_keys_do_not_excuse_missing_ones(tmp_path: Path) -> None:
    stored = {f"net.{name}": tensor for name, tensor in STATE.items()}
    text = refused(save(tmp_path / "Toy.pth", stored), allow_extra_keys=True)
    assert f"{len(STATE)} missing" in text
    assert "unexpected" not in text


def test_missing_prefix_is_no_match(tmp_path: Path) -> None:
    text = refused(save(tmp_path / "Toy.pth", dict(STATE)), Container("net", "module."))
    assert "unexpected: (no prefix) conv.weight" in text


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"other": {}, 5: 1}, "expected a state under the key 'net', found keys"),
        ({"net": [1]}, "expected a state under the key 'net'"),
        ([1, 2], "expected a dictionary, found list"),
        (torch.zeros(2), "expected a dictionary, found Tensor"),
        ({"net": {1: torch.zeros(1)}}, "missing"),
        ({}, "found keys nothing"),
    ],
)
def test_other_containers_are_refused(tmp_path: Path, payload: Any, message: str) -> None:
    torch.save(payload, tmp_path / "Toy.pth")
    assert message in refused(tmp_path / "Toy.pth")


def test_sparse_and_oddly_typed_tensors_are_refused(tmp_path: Path) -> None:
    stored = {**STATE, "mix.weight": STATE["mix.weight"].to_sparse(), "mix.bias": STATE["mix.bias"].double()}
    assert "2 of another type: mix.weight" in refused(save(tmp_path / "Toy.pth", stored))


@pytest.mark.parametrize("legacy", [False, True])
def test_numpy_scalar_is_refused_with_its_key(tmp_path: Path, legacy: bool) -> None:
    path = save(tmp_path / "Toy.pth", {**STATE, "norm.scale": np.float64(1.5)}, legacy=legacy)
    text = refused(path, allow_extra_keys=True)
    assert "multiarray.scalar" in text
    assert "'norm.scale'" in text
    assert "weights_only" not in text


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "pickle-4", "extra"])
def test_malicious_pickles_are_not_executed(tmp_path: Path, kind: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "Toy.pth"
    if kind.startswith("pickle"):
        protocol = 4 if kind == "pickle-4" else 2
        path.write_bytes(pickle.dumps({"net": Bomb(marker)}, protocol=protocol))
    elif kind == "extra":
        save(path, dict(STATE), hook=Bomb(marker))
    else:
        save(path, {**STATE, "bomb": Bomb(marker)}, legacy=kind == "legacy")
    text = refused(path, allow_extra_keys=True)
    assert not marker.exists()
    assert "weights_only" not in text


def test_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "Toy.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data/0", "w") as entry:
        for _ in range(300):
            entry.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "found compressed" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "Toy.pth", dict(STATE))
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    raw = bytearray(path.read_bytes())
    # The directory's own size field of every entry, made larger than the file.
    position = 0
    for _ in entries:
        position = raw.index(b"PK\x01\x02", position)
        raw[position + 20 : position + 28] = (1 << 20).to_bytes(4, "little") * 2
        position += 4
    path.write_bytes(raw)
    assert "zip entries claim" in refused(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, share: float, legacy: bool) -> None:
    path = save(tmp_path / "Toy.pth", dict(STATE), legacy=legacy)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    assert "not a usable checkpoint" in refused(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_load_fully_or_not_at_all(tmp_path: Path, legacy: bool) -> None:
    path = save(tmp_path / "Toy.pth", dict(STATE), legacy=legacy)
    raw, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(raw)
        for position in random.integers(0, len(raw), 8):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            state = load(path).state
        except CheckpointError:
            continue
        assert set(state) == set(STATE)
        assert all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Toy.pth"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    refused(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "found none" in refused(tmp_path / "Toy.pth")
    (tmp_path / "Toy.pth").mkdir()
    assert "found something else" in refused(tmp_path / "Toy.pth")
    os.mkfifo(tmp_path / "Pipe.pth")
    assert "found something else" in refused(tmp_path / "Pipe.pth")


def test_unreadable_file_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path / "Toy.pth", dict(STATE))
    monkeypatch.setattr(os, "open", denied)  # root may read everything, so a mode would not do
    with pytest.raises(StorageError, match="Permission denied") as caught:
        load(path)
    assert caught.value.exit_code == 74
