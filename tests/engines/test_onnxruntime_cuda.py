"""The ONNX Runtime CUDA engine on a stand-in for ONNX Runtime; its streams over a fake driver.

No machine here can run the CUDA provider: what is tested is what we ask of it and when we refuse it.
"""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda

from dubstream.engines import onnxruntime_cuda
from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.cuda_stream import SideStream
from dubstream.engines.errors import ArtifactError, DeviceError, InternalError, UsageError
from dubstream.engines.onnxruntime_cuda import PROVIDER, OnnxRuntimeCudaEngine

CPU = "CPUExecutionProvider"


def tensor(name: str) -> TensorSpec:
    return TensorSpec(name, "int64", (BATCH, 6, 7), None, None, "test")


SPEC = NetworkSpec(
    "toy", "a toy", (tensor("x"),), (tensor("y"), tensor("z")), 4,
    {name: Tolerance(0.0, 1.0, "test") for name in "yz"}, 0.0, "toy.pth", "test",
)  # fmt: skip


class Memory(SimpleNamespace):
    """Stands for a device array."""

    def __init__(self, ptr: int, batch: int = 4) -> None:
        flags = SimpleNamespace(c_contiguous=True)
        super().__init__(ptr=ptr, shape=(batch, 6, 7), dtype=np.dtype("int64"), flags=flags)


