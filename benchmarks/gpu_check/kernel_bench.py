"""Where kernels are launched: on a GPU through pycuda or cupy, in a dry run as C++ on the host."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dubstream.benchmarks.gpu_check.journal import NotRunError
from dubstream.benchmarks.gpu_check.kernel_cases import AllLaunchers
from dubstream.benchmarks.gpu_check.setting import Setting, opened, require_driver
from dubstream.kernels.compile import architecture_of, cubin
from dubstream.kernels.modules import KernelModules

Array = npt.NDArray[Any]

_HOST_BUILD = Path(__file__).resolve().parents[2] / "tests" / "kernels"
"""The tests' way to run the CUDA sources as C++; there in a checkout, not in an installation."""


class KernelBench(Protocol):
    """Memory, launches and times of one device.

    Attributes:
        launchers: the kernels.
        stream: what to give them.
        through: the library that launches.
    """

    launchers: AllLaunchers
    stream: Any
    through: str

    def place(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """Copy arrays to the device in place of the earlier ones; their addresses."""

    def read(self, name: str) -> Array:
        """The device's copy of an array, when all launches are done."""

    def launch_ms(self, launch: Callable[[], None], repeats: int) -> list[float]:
        """Device milliseconds of each of so many launches, after one that is not counted."""


@contextmanager
def kernel_bench(setting: Setting) -> Iterator[KernelBench]:
    """The bench of a setting; `NotRunError` where something is lacking."""
    if setting.host:
        with tempfile.TemporaryDirectory() as folder:
            yield HostBench(Path(folder))
        return
    require_driver()
    if find_spec("pycuda") is None and find_spec("cupy") is not None:
        yield CupyBench(setting.index)
        return
    with opened(setting) as device:
        yield PycudaBench(device)


class HostBench:
    """The same sources, compiled by the C++ compiler; one thread after the other."""

    through = "C++ on the host"
    stream = None

    def __init__(self, folder: Path) -> None:
        if not _HOST_BUILD.is_dir() or shutil.which("g++") is None:
            raise NotRunError("on the host the kernels need g++ and a checkout with tests/kernels")
        sys.path.insert(0, str(_HOST_BUILD))
        try:
            host = importlib.import_module("cpu_kernels")
        finally:
            sys.path.remove(str(_HOST_BUILD))
        self.launchers = AllLaunchers(host.modules(host.build("g++", folder, ("-O1",))))
        self._arrays: dict[str, Array] = {}

    def place(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """Copies, so that launches do not change what references read."""
        self._arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
        return {name: array.ctypes.data for name, array in self._arrays.items()}

    def read(self, name: str) -> Array:
        """The array itself."""
        return self._arrays[name]

    def launch_ms(self, launch: Callable[[], None], repeats: int) -> list[float]:
        """Wall time: launches are done when they return."""
        samples = []
        for _ in range(repeats):
            began = perf_counter()
            launch()
            samples.append(1e3 * (perf_counter() - began))
        return samples


class PycudaBench:
    """Through the runtime's own device."""

    through = "pycuda"

    def __init__(self, device: Any) -> None:
        architecture = architecture_of(device.compute_capability)
        self.launchers = AllLaunchers(KernelModules(lambda subject: cubin(subject, architecture)))
        self._device = device
        self._queue = device.stream("check")
        self.stream = self._queue.native
        self._arrays: dict[str, Any] = {}

    def place(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """By way of page-locked memory."""
        for name, array in arrays.items():
            staged = self._device.pinned(array.shape, array.dtype)
            staged[...] = array
            self._arrays[name] = self._device.empty(array.shape, array.dtype)
            self._device.upload(self._arrays[name], staged, self._queue)
            self._queue.synchronize()
        return {name: self._arrays[name].ptr for name in arrays}

    def read(self, name: str) -> Array:
        """Behind everything launched."""
        array = self._arrays[name]
        staged: Array = self._device.pinned(array.shape, array.dtype)
        self._device.download(staged, array, self._queue)
        self._queue.synchronize()
        return staged

    def launch_ms(self, launch: Callable[[], None], repeats: int) -> list[float]:
        """Between two events on the stream."""
        launch()
        marks = [(self._device.event(), self._device.event()) for _ in range(repeats)]
        for begin, end in marks:
            begin.record(self._queue)
            launch()
            end.record(self._queue)
        self._queue.synchronize()
        return [1e3 * end.elapsed_since(begin) for begin, end in marks]


class CupyBench:
    """The same cubins where pycuda, which has to be compiled, is not installed. Never run on a GPU yet."""

    through = "cupy"

    def __init__(self, index: int) -> None:
        self._cupy: Any = importlib.import_module("cupy")
        self._cupy.cuda.Device(index).use()
        number = self._cupy.cuda.Device(index).compute_capability  # e.g. "90"
        architecture = architecture_of((int(number[:-1]), int(number[-1])))
        self.launchers = AllLaunchers(
            KernelModules(lambda subject: cubin(subject, architecture), load=self._load)
        )
        self.stream = self._cupy.cuda.Stream(non_blocking=True)
        self._arrays: dict[str, Any] = {}

    def place(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """Waits, as cupy copies on another stream."""
        self._arrays = {name: self._cupy.asarray(array) for name, array in arrays.items()}
        self._cupy.cuda.Device().synchronize()
        return {name: int(array.data.ptr) for name, array in self._arrays.items()}

    def read(self, name: str) -> Array:
        """Behind everything launched."""
        self._cupy.cuda.Device().synchronize()
        array: Array = self._cupy.asnumpy(self._arrays[name])
        return array

    def launch_ms(self, launch: Callable[[], None], repeats: int) -> list[float]:
        """Between two events on the stream."""
        launch()
        marks = [(self._cupy.cuda.Event(), self._cupy.cuda.Event()) for _ in range(repeats)]
        for begin, end in marks:
            begin.record(self.stream)
            launch()
            end.record(self.stream)
        self.stream.synchronize()
        return [self._cupy.cuda.get_elapsed_time(begin, end) for begin, end in marks]

    def _load(self, code: bytes) -> CupyModule:
        return CupyModule(self._cupy, code)


class CupyModule:
    """A cubin as cupy has it, behind the interface of pycuda's modules."""

    def __init__(self, cupy: Any, code: bytes) -> None:
        self._module = cupy.cuda.function.Module()
        self._module.load(code)

    def get_function(self, name: str) -> CupyFunction:
        """The kernel of this name."""
        return CupyFunction(self._module.get_function(name))


class CupyFunction:
    """A kernel of cupy that packs its arguments by `struct` letters."""

    _TYPES: Mapping[str, type[np.generic]] = {
        "P": np.uint64,
        "q": np.int64,
        "i": np.int32,
        "f": np.float32,
    }

    def __init__(self, function: Any) -> None:
        self._function = function
        self._types: list[type[np.generic]] = []

    def prepare(self, arg_types: str) -> None:
        """Fix the parameters' letters."""
        self._types = [self._TYPES[letter] for letter in arg_types]

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, ...], stream: Any, *args: Any
    ) -> None:
        """Enqueue the kernel."""
        packed: list[Any] = [kind(value) for kind, value in zip(self._types, args, strict=True)]
        self._function(grid, block, packed, stream=stream)
