"""From artifact to plan to engine, with the builder and the GPU's facts replaced."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from trt_checker import toys
from trt_checker.fake import Behaviour, Memory, module

from dubstream.engines.artifact import Artifact
from dubstream.engines.cache import folder_lock
from dubstream.engines.engine_key import Environment
from dubstream.engines.errors import ArtifactError, DeviceError
from dubstream.engines.sidecar import FileEntry, Sidecar
from dubstream.engines.storage import make_private_folder
from dubstream.engines.store import PlanStore
from dubstream.engines.tensorrt import environment as environment_module
from dubstream.engines.tensorrt import provision, watch
from dubstream.engines.tensorrt.environment import current_environment, timing_cache_file
from dubstream.engines.tensorrt.executor import PlanRejectedError, Workspace
from dubstream.engines.tensorrt.options import BuildOptions
from dubstream.engines.tensorrt.provision import load_tensorrt_engine, obtain_plan, plan_key

ENVIRONMENT = Environment("11.4.0.106", "110400", "13.0", "580", "NVIDIA H200", "9.0", 132, "linux-x86_64")


class Machine:
    """A builder that counts, and the environment it builds in."""

    def __init__(self) -> None:
        self.environment = ENVIRONMENT
        self.plans = [b"first plan", b"second plan", b"third plan"]
        self.built: list[BuildOptions] = []

    def build(self, model: Any, spec: Any, options: BuildOptions, *, progress: Any = None) -> bytes:
        self.built.append(options)
        return self.plans[len(self.built) - 1]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    path, spec = toys.plain(tmp_path)
    content = path.read_bytes()
    sidecar = Sidecar(
        network=spec.name, precision="fp32", recipe="fp32", recipe_version=1, spec=spec.as_json(),
        files=(FileEntry(path.name, len(content)),), sha256=hashlib.sha256(content).hexdigest(),
        source="seeded:test", ignored_keys={}, extra_keys=(), opset=20, tools={}, fidelity=(), created="",
    )  # fmt: skip
    return Artifact(path, spec, sidecar)


@pytest.fixture
def behaviour(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    made = Behaviour(artifact.spec)
    watch.logger.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt", module(made))
    return made


@pytest.fixture
def machine(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(provision, "build_plan", made.build)
    monkeypatch.setattr(provision, "current_environment", lambda trt, ordinal: made.environment)
    return made


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")


def load(artifact: Artifact, store: PlanStore, options: BuildOptions | None = None) -> Any:
    workspace = Workspace(lambda nbytes: Memory((nbytes,), "uint8", 0x1000))
    return load_tensorrt_engine(artifact, options or BuildOptions(), store, workspace)


def test_a_plan_is_built_once_for_one_key(artifact: Artifact, store: PlanStore, machine: Machine) -> None:
    plans = [obtain_plan(artifact, BuildOptions(), store) for _ in range(3)]
    assert [plan.content for plan in plans] == [b"first plan"] * 3
    assert len(machine.built) == 1


@pytest.mark.parametrize("change", ["tensorrt", "driver", "device", "options", "recipe"])
def test_a_change_of_what_decides_builds_anew_and_deserialises_nothing_old(
    artifact: Artifact, store: PlanStore, machine: Machine, behaviour: Behaviour, change: str
) -> None:
    load(artifact, store)
    behaviour.calls.clear()
    options = BuildOptions(tf32=True) if change == "options" else BuildOptions()
    if change == "recipe":
        artifact = replace(artifact, sidecar=replace(artifact.sidecar, recipe_version=2))
    elif change != "options":
        machine.environment = replace(ENVIRONMENT, **{change: "another"})
    load(artifact, store, options)
    assert len(machine.built) == 2
    assert behaviour.calls[0] == ("deserialize_cuda_engine", b"second plan")


def test_tampered_bytes_never_reach_the_deserialiser(
    artifact: Artifact, store: PlanStore, machine: Machine, behaviour: Behaviour
) -> None:
    plan = obtain_plan(artifact, BuildOptions(), store)
    (store.root / plan.key.digest() / "plan").write_bytes(b"evil plan!")
    load(artifact, store)
    assert behaviour.calls[0] == ("deserialize_cuda_engine", b"second plan")


def test_a_plan_tensorrt_rejects_is_deleted_and_built_once_more(
    artifact: Artifact, store: PlanStore, machine: Machine, behaviour: Behaviour
) -> None:
    behaviour.reject.add(b"first plan")
    load(artifact, store)
    offered = [call[1] for call in behaviour.calls if call[0] == "deserialize_cuda_engine"]
    assert offered == [b"first plan", b"second plan"]
    behaviour.reject |= {b"second plan", b"third plan"}
    with pytest.raises(PlanRejectedError):
        load(artifact, store)


def test_waiting_for_another_process_is_told(artifact: Artifact, store: PlanStore, machine: Machine) -> None:
    folder = make_private_folder(store.root / plan_key(artifact, BuildOptions(), ENVIRONMENT).digest())
    told = Event()
    workspace = Workspace(lambda nbytes: Memory((nbytes,), "uint8", 0x1000))
    with ThreadPoolExecutor(1) as pool:
        with folder_lock(folder):
            loading = pool.submit(
                load_tensorrt_engine, artifact, BuildOptions(), store, workspace, on_wait=told.set
            )
            assert told.wait(30)
            assert machine.built == []
        loading.result(30)
    assert len(machine.built) == 1


def test_a_model_changed_after_its_verification_is_not_built(
    artifact: Artifact, store: PlanStore, machine: Machine
) -> None:
    artifact.path.write_bytes(artifact.path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="changed after it had been verified"):
        obtain_plan(artifact, BuildOptions(), store)
    assert machine.built == []


def test_timings_are_kept_by_device_and_version_in_the_store(
    artifact: Artifact, store: PlanStore, machine: Machine
) -> None:
    obtain_plan(artifact, BuildOptions(), store, device=3)
    assert machine.built[0].timing_cache == store.root / "timing" / "nvidia-h200-sm9.0-trt11.4.0.106.timing"
    assert machine.built[0].device == 3
    assert timing_cache_file(store.root, replace(ENVIRONMENT, device="../../x")).parent == store.root


def test_where_the_timings_lie_does_not_change_the_key(artifact: Artifact, tmp_path: Path) -> None:
    here = plan_key(artifact, BuildOptions(), ENVIRONMENT)
    there = plan_key(artifact, BuildOptions(timing_cache=tmp_path, device=1), ENVIRONMENT)
    assert here.digest() == there.digest()
    assert here.options["profiles"] == [[1, 8, 8]]
    assert here.options["tf32"] is False


def cuda(status: int = 0) -> ModuleType:
    made = ModuleType("cuda.bindings.runtime")
    properties = SimpleNamespace(name=b"NVIDIA H200\0\0", major=9, minor=0, multiProcessorCount=132)
    made.__dict__.update(
        cudaSetDevice=lambda ordinal: (status,),
        cudaGetDeviceProperties=lambda ordinal: (status, properties),
        cudaRuntimeGetVersion=lambda: (0, 13020),
        cudaDriverGetVersion=lambda: (0, 13000),
    )
    return made


def test_the_environment_comes_from_tensorrt_and_cuda(
    behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed\nGCC version: 12\n")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda())
    monkeypatch.setattr(environment_module, "_DRIVER_FILE", driver)
    found = current_environment(sys.modules["tensorrt"], 0)
    assert found == replace(ENVIRONMENT, cuda="13.2", platform=found.platform)
    driver.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  590.44.01  Release Build\n")
    assert current_environment(sys.modules["tensorrt"], 0).driver == "590"
    driver.unlink()
    assert current_environment(sys.modules["tensorrt"], 0).driver == "cuda13.0"


def test_a_cuda_error_is_a_device_error(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda(status=100))
    with pytest.raises(DeviceError, match=r"cudaGetDeviceProperties\(7,\) failed: 100"):
        current_environment(sys.modules["tensorrt"], 7)


def test_without_cuda_bindings_the_next_command_is_named(
    behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(DeviceError, match="pip install"):
        current_environment(sys.modules["tensorrt"], 0)