class StandIn:
    """ONNX Runtime as far as the engine uses it; records what it is asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.available = [PROVIDER, CPU]
        self.obtained = [PROVIDER, CPU]
        self.placement: list[tuple[str, str]] = [(PROVIDER, "Conv"), (CPU, "Shape"), (CPU, "Gather")]
        self.load_error: Exception | None = None
        self.dtype = "tensor(int64)"
        self.run = lambda bound, options: None
        self.settings: dict[str, str] = {}

    def module(self) -> ModuleType:
        stand_in = self

        class SessionOptions:
            def add_session_config_entry(self, key: str, value: str) -> None:
                stand_in.settings[key] = value

        class RunOptions:
            def add_run_config_entry(self, key: str, value: str) -> None:
                stand_in.calls.append(("run option", key, value))

        class Io:
            def __init__(self) -> None:
                self.bound: dict[str, tuple[Any, ...]] = {}

            def bind_input(self, name: str, *address: Any) -> None:
                self.bound[name] = address

            bind_output = bind_input

        class InferenceSession:
            def __init__(self, source: Any, options: Any, providers: list[Any]) -> None:
                if stand_in.load_error:
                    raise stand_in.load_error
                ((stand_in.provider, stand_in.options),) = providers
                self.io_binding = Io

            def get_providers(self) -> list[str]:
                return stand_in.obtained

            def get_inputs(self) -> list[Any]:
                return [SimpleNamespace(name="x", type=stand_in.dtype, shape=["batch", 6, 7])]

            def get_outputs(self) -> list[Any]:
                return [SimpleNamespace(name=n, type="tensor(int64)", shape=["batch", 6, 7]) for n in "yz"]

            def get_provider_graph_assignment_info(self) -> list[Any]:
                return [
                    SimpleNamespace(ep_name=name, get_nodes=lambda op=op: [SimpleNamespace(op_type=op)])
                    for name, op in stand_in.placement
                ]

            def run_with_iobinding(self, io: Io, options: Any) -> None:
                stand_in.calls.append(("run", dict(io.bound)))
                stand_in.run(io.bound, stand_in.options)

        module = ModuleType("onnxruntime")
        module.__dict__.update(
            __version__="1.31.1", SessionOptions=SessionOptions, RunOptions=RunOptions,
            InferenceSession=InferenceSession, ExecutionMode=SimpleNamespace(ORT_SEQUENTIAL=0),
            get_available_providers=lambda: self.available,
            preload_dlls=lambda: self.calls.append("preload"),
        )  # fmt: skip
        return module


class Side:
    """Stands for a `SideStream`; records when it is used and closed."""

    made: list[Any]

    def __init__(self) -> None:
        self.handle = 4711
        self.used: list[Any] = []
        Side.made.append(self)

    def within(self, handle: int, enqueue: Any) -> None:
        self.used.append(handle)
        enqueue()

    def close(self) -> None:
        self.used.append("closed")


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in, Side.made = StandIn(), []
    install(monkeypatch, stand_in)
    monkeypatch.setattr(onnxruntime_cuda, "SideStream", Side)
    return stand_in


def install(monkeypatch: pytest.MonkeyPatch, stand_in: StandIn) -> None:
    def only_gpu(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise metadata.PackageNotFoundError(name)
        return name

    monkeypatch.setattr(metadata, "distribution", only_gpu)
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in.module())


class Inline:
    handle = 99

    def launch(self, work: Any, name: str) -> None:
        work()


def test_the_session_gets_our_stream_and_stated_options(ort: StandIn) -> None:
    OnnxRuntimeCudaEngine(b"model", SPEC, index=1)
    assert ort.provider == PROVIDER
    assert ort.options == {
        "device_id": "1",
        "user_compute_stream": "4711",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
    assert ort.settings == {"session.record_ep_graph_assignment_info": "1"}
    assert ort.calls == ["preload"]


def test_options_are_passed_on(ort: StandIn) -> None:
    OnnxRuntimeCudaEngine(b"model", SPEC, tf32=True, conv_search="exhaustive", memory_limit=1 << 30)
    assert ort.options["use_tf32"] == "1"
    assert ort.options["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert ort.options["gpu_mem_limit"] == str(1 << 30)


@pytest.mark.parametrize("option", [{"conv_search": "fastest"}, {"memory_limit": 0}, {"max_batch": 5}])
def test_options_out_of_range_are_refused(ort: StandIn, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        OnnxRuntimeCudaEngine(b"model", SPEC, **option)
    assert [side.used for side in Side.made] in ([], [["closed"]])


def test_a_run_is_bound_to_our_addresses_and_waits_for_nothing(ort: StandIn) -> None:
    engine = OnnxRuntimeCudaEngine(b"model", SPEC, index=1)
    binding = engine.bind({"x": Memory(0x1000), "y": Memory(0x2000)}, 3)
    ort.calls.remove("preload")
    assert ort.calls == [("run option", "disable_synchronize_execution_providers", "1")]
    for _ in range(2):
        binding.enqueue(Inline())
    bound = {"x": ("cuda", 1, np.int64, (3, 6, 7), 0x1000), "y": ("cuda", 1, np.int64, (3, 6, 7), 0x2000)}
    assert ort.calls[1:] == [("run", bound)] * 2
    assert Side.made[0].used == [99, 99]
    engine.close()
    assert Side.made[0].used == [99, 99, "closed"]
    with pytest.raises(InternalError, match="released with its engine"):
        binding.enqueue(Inline())


def test_host_memory_and_host_streams_are_refused(ort: StandIn) -> None:
    engine = OnnxRuntimeCudaEngine(b"model", SPEC)
    host = np.zeros((4, 6, 7), np.int64)
    with pytest.raises(UsageError, match="'x': received a ndarray, expected device memory"):
        engine.bind({"x": host, "y": host}, 1)
    binding = engine.bind({"x": Memory(0x1000), "y": Memory(0x2000)}, 1)
    stream = Inline()
    stream.handle = None  # type: ignore[assignment]
    with pytest.raises(InternalError, match="runs on a CUDA stream"):
        binding.enqueue(stream)


# No silent fallback


def refused(match: str) -> DeviceError:
    with pytest.raises(DeviceError, match=match) as caught:
        OnnxRuntimeCudaEngine(b"model", SPEC)
    assert caught.value.exit_code == 69
    assert caught.value.hint
    assert all(side.used == ["closed"] for side in Side.made)
    return caught.value


def test_a_cpu_build_is_refused(ort: StandIn) -> None:
    ort.available = [CPU]
    error = refused("has no CUDA provider, only CPUExecutionProvider")
    assert "onnxruntime-gpu" in str(error)


def test_a_session_that_fell_back_to_the_cpu_is_refused(ort: StandIn) -> None:
    """As when a CUDA library is missing: ONNX Runtime only logs that and goes on."""
    ort.obtained = [CPU]
    error = refused(r"received providers \['CPUExecutionProvider'\], expected CUDAExecutionProvider")
    assert "onnxruntime-gpu[cuda,cudnn]" in str(error)


def test_layers_on_the_cpu_are_refused_but_shape_arithmetic_is_not(ort: StandIn) -> None:
    OnnxRuntimeCudaEngine(b"model", SPEC)
    Side.made.clear()
    ort.placement += [(CPU, "GridSample"), (CPU, "DFT")]
    refused("would run DFT, GridSample on the CPU")


def test_a_runtime_that_cannot_tell_is_refused(ort: StandIn) -> None:
    del sys.modules["onnxruntime"].InferenceSession.get_provider_graph_assignment_info
    refused("cannot say where it runs each layer")


def test_a_missing_runtime_names_the_gpu_extra(ort: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = refused("cannot be imported")
    assert "dubstream[gpu]" in str(error)


def test_a_model_that_does_not_load_or_fit_is_an_artifact_error(ort: StandIn) -> None:
    ort.dtype = "tensor(float)"
    with pytest.raises(ArtifactError, match="input 'x' is float32"):
        OnnxRuntimeCudaEngine(b"model", SPEC)
    ort.load_error = RuntimeError("no graph")
    with pytest.raises(ArtifactError, match="cannot load 'toy': no graph"):
        OnnxRuntimeCudaEngine(b"model", SPEC)
    assert [side.used for side in Side.made] == [["closed"], ["closed"]]


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.bindings", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match="cuda-bindings cannot be imported"):
        SideStream()


# The ties of the streams, over the fake driver


def copy_session() -> StandIn:
    """Its network copies x to y on the stream the session was given, without waiting for it."""
    from cuda.bindings import driver

    def run(bound: dict[str, Any], options: dict[str, str]) -> None:
        (*_, shape, source), (*_, target) = bound["x"], bound["y"]
        stream = int(options["user_compute_stream"])
        (status,) = driver.cuMemcpyDtoDAsync(target, source, 8 * int(np.prod(shape)), stream)
        assert int(status) == 0

    stand_in = StandIn()
    stand_in.run = run
    return stand_in


def wrong_batches(fake: FakeCuda, engine: Any, device: Any, schedule: dict[str, Any]) -> int:
    """Batches that come out wrong of: kernel, engine, kernel."""
    from cuda_parts import KernelStage, run_frames
    from streaming_parts import make_frames

    from dubstream.runtime.streaming import BufferSpec, EngineStage, Streamer

    frames = make_frames(18, seed=schedule.get("seed", 0))
    buffers = [
        BufferSpec("x", (6, 7), "int64", "input"),
        BufferSpec("a", (6, 7), "int64", "scratch"),
        BufferSpec("b", (6, 7), "int64", "scratch"),
        BufferSpec("y", (6, 7), "int64", "output"),
    ]
    stages = [
        KernelStage(fake, "triple", "x", "a"),
        EngineStage(engine, {"x": "a", "y": "b"}),
        KernelStage(fake, "increment", "b", "y"),
    ]
    fake.policy(schedule["name"], seed=schedule.get("seed", 0), slow=tuple(schedule.get("slow", ())))
    with Streamer(device, buffers, stages, batch=3, slots=2) as streamer:
        found = run_frames(streamer, frames)
    fake.policy("lazy")
    return int((found != 3 * frames + 1).any(axis=(1, 2)).sum())


def all_wrong_batches(fake: FakeCuda) -> list[int]:
    from pathlib import Path

    sys.path.append(str(Path(__file__).parents[1] / "runtime"))
    from cuda_parts import SCHEDULES

    from dubstream.runtime.streaming.cuda import CudaDevice

    with pytest.MonkeyPatch.context() as patch, fake.nothing_left(), CudaDevice() as device:
        install(patch, copy_session())
        with OnnxRuntimeCudaEngine(b"model", SPEC) as engine:
            return [wrong_batches(fake, engine, device, schedule) for schedule in SCHEDULES]


@over_fake_cuda()
def test_the_sessions_stream_is_tied_into_ours(fake: FakeCuda) -> None:
    assert set(all_wrong_batches(fake)) == {0}


@over_fake_cuda()
@pytest.mark.parametrize("forgotten", ["_before", "_after"])
def test_a_forgotten_tie_is_caught(fake: FakeCuda, forgotten: str) -> None:
    def careless(self: Any, handle: int, enqueue: Any) -> None:
        driver = self._driver
        if forgotten != "_before":
            driver.cuEventRecord(self._before, handle)
            driver.cuStreamWaitEvent(self._stream, self._before, 0)
        enqueue()
        if forgotten != "_after":
            driver.cuEventRecord(self._after, self._stream)
            driver.cuStreamWaitEvent(handle, self._after, 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SideStream, "within", careless)
        assert max(all_wrong_batches(fake)) > 0


@over_fake_cuda()
def test_a_side_stream_needs_an_attached_thread_and_gives_back_what_it_makes(fake: FakeCuda) -> None:
    from dubstream.runtime.streaming.cuda import CudaDevice

    device = CudaDevice()
    with pytest.raises(DeviceError, match=r"making a stream failed: CUDA_ERROR_INVALID_CONTEXT .*attach"):
        SideStream()
    with device, fake.nothing_left():
        side = SideStream()
        side.close()
        side.close()
