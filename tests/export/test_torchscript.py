"""TorchScript archives: read without running them, refused when they hold more than tensors."""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dubstream.engines.errors import CheckpointError
from dubstream.export.torchscript import in_order_of, read_torchscript

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit itself; files of it stay


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.rest = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1))
        self.register_buffer("steps", torch.arange(3.0).flip(0))
        self.word, self.counts = "hello", [1, 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x)) + self.steps.sum() + self.counts[0]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def archive(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scripts") / "net.zip"
    torch.jit.save(torch.jit.script(network), str(path))
    return path


def changed(archive: Path, path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of the archive with entries changed (by their names below the root) or left out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            content = change(entry.filename.partition("/")[2], source.read(entry))
            if content is not None:
                target.writestr(entry.filename, content)
    return path


def with_pickle(archive: Path, path: Path, pickled: bytes) -> Path:
    return changed(archive, path, lambda name, content: pickled if name == "data.pkl" else content)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_torchscript(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize("how", ["script", "trace"])
def test_reads_what_torch_saved(network: nn.Module, tmp_path: Path, how: str) -> None:
    scripted = (
        torch.jit.script(network) if how == "script" else torch.jit.trace(network, torch.zeros(1, 2, 4, 4))
    )
    path = tmp_path / "net.zip"
    torch.jit.save(scripted, str(path))
    state, digest = read_torchscript(path)
    want = network.state_dict()
    assert list(state) == list(want)
    for name, tensor in want.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert len(digest) == 64


def test_views_of_one_storage_keep_their_places(tmp_path: Path) -> None:
    network = nn.Linear(3, 4)
    base = torch.arange(24.0)
    network.weight = nn.Parameter(base.as_strided((4, 3), (1, 4), 5))
    network.bias = nn.Parameter(base[2:6])
    path = tmp_path / "views.zip"
    torch.jit.save(torch.jit.script(network), str(path))
    state, _ = read_torchscript(path)
    assert torch.equal(state["weight"], network.weight)
    assert state["bias"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool])
def test_element_types_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    network = nn.ReLU()
    network.register_buffer("values", torch.tensor([0, 1, 1]).to(dtype))
    path = tmp_path / "typed.zip"
    torch.jit.save(torch.jit.script(network), str(path))
    state, _ = read_torchscript(path)
    assert state["values"].dtype == dtype
    assert state["values"].tolist() == [0, 1, 1]


def test_a_frozen_archive_gives_its_tensors_by_number(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "frozen.zip"
    torch.jit.save(torch.jit.freeze(torch.jit.script(network)), str(path))
    state, _ = read_torchscript(path)
    assert set(state) == {f"constants.{index}" for index in range(len(state))}
    kept = {tuple(tensor.shape) for tensor in state.values()}
    assert {(3, 2, 3, 3), (4, 3, 1, 1)} <= kept


def test_names_win_and_missing_counters_are_zero(network: nn.Module) -> None:
    expected = network.state_dict()
    state = {name: tensor for name, tensor in expected.items() if not name.endswith("num_batches_tracked")}
    got = in_order_of(expected, {**dict(reversed(state.items())), "extra": torch.ones(1)})
    assert set(got) == {*expected, "extra"}
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_other_names_are_matched_by_order_shape_and_last_part(network: nn.Module) -> None:
    expected = network.state_dict()
    other = {f"net.{name}": tensor for name, tensor in expected.items()}
    got = in_order_of(expected, other)
    assert list(got) != list(other)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_frozen_ones_by_order_and_shape(network: nn.Module) -> None:
    whole = network.state_dict()
    learned = [name for name, value in whole.items() if value.is_floating_point()]
    frozen = {f"constants.{index}": whole[name] for index, name in enumerate(learned)}
    got = in_order_of(whole, frozen)
    assert set(got) == set(whole)
    assert all(torch.equal(got[name], whole[name]) for name in whole)


@pytest.mark.parametrize("change", ["order", "shape", "number", "leaf"])
def test_what_does_not_fit_is_left_for_the_strict_loader(network: nn.Module, change: str) -> None:
    expected = network.state_dict()
    other = {f"net.{name}": tensor for name, tensor in expected.items()}
    if change == "order":
        other = dict(reversed(other.items()))
    elif change == "shape":
        other["net.steps"] = torch.zeros(4)
    elif change == "number":
        other["net.more"] = torch.zeros(3)
    else:
        other = {name.replace("bias", "offset"): tensor for name, tensor in other.items()}
    assert in_order_of(expected, other) == other


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("pwned").touch, ())


@pytest.mark.parametrize("protocol", [2, 4])
def test_foreign_pickles_are_refused_and_not_run(
    archive: Path, tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = refused(with_pickle(archive, tmp_path / "evil.zip", pickle.dumps(Attack(), protocol)))
    assert "getattr" in text or "pickle operation" in text
    assert not (tmp_path / "pwned").exists()


OBJECT = b"c__torch__.A\nB\n)\x81}"  # an instance, then its dictionary


def doubled(times: int) -> bytes:
    """Modules that each hold the one before twice: 2 ** times of them to a reader that copies."""
    memo = [b"h" + bytes([index]) for index in range(times)]
    twice = [b"(X\x01\x00\x00\x00a" + each + b"X\x01\x00\x00\x00b" + each + b"u" for each in memo]
    levels = [OBJECT + inner + b"bq" + bytes([index]) for index, inner in enumerate([b"", *twice])]
    return b"\x80\x02" + b"".join(levels) + b"."


HOSTILE = {
    "import of a function": (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "holds a os.system"),
    "class of this program": (b"\x80\x02cdubstream.engines.errors\nDubError\n)\x81.", "errors.DubError"),
    "call of its own class": (b"\x80\x02c__torch__.A\nB\n)R.", "a call of __torch__.A.B"),
    "object of another class": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "not the archive's own"),
    "state for a function": (b"\x80\x02ccollections\nOrderedDict\n}b.", "not its attributes"),
    "state that is no dictionary": (b"\x80\x02c__torch__.A\nB\n)\x81)b.", "not its attributes"),
    "attribute that is no name": (b"\x80\x02" + OBJECT + b"K\x01K\x02sb.", "not its attributes"),
    "items for a number": (b"\x80\x02K\x01(K\x02e.", "no list"),
    "deep key": (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "neither text nor number"),
    "module inside itself": (
        b"\x80\x02c__torch__.A\nB\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",
        "nested without end",
    ),
    "modules doubled many times": (doubled(60), "more than 100000 attributes"),
    "no module at all": (b"\x80\x02}.", "a dict, expected a module"),
    "no end": (b"\x80\x02}", "pickle exhausted|damaged"),
    "empty stack": (b"\x80\x02.", "damaged"),
    "too few values": (b"\x80\x02NR.", "without its values"),
    "text longer than the file": (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
    "nothing": (b"", "damaged"),
    "persistent text": (b"\x80\x02Pabc\n.", "operation PERSID"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_structures_are_refused(archive: Path, tmp_path: Path, kind: str) -> None:
    pickled, reason = HOSTILE[kind]
    assert re.search(reason, refused(with_pickle(archive, tmp_path / "evil.zip", pickled)))


def tensor_pickle(
    *, offset: int = 0, shape: int = 3, stride: int = 1, count: int = 3, key: bytes = b"0"
) -> bytes:
    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    text = b"X" + struct.pack("<I", len(key)) + key
    reference = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + text + b"X\x03\x00\x00\x00cpu" + number(count)
    )
    tensor = b"(" + reference + b"tQ" + number(offset) + number(shape) + b"\x85" + number(stride) + b"\x85"
    rest = b"\x89ccollections\nOrderedDict\n)Rt"
    build = b"X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n" + tensor + rest + b"R"
    return b"\x80\x02" + OBJECT + build + b"sb."


def test_a_tensor_written_by_hand_is_read(archive: Path, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return {"data.pkl": tensor_pickle(), "data/0": struct.pack("<3f", 1, 2, 3)}.get(name, content)

    state, _ = read_torchscript(changed(archive, tmp_path / "fair.zip", change))
    assert {name: tensor.tolist() for name, tensor in state.items()} == {"w": [1, 2, 3]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 1}, {"offset": -1}, {"shape": 4}, {"shape": -1}, {"stride": 2}, {"stride": -1},
        {"shape": 2**30, "stride": 0}, {"count": 4}, {"count": 2}, {"count": -3}, {"key": b"none"},
        {"key": b"../data.pkl"},
    ],
    ids=str,
)  # fmt: skip
def test_tensors_that_leave_their_storage_are_refused(
    archive: Path, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    def change(name: str, content: bytes) -> bytes:
        return {"data.pkl": tensor_pickle(**wrong), "data/0": bytes(12)}.get(name, content)

    refused(changed(archive, tmp_path / "evil.zip", change))


def test_damaged_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    path = tmp_path / "cut.zip"
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        refused(path)
    missing = changed(archive, path, lambda name, content: None if name == "data/1" else content)
    assert "data/1" in refused(missing)


def test_zip_tricks_are_refused(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "trick.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("net/data.pkl", bytes(10 << 20))
    assert "claim more" in refused(path)
    with zipfile.ZipFile(path, "w") as two:
        two.writestr("net/data.pkl", b"a")
        with pytest.warns(UserWarning, match="Duplicate"):
            two.writestr("net/data.pkl", b"b")
    assert "once" in refused(path)
    big = changed(archive, path, lambda name, content: b"big" if name == "byteorder" else content)
    assert "big-endian" in refused(big)


def test_the_program_is_never_looked_at(archive: Path, network: nn.Module, tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return b"import os; os.abort()" if name.startswith("code/") else content

    state, _ = read_torchscript(changed(archive, tmp_path / "abort.zip", change))
    assert list(state) == list(network.state_dict())


def test_a_plain_checkpoint_is_no_archive_of_modules(tmp_path: Path, network: nn.Module) -> None:
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    path = tmp_path / "state.pth"
    path.write_bytes(buffer.getvalue())
    assert "not its attributes" in refused(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    assert "found none" in refused(tmp_path / "absent.zip")
