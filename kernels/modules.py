"""Load compiled kernels on the current device and launch them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dubstream.engines.errors import DeviceError, InternalError
from dubstream.kernels.sources import SUBJECTS, signatures

BLOCK = (32, 8, 1)  # threads; rows of 32 keep neighbouring pixels in one warp
_MOST_BLOCKS = 65535  # CUDA's limit of the grid's y and z


class Function(Protocol):
    """A kernel as pycuda has it."""

    def prepare(self, arg_types: str) -> Any:
        """Fix the parameters' `struct` letters."""

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, ...], stream: Any, *args: Any
    ) -> None:
        """Enqueue the kernel; raises if the driver refuses."""


class Module(Protocol):
    """A loaded cubin as pycuda has it."""

    def get_function(self, name: str) -> Function:
        """The kernel of this name."""


def load_with_pycuda(code: bytes) -> Module:
    """Load a cubin into the current context.

    Raises:
        DeviceError: pycuda is not installed, or the driver refuses the cubin.
    """
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise DeviceError(
            f"pycuda is needed to run CUDA kernels and is not available: {error}",
            hint="pip install 'dubstream[gpu]'; the README says what that needs",
        ) from error
    try:
        module: Module = cuda.module_from_buffer(code)
    except cuda.Error as error:
        raise DeviceError(f"the driver refused a kernel of {len(code)} bytes: {error}") from error
    return module


class KernelModules:
    """All kernels of one device, loaded once. Its context must be current wherever this is used.

    Args:
        cubin_of: the machine code of a subject, e.g. ``lambda subject: cubin(subject, "sm_90")``.
        load: loads a cubin; pycuda unless a test brings its own.

    Raises:
        DeviceError: a cubin cannot be loaded.
    """

    def __init__(
        self, cubin_of: Callable[[str], bytes], *, load: Callable[[bytes], Module] = load_with_pycuda
    ) -> None:
        self._functions: dict[str, Function] = {}
        self._modules = {
            subject: load(cubin_of(subject)) for subject in SUBJECTS
        }  # held: kernels die with them
        for subject, module in self._modules.items():
            self._prepare(module, signatures(subject))

    def _prepare(self, module: Module, kernels: Mapping[str, str]) -> None:
        for name, letters in kernels.items():
            function = module.get_function(name)
            function.prepare(letters)
            self._functions[name] = function

    def launch(self, name: str, threads: tuple[int, int, int], *arguments: Any, stream: Any) -> None:
        """Enqueue a kernel with at least so many threads along x, y, z.

        Args:
            name: the kernel's name in its source.
            threads: width, height and number of items.
            arguments: addresses and numbers, in the order of the kernel's parameters.
            stream: the pycuda stream to launch on.

        Raises:
            InternalError: no threads, or more than a grid holds.
            DeviceError: the driver refused the launch, or an earlier failure surfaced here. What the kernel
                does wrong while it runs surfaces at the next synchronisation instead.
        """
        if min(threads) < 1:
            raise InternalError(f"kernel {name} with {threads} threads, expected 1 or more along every axis")
        grid = tuple(-(-count // size) for count, size in zip(threads, BLOCK, strict=True))
        if max(grid[1:]) > _MOST_BLOCKS:
            raise InternalError(
                f"kernel {name} with {threads} threads, expected at most {_MOST_BLOCKS} items"
            )
        try:
            self._functions[name].prepared_async_call(grid, BLOCK, stream, *arguments)
        except Exception as error:
            raise DeviceError(
                f"launching kernel {name} on a grid of {grid} failed: {type(error).__name__}: {error}"
            ) from error
