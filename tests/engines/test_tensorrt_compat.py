"""The version switch, on stand-in modules: TensorRT 10.x cannot run here."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dubstream.engines.errors import DeviceError, UsageError
from dubstream.engines.tensorrt import compat

TEN = {
    "__version__": "10.13.3.9",
    "NetworkDefinitionCreationFlag": SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1),
}
ELEVEN = {"__version__": "11.4.0.106", "NetworkDefinitionCreationFlag": SimpleNamespace(STRONGLY_TYPED=1)}


def trt(facts: dict[str, Any], **more: Any) -> Any:
    return SimpleNamespace(**facts, **more)


@pytest.mark.parametrize("facts", [TEN, ELEVEN])
def test_networks_are_strongly_typed_in_every_version(facts: dict[str, Any]) -> None:
    assert compat.network_flags(trt(facts)) == 1 << 1


def test_a_version_that_dropped_the_flag_needs_none() -> None:
    assert compat.network_flags(trt({**ELEVEN, "NetworkDefinitionCreationFlag": SimpleNamespace()})) == 0


def test_a_ten_without_the_flag_is_not_used_with_guessed_types() -> None:
    with pytest.raises(DeviceError, match="no strongly typed networks"):
        compat.network_flags(trt({**TEN, "NetworkDefinitionCreationFlag": SimpleNamespace(EXPLICIT_BATCH=0)}))


@pytest.mark.parametrize("version", ["10.13.0.35", "10.15.1", "11.0.0.1", "11.4.0.106"])
def test_supported_versions_load(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert compat.load() is module


@pytest.mark.parametrize("version", ["8.6.1", "10.9.0.34", "10.12.9", "12.0.0.1"])
def test_other_versions_are_device_errors_with_the_next_command(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(DeviceError, match=f"TensorRT {version} is installed.*pip install") as error:
        compat.load()
    assert error.value.exit_code == 69


def test_a_missing_tensorrt_is_a_device_error_with_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceError, match=r"cannot be imported.*pip install"):
        compat.load()


def test_compatibility_levels_come_by_name_and_missing_ones_are_named() -> None:
    levels = SimpleNamespace(NONE="none", AMPERE_PLUS="ampere")
    assert compat.compatibility_level(trt(TEN, HardwareCompatibilityLevel=levels), "ampere_plus") == "ampere"
    with pytest.raises(
        UsageError, match=r"10\.13\.3\.9 does not know hardware compatibility 'same_compute_capability'"
    ):
        compat.compatibility_level(trt(TEN, HardwareCompatibilityLevel=levels), "same_compute_capability")


@pytest.mark.parametrize("key", ["Bindings", "I/O Tensors"])
def test_the_inspectors_lists_are_found_under_either_name(key: str) -> None:
    assert compat.inspector_layers(json.dumps({"Layers": ["a"], key: ["x"]})) == (["a"], ["x"])


def test_ten_has_both_memory_sizes_and_the_wide_one_is_read() -> None:
    ten = SimpleNamespace(device_memory_size=-1, device_memory_size_v2=5 << 30)
    eleven = SimpleNamespace(device_memory_size_v2=5 << 30)
    assert compat.device_memory_bytes(ten) == compat.device_memory_bytes(eleven) == 5 << 30
