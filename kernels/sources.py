"""The CUDA sources as text: one subject per file, includes written in, signatures read from it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from dubstream.engines.errors import InternalError

FOLDER = Path(__file__).parent
SUBJECTS = (
    "resample", "face_inputs", "blend", "paste", "nv12", "emotion", "face_align", "parse_mask", "finish"
)  # fmt: skip

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_CPU_ONLY = re.compile(r"^#ifdef DUBSTREAM_ON_CPU\n.*?^#endif\n", re.MULTILINE | re.DOTALL)
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
_LETTERS = {"long long": "q", "int": "i", "float": "f"}


@cache
def source(subject: str) -> str:
    """The complete source of a subject: what the compiler sees, and what the cache's key is made of.

    Raises:
        InternalError: no such subject.
    """
    if subject not in SUBJECTS:
        raise InternalError(f"no CUDA source '{subject}', expected one of {', '.join(SUBJECTS)}")
    text = (FOLDER / f"{subject}.cu").read_text(encoding="utf-8")
    text = _INCLUDE.sub(lambda found: (FOLDER / found[1]).read_text(encoding="utf-8"), text)
    return _CPU_ONLY.sub("", text)


def signatures(subject: str) -> dict[str, str]:
    """Kernels of a subject with their parameters as `struct` letters: P pointer, q, i and f numbers."""
    return {
        name: "".join(_letter(parameter) for parameter in parameters.split(","))
        for name, parameters in _KERNEL.findall(source(subject))
    }


def _letter(parameter: str) -> str:
    kind = " ".join(parameter.split()[:-1])
    return "P" if "*" in kind else _LETTERS[kind]
