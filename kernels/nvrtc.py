"""NVRTC, NVIDIA's compiler as a library: needs no GPU, no driver and no toolkit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from dubstream.engines.errors import DeviceError, InternalError


def version() -> str:
    """The compiler's version, e.g. "13.0".

    Raises:
        DeviceError: NVRTC is not installed.
    """
    major, minor = _checked(_library().nvrtcVersion(), "nvrtcVersion")
    return f"{major}.{minor}"


def architectures() -> tuple[int, ...]:
    """Architectures it compiles for, as the NN of sm_NN."""
    (numbers,) = _checked(_library().nvrtcGetSupportedArchs(), "nvrtcGetSupportedArchs")
    return tuple(int(number) for number in numbers)


def compile_cubin(text: str, name: str, options: Sequence[str]) -> bytes:
    """Machine code of a source.

    Args:
        text: CUDA C++.
        name: what the compiler's messages call it.
        options: its options; must name one real architecture.

    Raises:
        DeviceError: NVRTC is not installed.
        InternalError: it does not compile; the message is the compiler's log.
    """
    library = _library()
    (program,) = _checked(
        library.nvrtcCreateProgram(text.encode(), name.encode(), 0, [], []), "nvrtcCreateProgram"
    )
    try:
        status = library.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[
            0
        ]
        if status != library.nvrtcResult.NVRTC_SUCCESS:
            raise InternalError(
                f"{name} does not compile with {' '.join(options)}:\n{_log(library, program)}"
            )
        (size,) = _checked(library.nvrtcGetCUBINSize(program), "nvrtcGetCUBINSize")
        code = bytearray(size)
        _checked(library.nvrtcGetCUBIN(program, code), "nvrtcGetCUBIN")
        return bytes(code)
    finally:
        library.nvrtcDestroyProgram(program)


def _log(library: Any, program: Any) -> str:
    (size,) = _checked(library.nvrtcGetProgramLogSize(program), "nvrtcGetProgramLogSize")
    text = bytearray(size)
    _checked(library.nvrtcGetProgramLog(program, text), "nvrtcGetProgramLog")
    return bytes(text).rstrip(b"\0\n").decode(errors="replace")


@cache
def _library() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # loads the shared library
    except (ImportError, RuntimeError, OSError) as error:
        raise DeviceError(
            f"NVRTC is needed to compile CUDA kernels and is not available: {error}",
            hint="pip install 'dubstream[gpu]'",
        ) from error
    return nvrtc


def _checked(result: tuple[Any, ...], call: str) -> tuple[Any, ...]:
    """The values behind a call's status."""
    status, *values = result
    if int(status) != 0:
        raise InternalError(f"{call} returned {status}, expected success")
    return tuple(values)
