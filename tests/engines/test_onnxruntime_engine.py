"""The ONNX Runtime engine on tiny models: values, addresses, allocations, refusals."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.engine import Engine
from dubstream.engines.errors import ArtifactError, DeviceError, InternalError, UsageError
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine

MAX_BATCH = 5


class InlineStream:
    """A stream that runs work at once."""

    handle = None

    def launch(self, work: Callable[[], None], name: str) -> None:
        work()


def make_spec() -> NetworkSpec:
    def tensor(name: str, *item: int) -> TensorSpec:
        return TensorSpec(name, "float32", (BATCH, *item), None, None, "test")

    outputs = (tensor("product", 3, 6), tensor("double", 3, 4))
    return NetworkSpec(
        name="toy",
        title="a toy",
        inputs=(tensor("left", 3, 4), tensor("bias", 6)),
        outputs=outputs,
        max_batch=MAX_BATCH,
        tolerances={output.name: Tolerance(0.0, 1.0, "test") for output in outputs},
        checkpoint="toy.pth",
        gmacs=0.0,
        licence="test",
    )


def make_model(
    *,
    batch: int | str = BATCH,
    left: str = "left",
    dtype: int = TensorProto.FLOAT,
    columns: int = 4,
    extra_output: bool = False,
) -> bytes:
    """``product = left @ weights + bias``, ``double = left + left``."""
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    weights = np.random.default_rng(7).standard_normal((columns, 6)).astype(numpy_type)
    nodes = [
        helper.make_node("MatMul", [left, "weights"], ["raw"]),
        helper.make_node("Unsqueeze", ["bias", "axis"], ["row"]),
        helper.make_node("Add", ["raw", "row"], ["product"]),
        helper.make_node("Add", [left, left], ["double"]),
    ]
    outputs = [("product", [batch, 3, 6]), ("double", [batch, 3, columns])]
    if extra_output:
        nodes.append(helper.make_node("Neg", ["double"], ["negative"]))
        outputs.append(("negative", [batch, 3, columns]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info(left, dtype, [batch, 3, columns]),
            helper.make_tensor_value_info("bias", dtype, [batch, 6]),
        ],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs],
        [
            onnx.numpy_helper.from_array(weights, "weights"),
            onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    return serialise(graph)


def serialise(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_arrays(items: int = MAX_BATCH, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "left": random.standard_normal((items, 3, 4), dtype=np.float32),
        "bias": random.standard_normal((items, 6), dtype=np.float32),
        "product": np.full((items, 3, 6), np.nan, np.float32),
        "double": np.full((items, 3, 4), np.nan, np.float32),
    }


@pytest.fixture
def engine():
    with OnnxRuntimeEngine(make_model(), make_spec(), threads=1) as engine:
        yield engine


@pytest.mark.parametrize("batch", range(1, MAX_BATCH + 1))
def test_every_batch_size_equals_a_direct_run_and_writes_only_its_items(engine: Engine, batch: int) -> None:
    arrays = make_arrays()
    engine.bind(arrays, batch).enqueue(InlineStream())
    session = onnxruntime.InferenceSession(make_model(), providers=["CPUExecutionProvider"])
    expected = session.run(["product", "double"], {name: arrays[name][:batch] for name in ("left", "bias")})
    for name, want in zip(("product", "double"), expected, strict=True):
        np.testing.assert_array_equal(arrays[name][:batch], want)
        assert np.isnan(arrays[name][batch:]).all()


def test_a_binding_reads_and_writes_the_arrays_it_was_given(engine: Engine) -> None:
    arrays = make_arrays()
    binding = engine.bind(arrays, 2)
    binding.enqueue(InlineStream())
    arrays["left"][:] = 3.0
    binding.enqueue(InlineStream())
    np.testing.assert_array_equal(arrays["double"][:2], 6.0)


def test_outputs_nobody_wants_may_be_left_out(engine: Engine) -> None:
    arrays = make_arrays()
    del arrays["product"]
    engine.bind(arrays, 3).enqueue(InlineStream())
    np.testing.assert_array_equal(arrays["double"][:3], 2 * arrays["left"][:3])


def test_runs_allocate_nothing_that_stays(engine: Engine) -> None:
    binding, stream = engine.bind(make_arrays(), MAX_BATCH), InlineStream()
    for _ in range(20):
        binding.enqueue(stream)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(500):
            binding.enqueue(stream)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One array of this model is 240 to 360 bytes: 500 runs that kept any would show 100 KB and more.
    assert after - before < 4096
    assert peak - before < 8192


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left": None}, "no array for 'left'"),
        ({"product": None, "double": None}, "no array for any output"),
        ({"depth": np.zeros((5, 1), np.float32)}, "unknown tensor 'depth'"),
        ({"left": np.zeros((5, 3, 5), np.float32)}, "'left': received float32 (5, 3, 5)"),
        ({"left": np.zeros((1, 3, 4), np.float32)}, "with at least 2 items"),
        ({"left": np.float32(1)}, "'left': received float32 ()"),
        ({"bias": np.zeros((5, 6), np.float64)}, "'bias': received float64"),
        ({"double": np.zeros((5, 3, 8), np.float32)[:, :, ::2]}, "'double': received a strided array"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(engine: Engine, change: dict[str, Any], message: str) -> None:
    arrays = {**make_arrays(), **change}
    with pytest.raises(UsageError) as caught:
        engine.bind({name: array for name, array in arrays.items() if array is not None}, 2)
    assert message in str(caught.value)


def test_all_faults_come_in_one_message(engine: Engine) -> None:
    arrays = make_arrays()
    del arrays["left"]
    arrays["bias"] = arrays["bias"].astype(np.float16)
    with pytest.raises(UsageError, match=r"'bias': received float16.*no array for 'left'"):
        engine.bind(arrays, 1)


@pytest.mark.parametrize("batch", [0, -1, MAX_BATCH + 1])
def test_batches_out_of_range_are_refused(engine: Engine, batch: int) -> None:
    with pytest.raises(UsageError, match=f"batch of {batch}, expected 1 to {MAX_BATCH}"):
        engine.bind(make_arrays(MAX_BATCH + 1), batch)


def test_arrays_of_another_device_are_refused(engine: Engine) -> None:
    class Foreign:
        shape, dtype, flags = (5, 3, 4), np.dtype("float32"), np.zeros(1).flags

    with pytest.raises(UsageError, match="expected host memory"):
        engine.bind({**make_arrays(), "left": Foreign()}, 1)


@pytest.mark.parametrize("option", [{"threads": 0}, {"max_batch": 0}, {"max_batch": MAX_BATCH + 1}])
def test_options_out_of_range_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="received"):
        OnnxRuntimeEngine(make_model(), make_spec(), **option)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left": "right"}, "no input 'left'; unknown input 'right'"),
        ({"dtype": TensorProto.DOUBLE}, r"'left' is float64 \['batch', 3, 4\], expected float32"),
        ({"columns": 5}, r"'left' is float32 \['batch', 3, 5\]"),
        ({"batch": 2}, r"'left' is float32 \[2, 3, 4\]"),
        ({"extra_output": True}, "unknown output 'negative'"),
    ],
)
def test_a_model_that_does_not_fit_its_spec_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        OnnxRuntimeEngine(make_model(**change), make_spec())
    assert caught.value.hint == "remake it: dubstream export toy"


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot load 'toy'"):
        OnnxRuntimeEngine(b"no model at all", make_spec())
    with pytest.raises(ArtifactError, match="cannot load 'toy'"):
        OnnxRuntimeEngine(tmp_path / "absent.onnx", make_spec())


def test_a_file_serves_like_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "toy.onnx").write_bytes(make_model())
    arrays = make_arrays()
    with OnnxRuntimeEngine(tmp_path / "toy.onnx", make_spec(), threads=2, spin=True) as engine:
        engine.bind(arrays, 4).enqueue(InlineStream())
    np.testing.assert_array_equal(arrays["double"][:4], 2 * arrays["left"][:4])


def test_a_missing_runtime_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError) as caught:
        OnnxRuntimeEngine(make_model(), make_spec())
    assert caught.value.hint == 'pip install "dubstream[cpu]"'


def test_two_runtimes_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    with pytest.raises(DeviceError, match="both onnxruntime and onnxruntime-gpu") as caught:
        OnnxRuntimeEngine(make_model(), make_spec())
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in str(caught.value.hint)


def test_a_session_on_another_provider_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        def __init__(self, *args: object, **options: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["AzureExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Elsewhere)
    with pytest.raises(DeviceError, match="expected CPUExecutionProvider"):
        OnnxRuntimeEngine(make_model(), make_spec())


def test_a_closed_engine_and_its_bindings_say_so() -> None:
    engine = OnnxRuntimeEngine(make_model(), make_spec(), threads=1)
    binding = engine.bind(make_arrays(), 1)
    engine.close()
    engine.close()
    with pytest.raises(InternalError, match="released with its engine"):
        binding.enqueue(InlineStream())
    with pytest.raises(InternalError, match="is closed"):
        engine.bind(make_arrays(), 1)


def endless_model() -> bytes:
    """A loop of 2^62 turns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["state", "state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, 1])],
        [onnx.numpy_helper.from_array(np.array(2**62, np.int64), "turns")],
    )
    return serialise(graph)


def test_an_interrupted_run_fails_and_leaves_other_threads_the_interpreter() -> None:
    tensor = TensorSpec("x", "float32", (BATCH, 1), None, None, "test")
    spec = NetworkSpec(
        name="endless",
        title="never ends",
        inputs=(tensor,),
        outputs=(TensorSpec("y", "float32", (BATCH, 1), None, None, "test"),),
        max_batch=1,
        tolerances={"y": Tolerance(0.0, 1.0, "test")},
        checkpoint="",
        gmacs=0.0,
        licence="",
    )
    failures: list[Exception] = []
    with OnnxRuntimeEngine(endless_model(), spec, threads=1) as engine:
        binding = engine.bind({"x": np.ones((1, 1), np.float32), "y": np.ones((1, 1), np.float32)}, 1)

        def run() -> None:
            try:
                binding.enqueue(InlineStream())
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        # That this loop gets to run at all while the network does shows that the lock is free.
        while thread.is_alive():
            binding.interrupt()
            thread.join(0.01)
    assert "terminate" in str(failures[0])
