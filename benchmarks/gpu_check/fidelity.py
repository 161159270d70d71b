"""FP16 artifacts against FP32 ones: pictures in, pictures out, the same faces through both.

The two have different edges (uint8 pictures against float planes); the conversions here restate what the
FP16 graphs do inside, in float64 where it matters, independently of the exporting code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.benchmarks.gpu_check.engines import compared, engine_outputs, session_outputs
from dubstream.benchmarks.gpu_check.executors import Arrays, artifact_of, backends, seeded_inputs
from dubstream.benchmarks.gpu_check.journal import Journal
from dubstream.benchmarks.gpu_check.setting import Setting
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.face_specs import BGR_MEANS
from dubstream.export.real_inputs import real_inputs

F32 = npt.NDArray[np.float32]
_WHITE = 255.0


def check(setting: Setting, journal: Journal) -> None:
    """Rows ``fidelity/NETWORK/BACKEND/OUTPUT`` at the tolerances of the FP16 specs.

    ONNX Runtime's CPU computes FP16 in FP32: its rows judge rounding at the edges and the weights only.
    """
    for name in setting.networks:
        stage = f"fidelity/{name}"
        with journal.guard(stage):
            half, full = artifact_of(setting, name, "fp16"), artifact_of(setting, name, "fp32")
            for case, inputs in _cases(half.spec, 1 if setting.small else 2).items():
                wanted = shown(name, session_outputs(full, planes(name, inputs)), inputs)
                for backend in backends(setting):
                    with journal.guard(f"{stage}/{backend}", case=case):
                        got = engine_outputs(setting, backend, half, inputs)
                        levels = {key: value.astype(np.float32) for key, value in got.items()}
                        compared(journal, f"{stage}/{backend}", half.spec, wanted, levels, case=case)


def _cases(spec: NetworkSpec, items: int) -> dict[str, Arrays]:
    """A face from real footage, and noise: smooth pictures show other errors than rough ones."""
    real = {name: values[:items] for name, values in real_inputs(spec.name).items()}
    return {"real": real, "seeded": seeded_inputs(spec, items)}


def planes(name: str, inputs: Arrays) -> Arrays:
    """Inputs of the FP16 artifact as those of the FP32 one."""
    return _PLANES[name](inputs)


def shown(name: str, outputs: Arrays, inputs: Arrays) -> Arrays:
    """Outputs of the FP32 artifact as those of the FP16 one, float32 and not rounded.

    Args:
        name: of the network.
        outputs: of the FP32 artifact.
        inputs: of the FP16 artifact.
    """
    return _SHOWN[name](outputs, inputs)


def _as_planes(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return pictures.astype(np.float64).transpose(0, 3, 1, 2)


def _as_levels(pictures: npt.NDArray[Any]) -> F32:
    return np.ascontiguousarray(np.clip(pictures, 0, _WHITE).transpose(0, 2, 3, 1), np.float32)


def _reduced(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N, 384, 384, 3) to (N, 3, 96, 96): the mean of the 2x2 centre of every 4x4 square."""
    large = _as_planes(pictures)
    rows, columns = large.shape[2] // 4, large.shape[3] // 4
    squares = large.reshape(*large.shape[:2], rows, 4, columns, 4)
    found: npt.NDArray[np.float64] = squares[:, :, :, 1:3, :, 1:3].mean((3, 5))
    return found


def _rgb(pictures: npt.NDArray[np.uint8], *, signed: bool) -> F32:
    """RGB planes in [0, 1], or in [-1, 1]."""
    unit = _as_planes(pictures)[:, ::-1] / _WHITE
    return np.ascontiguousarray(unit * 2 - 1 if signed else unit, np.float32)


def _dnet(inputs: Arrays) -> Arrays:
    return {"image": _rgb(inputs["image"], signed=True), "coefficients": inputs["coefficients"]}


