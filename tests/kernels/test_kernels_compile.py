from __future__ import annotations

import hashlib
import importlib.util
import re
import struct
from pathlib import Path

import pytest

from dubstream.engines.errors import DeviceError, InternalError, StorageError, UsageError
from dubstream.kernels import compile as kernel_compile
from dubstream.kernels import nvrtc, sources
from dubstream.kernels.compile import ARCHITECTURES, architecture_of, build_all, cubin, cubin_path, main
from dubstream.kernels.sources import SUBJECTS, signatures, source

HAS_NVRTC = (
    importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None
)
needs_nvrtc = pytest.mark.skipif(
    not HAS_NVRTC, reason="NVRTC's Python packages are not installed (extra `gpu`)"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], bytes]]:
    folder = tmp_path_factory.mktemp("cubins") / "cache"
    return folder, build_all(folder=folder)


@needs_nvrtc
def test_every_subject_compiles_for_every_architecture(built) -> None:
    _, cubins = built
    assert set(cubins) == {(subject, name) for subject in SUBJECTS for name in ARCHITECTURES}
    for (subject, name), code in cubins.items():
        assert code[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", code, 18) == (190,)  # EM_CUDA
        for kernel in signatures(subject):
            assert f".text.{kernel}\0".encode() in code, (kernel, name)
    assert len({hashlib.sha256(code).digest() for code in cubins.values()}) == len(cubins)


@needs_nvrtc
def test_the_cache_is_used_and_private(built, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cubins = built
    monkeypatch.setattr(nvrtc, "compile_cubin", lambda *_: pytest.fail("compiled again"))
    assert cubin("paste", "sm_90", folder=folder) == cubins["paste", "sm_90"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".cubin"}


@needs_nvrtc
@pytest.mark.parametrize(
    "damage", [lambda kept: kept[:-1], lambda kept: kept[:99] + b"!" + kept[100:], lambda kept: b""]
)
def test_a_damaged_cubin_is_built_again(built, tmp_path: Path, damage) -> None:
    _, cubins = built
    code = cubin("paste", "sm_80", folder=tmp_path)
    path = cubin_path("paste", "sm_80", folder=tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert cubin("paste", "sm_80", folder=tmp_path) == code == cubins["paste", "sm_80"]
    assert path.read_bytes() == whole


@needs_nvrtc
def test_the_key_changes_with_everything_that_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key() -> str:
        return cubin_path("paste", "sm_80", folder=tmp_path).name

    names = {
        key(),
        cubin_path("paste", "sm_90", folder=tmp_path).name,
        cubin_path("nv12", "sm_80", folder=tmp_path).name,
    }
    for target, value in (
        ("dubstream.kernels.compile.OPTIONS", ("--std=c++17",)),
        ("dubstream.kernels.nvrtc.version", lambda: "99.0"),
        ("dubstream.kernels.compile.source", lambda subject: source(subject) + "\n"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, value)
            names.add(key())
    assert len(names) == 6


@needs_nvrtc
def test_a_source_that_does_not_compile_shows_the_compilers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_compile, "source", lambda subject: 'extern "C" __global__ void k() { oops; }')
    with pytest.raises(InternalError, match=r'paste\.cu.*\n(.*\n)*.*identifier "oops" is undefined'):
        cubin("paste", "sm_90", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_nvrtc
@pytest.mark.parametrize("name", ["sm_10", "sm_9x", "90", "compute_90"])
def test_unknown_architectures_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"'{name}'.*sm_90"):
        cubin("paste", name, folder=tmp_path)


@needs_nvrtc
def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        cubin("paste", "sm_90", folder=tmp_path / "file")


@needs_nvrtc
def test_the_command_lists_what_it_built(built, capsys: pytest.CaptureFixture[str]) -> None:
    folder, cubins = built
    assert main(["--arch", "sm_90", "--folder", str(folder)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[:-1]]
    assert lines == [["sm_90", name, str(len(cubins[name, "sm_90"])), "bytes"] for name in SUBJECTS]
    assert main(["--arch", "sm_1", "--folder", str(folder)]) == 2
    assert "sm_1" in capsys.readouterr().err


def test_without_nvrtc_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    nvrtc._library.cache_clear()
    try:
        with pytest.raises(DeviceError, match="pip install") as caught:
            nvrtc.version()
        assert caught.value.exit_code == 69
    finally:
        nvrtc._library.cache_clear()


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((8, 0), "sm_80"),
        ((8, 6), "sm_80"),
        ((8, 9), "sm_89"),
        ((9, 0), "sm_90"),
        ((12, 1), "sm_120"),
        ((10, 0), "sm_100"),
    ],
)
def test_devices_get_the_nearest_prebuilt_architecture(capability: tuple[int, int], name: str) -> None:
    assert architecture_of(capability) == name


def test_sources_are_whole_and_tell_their_story() -> None:
    for subject in SUBJECTS:
        text = source(subject)
        assert "#include" not in text
        assert "cpu_launch" not in text
        written = (sources.FOLDER / f"{subject}.cu").read_text()
        assert "Reference: dubstream.kernels." in written.replace("\n// ", " ")
        assert re.search(r"Launcher: dubstream\.kernels\.(finish_)?launchers\.", written)
        assert text.count("__global__") == len(signatures(subject)) > 0
    with pytest.raises(InternalError, match="expected one of resample"):
        source("../secrets")
