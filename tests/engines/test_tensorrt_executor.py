"""Order and checks of the executor's calls, on a stand-in for TensorRT (`trt_checker.fake`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trt_checker import toys
from trt_checker.fake import Behaviour, Memory, module

from dubstream.engines.engine_key import EngineKey, Environment
from dubstream.engines.errors import ArtifactError, InternalError, UsageError
from dubstream.engines.store import PlanStore, StoredPlan
from dubstream.engines.tensorrt import executor as executor_module
from dubstream.engines.tensorrt import watch
from dubstream.engines.tensorrt.executor import PlanRejectedError, TensorrtEngine, Workspace

SPEC = toys.spec(
    "toy", {"frame": ("uint8", (16, 16, 3)), "mel": ("float16", (4,))}, {"shown": ("uint8", (8, 8, 3))}
)
KEY = EngineKey(
    "toy", "a" * 64, "fp16 1", {}, Environment("11.4.0.106", "1", "13.0", "580", "G", "9.0", 1, "x")
)


class Host:
    """Hands out addresses, and is a stream."""

    def __init__(self, handle: int | None = 77) -> None:
        self.handle = handle
        self.allocated: list[int] = []

    def allocate(self, nbytes: int) -> Memory:
        self.allocated.append(nbytes)
        return Memory((nbytes,), "uint8", 0x10000 * len(self.allocated))

    def launch(self, work: Callable[[], None], name: str) -> None:
        work()


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    made = Behaviour(SPEC)
    watch.logger.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt", module(made))
    return made


@pytest.fixture
def plan(tmp_path: Path) -> StoredPlan:
    return PlanStore(tmp_path / "engines").obtain(KEY, lambda: b"plan")


def tensors(batch: int, **change: Memory) -> dict[str, Memory]:
    made = {
        tensor.name: Memory(tensor.concrete(batch), tensor.dtype, 0x7000000 + 0x100 * index)
        for index, tensor in enumerate(SPEC.inputs + SPEC.outputs)
    }
    return {**made, **change}


def test_everything_is_set_before_the_first_run_and_a_run_is_one_enqueue(
    behaviour: Behaviour, plan: StoredPlan
) -> None:
    host = Host()
    engine = TensorrtEngine(plan, SPEC, workspace=Workspace(host.allocate))
    binding = engine.bind(tensors(8), 5)
    assert behaviour.calls == [
        ("deserialize_cuda_engine", b"plan"),
        ("create_execution_context", "USER_MANAGED"),
        ("set_device_memory", 0x10000, 4096),
        ("set_input_shape", "frame", (5, 16, 16, 3)),
        ("set_input_shape", "mel", (5, 4)),
        ("infer_shapes",),
        ("set_tensor_address", "frame", 0x7000000),
        ("set_tensor_address", "mel", 0x7000100),
        ("set_tensor_address", "shown", 0x7000200),
    ]
    behaviour.calls.clear()
    for _ in range(3):
        binding.enqueue(host)
    assert behaviour.calls == [("execute_async_v3", 77)] * 3
    assert host.allocated == [4096]


def test_only_plans_of_the_store_are_deserialised(behaviour: Behaviour) -> None:
    for foreign in (b"plan", SimpleNamespace(content=b"plan", key=KEY)):
        with pytest.raises(InternalError, match="only plans verified by the store"):
            TensorrtEngine(foreign, SPEC, workspace=Workspace(Host().allocate))  # type: ignore[arg-type]
    assert behaviour.calls == []


def test_a_plan_tensorrt_rejects_is_said_to_be_rebuilt(behaviour: Behaviour, plan: StoredPlan) -> None:
    behaviour.reject.add(b"plan")
    with pytest.raises(PlanRejectedError, match="dubstream build toy"):
        TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))


def test_a_plan_of_other_tensors_is_an_artifact_error(behaviour: Behaviour, plan: StoredPlan) -> None:
    behaviour.spec = replace(SPEC, inputs=(SPEC.inputs[0], replace(SPEC.inputs[1], dtype="float32")))
    with pytest.raises(ArtifactError, match=r"input 'mel' is float32 \(-1, 4\), expected float16"):
        TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("create_execution_context", "no execution context"),
        ("set_input_shape", "shape of frame"),
        ("set_tensor_address", "address of frame"),
        ("set_optimization_profile_async", "profile"),
    ],
)
def test_a_refused_setting_raises_when_binding(
    behaviour: Behaviour, plan: StoredPlan, call: str, words: str
) -> None:
    behaviour.refuse.add(call)
    behaviour.active_profile = -1
    if call != "set_optimization_profile_async":
        behaviour.active_profile = 0
    engine = TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))
    with pytest.raises(InternalError, match=words):
        engine.bind(tensors(1), 1)


def test_a_missing_shape_raises_with_its_name(behaviour: Behaviour, plan: StoredPlan) -> None:
    behaviour.unspecified = ["mel"]
    engine = TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))
    with pytest.raises(InternalError, match="misses the shapes of mel"):
        engine.bind(tensors(1), 1)


def test_a_refused_run_raises_with_the_log(behaviour: Behaviour, plan: StoredPlan) -> None:
    engine = TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))
    binding = engine.bind(tensors(1), 1)
    behaviour.refuse.add("execute_async_v3")
    watch.tail.take("ERROR", "out of everything")
    with pytest.raises(InternalError, match="refused the run for a batch of 1: ERROR: out of everything"):
        binding.enqueue(Host())


def test_a_context_without_a_profile_gets_the_first_and_waits(
    behaviour: Behaviour, plan: StoredPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour.active_profile = -1
    monkeypatch.setattr(executor_module, "finish_default_stream", lambda: behaviour.record("finish"))
    TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate)).bind(tensors(1), 1)
    names = behaviour.names()
    assert (
        names.index("set_optimization_profile_async") + 1
        == names.index("finish")
        < names.index("set_input_shape")
    )


def test_a_misaligned_array_is_refused(behaviour: Behaviour, plan: StoredPlan) -> None:
    engine = TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))
    with pytest.raises(InternalError, match="'mel' lies at 0x10, expected an address on 256 bytes"):
        engine.bind(tensors(1, mel=Memory((1, 4), "float16", 0x10)), 1)


@pytest.mark.parametrize("handle", [None, 0])
def test_the_default_stream_is_refused(behaviour: Behaviour, plan: StoredPlan, handle: int | None) -> None:
    binding = TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate)).bind(tensors(1), 1)
    with pytest.raises(InternalError, match="a CUDA stream of its own"):
        binding.enqueue(Host(handle))
    assert "execute_async_v3" not in behaviour.names()


def test_engines_share_one_block_of_the_largest_need(behaviour: Behaviour, plan: StoredPlan) -> None:
    host = Host()
    workspace = Workspace(host.allocate)
    engines = []
    for behaviour.scratch in (4096, 65536, 512):
        engines.append(TensorrtEngine(plan, SPEC, workspace=workspace))
    for engine in engines:
        engine.bind(tensors(1), 1)
        engine.bind(tensors(2), 2)
    lent = {call[1:] for call in behaviour.calls if call[0] == "set_device_memory"}
    assert (host.allocated, lent) == ([65536], {(0x10000, 65536)})


def test_a_later_engine_gets_a_larger_block_and_leaves_the_earlier_its_own(
    behaviour: Behaviour, plan: StoredPlan
) -> None:
    host = Host()
    workspace = Workspace(host.allocate)
    early = TensorrtEngine(plan, SPEC, workspace=workspace).bind(tensors(1), 1)
    behaviour.scratch = 1 << 20
    TensorrtEngine(plan, SPEC, workspace=workspace).bind(tensors(1), 1)
    assert host.allocated == [4096, 1 << 20]
    early.enqueue(host)  # its context still has the first block, which the binding keeps alive


def test_engines_of_one_workspace_are_held_to_one_stream(behaviour: Behaviour, plan: StoredPlan) -> None:
    workspace = Workspace(Host().allocate)
    first, second = (TensorrtEngine(plan, SPEC, workspace=workspace).bind(tensors(1), 1) for _ in range(2))
    first.enqueue(Host(77))
    with pytest.raises(InternalError, match="share a workspace run on stream 77, received 78"):
        second.enqueue(Host(78))


def test_the_plans_profile_limits_the_batch(behaviour: Behaviour, plan: StoredPlan) -> None:
    behaviour.largest = 4
    assert TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate)).max_batch == 4
    with pytest.raises(UsageError, match="built for at most 4"):
        TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate), max_batch=5)


def test_a_closed_engine_runs_nothing(behaviour: Behaviour, plan: StoredPlan) -> None:
    engine = TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))
    binding = engine.bind(tensors(1), 1)
    engine.close()
    engine.close()
    with pytest.raises(InternalError, match="released"):
        binding.enqueue(Host())
    with pytest.raises(InternalError, match="closed"):
        engine.bind(tensors(1), 1)


def test_versions_too_old_are_refused_before_anything_else(
    behaviour: Behaviour, plan: StoredPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module(behaviour, "10.12.0.36"))
    with pytest.raises(Exception, match=r"10\.12\.0\.36 is installed, expected 10\.13 or later"):
        TensorrtEngine(plan, SPEC, workspace=Workspace(Host().allocate))
    assert behaviour.calls == []


def test_the_plan_shows_its_key_not_its_bytes(plan: StoredPlan) -> None:
    text: Any = repr(plan)
    assert text == f"StoredPlan(toy, {KEY.digest()[:12]}, 4 bytes)"
