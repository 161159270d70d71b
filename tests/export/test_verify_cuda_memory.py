"""Device memory for GPU links: the order of the calls, on a stand-in for cuda-bindings."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from dubstream.engines.errors import DeviceError
from dubstream.export.verify.cuda_memory import CudaMemory


class FakeDriver:
    """Device memory is host memory; every call is noted, and `failing` ones answer with an error."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing = ""
        self.blocks: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self.failing:
                return (100,)
            mimic = type(self).__dict__.get(f"_{name}", lambda *_: (7,))
            return (0, *mimic(self, *arguments))

        return call

    def _cuMemAlloc(self, nbytes: int) -> tuple[int]:  # noqa: N802
        block = ctypes.create_string_buffer(nbytes)
        self.blocks[ctypes.addressof(block)] = block
        return (ctypes.addressof(block),)

    def _cuMemFree(self, address: int) -> tuple[()]:  # noqa: N802
        del self.blocks[address]
        return ()

    def _cuMemcpyHtoD(self, to: int, source: int, nbytes: int) -> tuple[()]:  # noqa: N802
        ctypes.memmove(to, source, nbytes)
        return ()

    def _cuMemcpyDtoH(self, to: int, source: int, nbytes: int) -> tuple[()]:  # noqa: N802
        ctypes.memmove(to, source, nbytes)
        return ()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    bindings = pytest.importorskip("cuda.bindings")
    fake = FakeDriver()
    monkeypatch.setattr(bindings, "driver", fake, raising=False)
    return fake


def test_arrays_go_there_and_back_and_the_stream_is_waited_for(driver: FakeDriver) -> None:
    memory = CudaMemory(1)
    assert driver.calls == [
        "cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuStreamCreate",
    ]  # fmt: skip
    assert memory.handle == 7
    array = np.arange(12, dtype=np.float16).reshape(2, 6)[:, ::2]
    there = memory.upload(array)
    assert (there.shape, there.dtype, there.nbytes, there.flags.c_contiguous) == (
        (2, 3),
        np.float16,
        12,
        True,
    )
    np.testing.assert_array_equal(memory.download(there), array)
    assert driver.calls[-2:] == ["cuStreamSynchronize", "cuMemcpyDtoH"]
    ran = []
    memory.launch(lambda: ran.append(1), "now")
    assert ran == [1]
    del there
    assert driver.blocks == {}


@pytest.mark.parametrize("failing", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuStreamCreate"])
def test_what_is_missing_is_a_device_error(driver: FakeDriver, failing: str) -> None:
    driver.failing = failing
    with pytest.raises(DeviceError, match="failed: 100"):
        CudaMemory()


def test_an_array_that_does_not_fit_is_an_error_and_frees_nothing(driver: FakeDriver) -> None:
    memory = CudaMemory()
    driver.failing = "cuMemAlloc"
    with pytest.raises(DeviceError, match="16 bytes"):
        memory.block(16)
    assert "cuMemFree" not in driver.calls
