"""House rules as tests: one direction of dependencies, a lean runtime, small files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("engines", "export", "kernels", "runtime", "benchmarks")

ALLOWED = {
    "engines": {"engines"},
    "export": {"export", "engines"},
    "kernels": {"kernels", "engines"},
    "runtime": {"runtime", "engines", "kernels"},
    "benchmarks": {"benchmarks", "runtime", "engines", "kernels", "export"},
}
FLOORS = ("options", "platforms", "preparation", "job", "review", "cli")
"""Of the runtime, lowest first: none imports from one above it."""

COMPOSITION_ROOT = ROOT / "runtime" / "cli" / "app.py"
"""The one file that may know every room: it mounts their commands."""

HEAVY = {"torch", "onnx", "onnxscript", "onnxruntime", "librosa", "tensorrt", "pycuda", "polygraphy", "numba"}
LARGEST_FILE = 400
"""Lines. The median here is far lower; a file that grows past this holds a second subject."""


def _files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _files(room)
        if path != COMPOSITION_ROOT
        for name in _imports(path)
        if name.startswith("dubstream.") and name.split(".")[1] not in ALLOWED[room]
    ]
    assert wrong == []


@pytest.mark.parametrize("floor", FLOORS)
def test_floors_of_the_runtime_import_only_from_below(floor: str) -> None:
    above = {f"dubstream.runtime.{other}" for other in FLOORS[FLOORS.index(floor) + 1 :]}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / "runtime" / floor).rglob("*.py"))
        for name in _imports(path)
        if ".".join(name.split(".")[:3]) in above
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ["runtime", "kernels"])
def test_the_lean_rooms_never_import_torch_or_onnx(room: str) -> None:
    banned = {"torch", "onnx", "onnxscript", "polygraphy"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _files(room)
        for name in _imports(path)
        if name.split(".")[0] in banned
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "module", ["dubstream.runtime", "dubstream.runtime.cli", "dubstream.runtime.job.dub"]
)
def test_importing_the_runtime_loads_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_files_stay_small() -> None:
    sizes = {
        path.relative_to(ROOT): len(path.read_text().splitlines()) for room in ROOMS for path in _files(room)
    }
    assert {path: size for path, size in sizes.items() if size > LARGEST_FILE} == {}


def test_every_package_is_listed_for_installation() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    present = {
        "dubstream." + str(path.parent.relative_to(ROOT)).replace("/", ".")
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert set(listed) == present
