"""From a device number to a usable primary context, with a name for everything that can be missing."""

from __future__ import annotations

import atexit
import threading
import warnings
from typing import Any, NamedTuple

from dubstream.engines.errors import DeviceError

_WITHOUT = "or run without a GPU: --backend onnxruntime"


class OpenDevice(NamedTuple):
    """What `open_device` found.

    Attributes:
        driver: pycuda's driver module.
        device: pycuda's device.
        context: its primary context, not pushed.
    """

    driver: Any
    device: Any
    context: Any


_contexts: dict[int, Any] = {}
_opening = threading.Lock()


def open_device(index: int) -> OpenDevice:
    """The CUDA device `index` and its primary context, which TensorRT, ONNX Runtime and torch share.

    The context is retained once for the life of the process: giving it up would reset the device under
    the other libraries, and making it again takes a good part of a second.

    Raises:
        DeviceError: pycuda or the driver is missing or too old, or there is no such device.
    """
    driver = _import_driver()
    with _opening:
        _initialise(driver)
        device = _device(driver, index)
        if index not in _contexts:
            _contexts[index] = _retain(driver, device, index)
        return OpenDevice(driver, device, _contexts[index])


@atexit.register
def _release() -> None:
    # pycuda's own clean-up calls the wrong function for primary contexts and complains; this one does not.
    while _contexts:
        _contexts.popitem()[1].detach()


def _import_driver() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycuda warns of what it raises anyway
            import pycuda.driver
    except ImportError as error:
        if "libcuda" in str(error):
            raise DeviceError(
                f"there is no NVIDIA driver here: {error}",
                hint=f"install the driver and look at nvidia-smi, {_WITHOUT}",
            ) from error
        if "pycuda" in str(getattr(error, "name", None)) and "_driver" not in str(error):
            raise DeviceError(
                f"pycuda is not installed: {error}",
                hint="pip install 'dubstream[gpu]'; the README says what that needs",
            ) from error
        raise DeviceError(
            f"pycuda does not fit this NVIDIA driver or is damaged: {error}",
            hint="update the driver, or build it again: pip install --force-reinstall --no-cache-dir pycuda",
        ) from error
    return pycuda.driver


def _initialise(driver: Any) -> None:
    built, found = driver.get_version()[:2], _version(driver.get_driver_version())
    # Within a major version drivers and toolkits mix freely (CUDA's minor version compatibility).
    if found[0] < built[0]:
        raise DeviceError(
            f"the NVIDIA driver supports CUDA {found[0]}.{found[1]}, expected {built[0]}.0 or later",
            hint=f"update the driver (CUDA 13 needs branch 580 or later) {_WITHOUT}",
        )
    try:
        driver.init()
    except driver.Error as error:
        raise DeviceError(
            f"CUDA cannot be initialised: {error}", hint=f"look at nvidia-smi, {_WITHOUT}"
        ) from error


def _version(number: int) -> tuple[int, int]:
    return number // 1000, number % 1000 // 10


def _device(driver: Any, index: int) -> Any:
    count = driver.Device.count()
    if not 0 <= index < count:
        names = [f"{number}: {driver.Device(number).name()}" for number in range(count)]
        raise DeviceError(
            f"received device {index}, expected one of {', '.join(names) or 'none: there is no CUDA device'}",
            hint="choose with --device; CUDA_VISIBLE_DEVICES hides and renumbers devices",
        )
    return driver.Device(index)


def _retain(driver: Any, device: Any, index: int) -> Any:
    try:
        return device.retain_primary_context()
    except driver.Error as error:
        raise DeviceError(
            f"device {index} ({device.name()}) cannot be used: {error}",
            hint="look at nvidia-smi: memory, compute mode, another process",
        ) from error