def _lnet(inputs: Arrays) -> Arrays:
    face, reference = _reduced(inputs["face"]), _reduced(inputs["reference"])
    face[:, :, face.shape[2] // 2 :] = 0
    return {
        "mel": inputs["mel"],
        "faces": (np.concatenate([face, reference], 1) / _WHITE).astype(np.float32),
    }


def _enet(inputs: Arrays) -> Arrays:
    reference = np.ascontiguousarray(_as_planes(inputs["reference"]) / _WHITE, np.float32)
    return {"lips": inputs["lips"].astype(np.float32), "reference": reference}


def _unit(inputs: Arrays) -> Arrays:
    return {"image": _rgb(inputs["image"], signed=False)}


def _signed(inputs: Arrays) -> Arrays:
    return {"image": _rgb(inputs["image"], signed=True)}


def _detector(inputs: Arrays) -> Arrays:
    return {"image": (_as_planes(inputs["image"]) - np.reshape(BGR_MEANS, (3, 1, 1))).astype(np.float32)}


def _action_units(inputs: Arrays) -> Arrays:
    small = _as_planes(inputs["image"])[:, :, 1::3, 1::3]  # the middle of every 3x3 square
    return {"image": np.ascontiguousarray(small / _WHITE * 2 - 1, np.float32), "aus": inputs["aus"]}


def _same(outputs: Arrays, inputs: Arrays) -> Arrays:
    return outputs


def _edited(outputs: Arrays, inputs: Arrays) -> Arrays:
    return {"edited": _signed_levels(outputs["edited"])}


def _enhanced(outputs: Arrays, inputs: Arrays) -> Arrays:
    return {"enhanced": _as_levels(outputs["enhanced"] * _WHITE)}


def _restored(outputs: Arrays, inputs: Arrays) -> Arrays:
    return {"restored": _signed_levels(outputs["restored"])}


def _masks(outputs: Arrays, inputs: Arrays) -> Arrays:
    return {"masks": _as_levels(outputs["masks"] * _WHITE)}


def _fused(outputs: Arrays, inputs: Arrays) -> Arrays:
    """Colour and attention enlarged to the picture's size and fused there, not at the network's."""
    picture = inputs["image"].astype(np.float32)
    color = _enlarged(((outputs["color"] + 1) * (_WHITE / 2)).astype(np.float32), picture)
    attention = _enlarged(outputs["attention"], picture)
    return {"fused": np.clip(attention * picture + (1 - attention) * color, 0, _WHITE)}


def _enlarged(small: F32, picture: F32) -> F32:
    """Planes (N, C, h, w) to the picture's size, bilinear, (N, H, W, C)."""
    size = picture.shape[2], picture.shape[1]
    large = [cv2.resize(one.transpose(1, 2, 0), size, interpolation=cv2.INTER_LINEAR) for one in small]
    return np.stack(large).reshape(*picture.shape[:3], small.shape[1])


def _signed_levels(planes: F32) -> F32:
    """RGB planes in [-1, 1] as BGR pixels in levels."""
    return _as_levels((planes[:, ::-1] + 1) * (_WHITE / 2))


_PLANES: dict[str, Callable[[Arrays], Arrays]] = {
    "dnet": _dnet,
    "lnet": _lnet,
    "enet": _enet,
    "recon": _unit,
    "s3fd": _detector,
    "retinaface": _detector,
    "fan4": _unit,
    "gfpgan": _signed,
    "gpen": _signed,
    "parsenet": _signed,
    "ganimation": _action_units,
}
_SHOWN: dict[str, Callable[[Arrays, Arrays], Arrays]] = {
    "dnet": _edited,
    "lnet": _same,
    "enet": _enhanced,
    "recon": _same,
    "s3fd": _same,
    "retinaface": _same,
    "fan4": _same,
    "gfpgan": _restored,
    "gpen": _restored,
    "parsenet": _masks,
    "ganimation": _fused,
}
