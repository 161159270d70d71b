"""The CUDA sources as a plain C++ library, behind the interface of pycuda's modules.

Arguments are packed into CUDA's parameter buffer exactly as pycuda packs them, so the launchers, the
parameter letters and the kernels are tested together. Device memory is numpy's.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path

from dubstream.kernels.modules import KernelModules
from dubstream.kernels.sources import FOLDER, SUBJECTS, signatures

PLAIN = ("-O2", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(compiler: str, folder: Path, flags: tuple[str, ...]) -> Path:
    """Compile all kernels and one entry point that launches them by name."""
    names = [name for subject in SUBJECTS for name in signatures(subject)]
    harness = folder / "harness.cpp"
    harness.write_text(
        "#include <cstring>\n"
        + "".join(f'#include "{subject}.cu"\n' for subject in SUBJECTS)
        + 'extern "C" int launch(const char* name, const unsigned* g, const unsigned* b, void** values) {\n'
        + "    dim3 grid = {g[0], g[1], g[2]}, block = {b[0], b[1], b[2]};\n"
        + "".join(
            f'    if (!std::strcmp(name, "{name}")) return run_grid({name}, grid, block, values), 0;\n'
            for name in names
        )
        + "    return 1;\n}\n"
    )
    library = folder / "kernels.so"
    command = [compiler, "-x", "c++", "-std=c++17", "-shared", "-fPIC"]
    command += ["-DDUBSTREAM_ON_CPU", "-ffp-contract=off"]
    done = subprocess.run(
        [*command, *flags, f"-I{FOLDER}", str(harness), "-o", str(library)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return library


class CpuFunction:
    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._library = library
        self._name = name

    def prepare(self, arg_types: str) -> None:
        self._letters = arg_types

    def prepared_async_call(self, grid, block, stream, *args) -> None:
        assert all(isinstance(value, int) for value in (*grid, *block))
        buffer = ctypes.create_string_buffer(struct.pack("@" + self._letters, *args))
        starts = [
            struct.calcsize("@" + self._letters[: index + 1]) - struct.calcsize("@" + letter)
            for index, letter in enumerate(self._letters)
        ]
        pointers = (ctypes.c_void_p * len(starts))(*(ctypes.addressof(buffer) + start for start in starts))
        sizes = [(ctypes.c_uint * 3)(*values) for values in (grid, block)]
        assert self._library.launch(self._name.encode(), *sizes, pointers) == 0


class CpuModule:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def get_function(self, name: str) -> CpuFunction:
        return CpuFunction(self._library, name)


def modules(library: Path) -> KernelModules:
    loaded = ctypes.CDLL(str(library))
    return KernelModules(lambda subject: subject.encode(), load=lambda code: CpuModule(loaded))
