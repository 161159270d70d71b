"""Networks as stages: two ONNX Runtime engines hand over on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance
from dubstream.engines.engine import Engine
from dubstream.engines.errors import UsageError
from dubstream.engines.onnxruntime_engine import OnnxRuntimeEngine
from dubstream.runtime.streaming import BufferSpec, EngineStage, HostDevice, Slot, Stage, Streamer
from dubstream.runtime.streaming.stages import Interruptible

SIZE = 12
FRAMES = 14


def make_network(name: str, source: str, target: str, seed: int) -> tuple[NetworkSpec, bytes]:
    """``target = tanh(source @ weights)`` and ``unused = -target``."""
    axes = [BATCH, SIZE]
    weights = np.random.default_rng(seed).standard_normal((SIZE, SIZE)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [source, "weights"], ["raw"]),
            helper.make_node("Tanh", ["raw"], [target]),
            helper.make_node("Neg", [target], ["unused"]),
        ],
        name,
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, axes) for output in (target, "unused")],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    spec = NetworkSpec(
        name=name,
        title="a toy",
        inputs=(_tensor(source),),
        outputs=(_tensor(target), _tensor("unused")),
        max_batch=4,
        tolerances={output: Tolerance(0.0, 1.0, "test") for output in (target, "unused")},
        checkpoint="",
        gmacs=0.0,
        licence="",
    )
    return spec, model.SerializeToString()


def _tensor(name: str) -> TensorSpec:
    return TensorSpec(name, "float32", (BATCH, SIZE), None, None, "test")


LIPS, LIPS_MODEL = make_network("lipnet", "mel", "lips", 1)
FACE, FACE_MODEL = make_network("facenet", "mouth", "face", 2)
BUFFERS = (
    BufferSpec("mel", (SIZE,), "float32", "input"),
    BufferSpec("lips", (SIZE,), "float32", "scratch"),
    BufferSpec("picture", (SIZE,), "float32", "output"),
)


@pytest.fixture
def engines() -> Iterator[tuple[Engine, Engine]]:
    with (
        OnnxRuntimeEngine(LIPS_MODEL, LIPS, threads=1) as lips,
        OnnxRuntimeEngine(FACE_MODEL, FACE, threads=1) as face,
    ):
        yield lips, face


def make_stages(engines: tuple[Engine, Engine]) -> list[Stage]:
    return [EngineStage(engines[0]), EngineStage(engines[1], {"mouth": "lips", "face": "picture"}, name="f")]


def direct(mel: np.ndarray) -> np.ndarray:
    """The two networks one after the other, one item at a time, in plain sessions."""
    providers = ["CPUExecutionProvider"]
    lips = onnxruntime.InferenceSession(LIPS_MODEL, providers=providers)
    face = onnxruntime.InferenceSession(FACE_MODEL, providers=providers)
    rows = [face.run(["face"], {"mouth": lips.run(["lips"], {"mel": row[None]})[0]})[0] for row in mel]
    return np.concatenate(rows)


def stream(streamer: Streamer, mel: np.ndarray, batch: int) -> np.ndarray:
    result = np.full_like(mel, np.nan)

    def fill(slot: Slot, first: int) -> None:
        part = mel[first : first + batch]
        slot.first, slot.count = first, len(part)
        slot.inputs["mel"][: len(part)] = part

    def drain(slot: Slot) -> None:
        result[slot.first : slot.first + slot.count] = slot.outputs["picture"][: slot.count]

    streamer.run(range(0, len(mel), batch), fill, drain)
    return result


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_streamed_networks_equal_direct_runs(engines: tuple[Engine, Engine], batch: int, slots: int) -> None:
    mel = np.random.default_rng(3).standard_normal((FRAMES, SIZE), dtype=np.float32)
    with Streamer(HostDevice(), BUFFERS, make_stages(engines), batch=batch, slots=slots) as streamer:
        first, again = stream(streamer, mel, batch), stream(streamer, mel, batch)
    # Matrix products of one row and of several may sum in another order.
    np.testing.assert_allclose(first, direct(mel), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(first, again)


def test_stage_names_are_the_networks_unless_given(engines: tuple[Engine, Engine]) -> None:
    assert [stage.name for stage in make_stages(engines)] == ["lipnet", "f"]


def test_every_slot_and_count_is_bound_once(
    engines: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[int] = []
    original = OnnxRuntimeEngine.bind
    monkeypatch.setattr(
        OnnxRuntimeEngine,
        "bind",
        lambda self, tensors, batch: bound.append(batch) or original(self, tensors, batch),
    )
    mel = np.zeros((FRAMES, SIZE), np.float32)
    with Streamer(HostDevice(), BUFFERS, [make_stages(engines)[0], _picture(engines)], batch=4) as streamer:
        assert bound == [4] * 4  # two stages, two slots, before the first frame
        for _ in range(3):
            stream(streamer, mel, 4)
    assert sorted(bound) == [2, 2] + [4] * 4  # and two for the short batch, which always meets slot 1


def _picture(engines: tuple[Engine, Engine]) -> Stage:
    return EngineStage(engines[1], {"mouth": "lips", "face": "picture"})


def test_a_missing_buffer_is_named_with_those_that_exist(engines: tuple[Engine, Engine]) -> None:
    stage = EngineStage(engines[1], {"mouth": "lisp", "face": "picture"})
    with pytest.raises(
        UsageError, match=r"no slot buffer \['lisp'\], there are \['lips', 'mel', 'picture'\]"
    ):
        Streamer(HostDevice(), BUFFERS, [stage], batch=2)


def test_a_buffer_that_does_not_fit_is_refused_before_the_first_frame(engines: tuple[Engine, Engine]) -> None:
    buffers = (BufferSpec("mel", (SIZE + 1,), "float32", "input"), *BUFFERS[1:])
    with pytest.raises(UsageError, match=r"lipnet: 'mel': received float32 \(2, 13\)"):
        Streamer(HostDevice(), buffers, [EngineStage(engines[0])], batch=2)


def test_a_batch_larger_than_the_engines_is_refused(engines: tuple[Engine, Engine]) -> None:
    with pytest.raises(UsageError, match="batch of 5, expected 1 to 4"):
        Streamer(HostDevice(), BUFFERS, make_stages(engines), batch=5)


def test_interrupting_a_stage_leaves_later_runs_alone(engines: tuple[Engine, Engine]) -> None:
    stages = make_stages(engines)
    mel = np.random.default_rng(3).standard_normal((FRAMES, SIZE), dtype=np.float32)
    with Streamer(HostDevice(), BUFFERS, stages, batch=2) as streamer:
        before = stream(streamer, mel, 2)
        for stage in stages:
            assert isinstance(stage, Interruptible)
            stage.interrupt()
        np.testing.assert_array_equal(stream(streamer, mel, 2), before)
