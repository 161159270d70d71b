"""Tiny ONNX networks that fit the real specs, so that the dub job is tested in seconds.

They compute something simple that still depends on every input: the mouth region of a dubbed frame moves with
the sound and with the driving window, and two runs are equal to the bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from toy_face_graphs import FACE_GRAPHS, Graph

from dubstream.engines.artifact import Artifact, artifact_paths, digest_files, open_artifact, publish_artifact
from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.sidecar import Sidecar
from dubstream.engines.specs import SPECS

SOURCE = "seeded:toy"


def publish_toys(folder: Path, *, broken: str | None = None) -> dict[str, Artifact]:
    """Publish toy artifacts of all networks into `folder`; the `broken` one returns NaN.

    The detectors' always find one face, see `toy_face_graphs`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _publish(folder, spec, broken == name) for name, spec in SPECS.items()}


def _publish(folder: Path, spec: NetworkSpec, broken: bool) -> Artifact:
    onnx_path, _ = artifact_paths(folder, spec.name)
    draft = onnx_path.with_suffix(".part")
    draft.write_bytes(_model(spec, broken).SerializeToString())
    files, digest = digest_files([draft], [onnx_path.name])
    sidecar = Sidecar(
        network=spec.name, precision="fp32", recipe="toy", recipe_version=1, spec=spec.as_json(), files=files,
        sha256=digest, source=SOURCE, ignored_keys={}, extra_keys=(), opset=20, tools={}, fidelity=(),
        created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    publish_artifact(draft, folder, sidecar)
    return open_artifact(folder, spec)


def _model(spec: NetworkSpec, broken: bool) -> onnx.ModelProto:
    nodes, constants = _GRAPHS[spec.name]
    if broken:
        constants = {
            name: value * np.nan if value.shape == () else value for name, value in constants.items()
        }
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in nodes],
        spec.name,
        [_value(tensor) for tensor in spec.inputs],
        [_value(tensor) for tensor in spec.outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    kind = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}[tensor.dtype]
    return helper.make_tensor_value_info(tensor.name, kind, list(tensor.shape))


def _f(*values: float) -> np.ndarray:
    return np.array(values if len(values) > 1 else values[0], np.float32)


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_GRAPHS: dict[str, Graph] = FACE_GRAPHS | {
    "recon": (
        [
            ("ReduceMean", ["image", "hw"], ["mean"], {"keepdims": 0}),
            ("MatMul", ["mean", "spread"], ["coeffs"], {}),
        ],
        {"hw": _i(2, 3), "spread": np.linspace(-1, 1, 3 * 257, dtype=np.float32).reshape(3, 257)},
    ),
    "dnet": (
        [
            ("ReduceMean", ["coefficients", "rows"], ["mean"], {"keepdims": 1}),
            ("Tanh", ["mean"], ["squeezed"], {}),
            ("Mul", ["squeezed", "gain"], ["small"], {}),
            ("Unsqueeze", ["small", "last"], ["offset"], {}),
            ("Add", ["image", "offset"], ["moved"], {}),
            ("Clip", ["moved", "low", "high"], ["edited"], {}),
            ("Identity", ["image"], ["warped"], {}),
            ("Slice", ["image", "start", "stop", "channel"], ["two"], {}),
            ("AveragePool", ["two"], ["flow"], {"kernel_shape": [4, 4], "strides": [4, 4]}),
        ],
        {
            "rows": _i(1, 2), "gain": _f(0.1), "last": _i(3), "low": _f(-1.0), "high": _f(1.0),
            "start": _i(0), "stop": _i(2), "channel": _i(1),
        },
    ),
    "lnet": (
        [
            ("ReduceMean", ["mel", "mel_axes"], ["loudness"], {"keepdims": 1}),
            ("Mul", ["loudness", "gain"], ["offset"], {}),
            ("Slice", ["faces", "start", "stop", "channel"], ["reference_face"], {}),
            ("Add", ["reference_face", "offset"], ["moved"], {}),
            ("Clip", ["moved", "low", "high"], ["lips"], {}),
        ],
        {
            "mel_axes": _i(1, 2, 3), "gain": _f(0.08), "start": _i(3), "stop": _i(6), "channel": _i(1),
            "low": _f(0.0), "high": _f(1.0),
        },
    ),
    "enet": (
        [
            ("Resize", ["lips", "", "scales"], ["large"], {"mode": "nearest"}),
            ("Mul", ["large", "half"], ["half_lips"], {}),
            ("Mul", ["reference", "half"], ["half_reference"], {}),
            ("Add", ["half_lips", "half_reference"], ["enhanced"], {}),
        ],
        {"scales": np.array([1, 1, 4, 4], np.float32), "half": _f(0.5)},
    ),
}  # fmt: skip
