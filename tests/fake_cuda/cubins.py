"""Our CUDA kernels as a library that the fake driver takes for a cubin."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from fake_cuda.build import NoCompilerError

from dubstream.kernels.sources import FOLDER, SUBJECTS, signatures


def build_kernels(library: Path) -> Path:
    """Compile all kernels as C++, each with an entry point that takes CUDA's parameter buffer."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise NoCompilerError("no C++ compiler, expected g++ or c++ on PATH")
    source = library.with_suffix(".cpp")
    entries = [_entry(*kernel) for subject in SUBJECTS for kernel in signatures(subject).items()]
    source.write_text("".join(f'#include "{subject}.cu"\n' for subject in SUBJECTS) + "".join(entries))
    command = [compiler, "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-ffp-contract=off"]
    command += ["-DDUBSTREAM_ON_CPU", f"-I{FOLDER}", str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the kernels do not compile: {done.stderr[-3000:]}")
    return library


def _entry(name: str, letters: str) -> str:
    ends = [struct.calcsize("@" + letters[: at + 1]) for at in range(len(letters))]
    starts = [end - struct.calcsize("@" + letter) for end, letter in zip(ends, letters, strict=True)]
    values = ", ".join(f"buffer + {start}" for start in starts)
    return (
        f'extern "C" int fake_{name}(const unsigned* g, const unsigned* b, char* buffer) {{\n'
        f"    void* values[] = {{{values}}};\n"
        f"    run_grid({name}, dim3{{g[0], g[1], g[2]}}, dim3{{b[0], b[1], b[2]}}, values);\n"
        "    return 0;\n}\n"
    )
