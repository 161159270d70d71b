"""Toy graphs of the auxiliary face networks (`toy_networks`): a face in the middle, whatever the picture.

Every output still depends on every input, by so little that it moves no box by a pixel and no peak at all.
Broken ones have their scalar constants NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from skimage.data import astronaut

from dubstream.engines.contract import NetworkSpec
from dubstream.engines.face_specs import DETECTOR_SIZE, RETINAFACE, S3FD
from dubstream.runtime.faces.detector import five_points

Node = tuple[str, Sequence[str], Sequence[str], dict[str, object]]
Graph = tuple[list[Node], dict[str, np.ndarray]]

FACE_BOX = (0.35, 0.2, 0.65, 0.8)
"""x1 y1 x2 y2 of the face that the detectors find, as shares of the picture's width and height."""

SCORE = 0.99
"""Of the one prior that sees it; the others score 0."""

UINT8 = 2  # onnx.TensorProto's numbers
FLOAT = 1


def swaying_portrait(frame: int) -> np.ndarray:
    """A portrait with its face where the detectors find one, swaying a little; uint8 BGR, of their size."""
    x, y = -130 + 3 * np.sin(frame), -40 + 2 * np.cos(frame)
    picture = np.ascontiguousarray(astronaut()[..., ::-1])
    return cv2.warpAffine(picture, np.array([[2.0, 0, x], [0, 2.0, y]]), DETECTOR_SIZE[::-1])


def face_points() -> np.ndarray:
    """RetinaFace's five points of the face, float32 (5, 2), as shares like `FACE_BOX`."""
    x1, y1, x2, y2 = FACE_BOX
    unit = five_points(np.array([[0.31, 0.38], [0.69, 0.38]]), 1.0)
    return ((x1, y1) + unit * (x2 - x1, y2 - y1)).astype(np.float32)


def landmarks() -> np.ndarray:
    """68 points of a frontal face, float32 (68, 2) x y, as shares of FAN-4's crop, in the usual order."""
    jaw = _arc(17, 0.5, 0.40, 0.32, 0.42, np.pi, 0.0)
    brows = [_arc(5, x, 0.36, 0.09, 0.04, -np.pi, 0.0) for x in (0.36, 0.64)]
    nose = np.stack([np.full(4, 0.5), np.linspace(0.40, 0.53, 4)], 1)
    nostrils = _arc(5, 0.5, 0.56, 0.06, 0.02, np.pi, 0.0)
    eyes = [_arc(6, x, 0.41, 0.05, 0.02, -np.pi, np.pi * 2 / 3) for x in (0.36, 0.64)]
    outer = _arc(12, 0.5, 0.68, 0.12, 0.05, -np.pi, np.pi * 5 / 6)
    inner = _arc(8, 0.5, 0.68, 0.08, 0.02, -np.pi, np.pi * 3 / 4)
    return np.concatenate([jaw, *brows, nose, nostrils, *eyes, outer, inner]).astype(np.float32)


def _arc(count: int, x: float, y: float, wide: float, high: float, first: float, last: float) -> np.ndarray:
    """Points of an ellipse between two angles; y grows downwards, so a positive sine is below."""
    angle = np.linspace(first, last, count)
    return np.stack([x + wide * np.cos(angle), y + high * np.sin(angle)], 1)


def _f(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_MEAN: Node = ("ReduceMean", ["image", "chw"], ["mean"], {"keepdims": 1})  # (N, 1, 1, 1)


def _detector(spec: NetworkSpec, *, points: bool) -> Graph:
    height, width = (int(axis) for axis in spec.inputs[0].shape[2:])
    priors = int(spec.output("scores").shape[1])
    size = np.array([width, height], np.float32)
    seen = np.zeros((1, priors), np.float32)
    seen[0, 0] = SCORE
    nodes: list[Node] = [
        _MEAN,
        ("Mul", ["mean", "little"], ["little_mean"], {}),
        ("Squeeze", ["little_mean", "last"], ["moved"], {}),
        ("Add", ["every_box", "moved"], ["boxes"], {}),
        ("Squeeze", ["moved", "last2"], ["flat"], {}),
        ("Add", ["seen", "flat"], ["raised"], {}),
        ("Clip", ["raised", "zero", "one"], ["clipped"], {}),
        ("Mul", ["clipped", "whether"], ["scores"], {}),
    ]
    constants = {
        "chw": _i(1, 2, 3), "little": _f(1e-6), "last": _i(3), "last2": _i(2),
        "every_box": np.tile(np.array(FACE_BOX, np.float32) * np.tile(size, 2), (1, priors, 1)),
        "seen": seen, "whether": (seen > 0).astype(np.float32), "zero": _f(0.0), "one": _f(1.0),
    }  # fmt: skip
    if points:
        nodes.append(("Add", ["every_point", "little_mean"], ["points"], {}))
        constants["every_point"] = np.tile(face_points() * size, (1, priors, 1, 1)).astype(np.float32)
    return nodes, constants


def _heatmaps() -> Graph:
    cells = (np.arange(64) + 0.5) / 64
    x, y = landmarks().T
    rows, columns = (np.exp(-(((cells - at[:, None]) / 0.02) ** 2)).astype(np.float32) for at in (y, x))
    return [
        _MEAN,
        ("Mul", ["mean", "little"], ["little_mean"], {}),
        ("MatMul", ["rows", "columns"], ["peaks"], {}),
        ("Add", ["peaks", "little_mean"], ["heatmaps"], {}),
    ], {
        "chw": _i(1, 2, 3), "little": _f(1e-3), "rows": rows[None, :, :, None],
        "columns": columns[None, :, None, :],
    }  # fmt: skip


def _masks() -> Graph:
    rows, columns = np.zeros((2, 1, 2, 512), np.float32)
    for index, (x1, y1, x2, y2) in enumerate([(96, 64, 416, 480), (176, 352, 336, 432)]):  # face, mouth
        rows[0, index, y1:y2], columns[0, index, x1:x2] = 1.0, 1.0
    return [
        _MEAN,
        ("Mul", ["mean", "little"], ["little_mean"], {}),
        ("Add", ["little_mean", "nearly_one"], ["share"], {}),
        ("Mul", ["rows", "share"], ["some_rows"], {}),
        ("MatMul", ["some_rows", "columns"], ["masks"], {}),
        ("MatMul", ["rows", "class_columns"], ["each_class"], {}),
        ("Mul", ["each_class", "share"], ["some_classes"], {}),
        ("ReduceSum", ["some_classes", "channel"], ["class_sum"], {"keepdims": 0}),
        ("Round", ["class_sum"], ["whole"], {}),
        ("Cast", ["whole"], ["classes"], {"to": UINT8}),
    ], {
        "chw": _i(1, 2, 3), "little": _f(1e-3), "nearly_one": _f(0.999), "channel": _i(1),
        "rows": rows[..., None], "columns": columns[..., None, :],
        # Skin is class 1, and a mouth inside it 1 + 9.
        "class_columns": columns[..., None, :] * np.array([1, 9], np.float32)[None, :, None, None],
    }  # fmt: skip


_RESTORER: Graph = [("Mul", ["image", "share"], ["restored"], {})], {"share": _f(0.97)}

_ACTION_UNITS: Graph = (
    [
        ("ReduceMean", ["aus", "channel"], ["mean"], {"keepdims": 1}),
        ("Unsqueeze", ["mean", "hw"], ["level"], {}),
        ("Mul", ["image", "half"], ["darker"], {}),
        ("Mul", ["level", "half"], ["half_level"], {}),
        ("Add", ["darker", "half_level"], ["color"], {}),
        ("ReduceMean", ["image", "channel"], ["gray"], {"keepdims": 1}),
        ("Mul", ["gray", "little"], ["little_gray"], {}),
        ("Add", ["little_gray", "half"], ["attention"], {}),
        ("Sub", ["image", "color"], ["difference"], {}),
        ("Mul", ["difference", "attention"], ["kept"], {}),
        ("Add", ["color", "kept"], ["fused"], {}),
    ],
    {"channel": _i(1), "hw": _i(2, 3), "half": _f(0.5), "little": _f(1e-3)},
)


FACE_GRAPHS: dict[str, Graph] = {
    "s3fd": _detector(S3FD, points=False),
    "retinaface": _detector(RETINAFACE, points=True),
    "fan4": _heatmaps(),
    "gfpgan": _RESTORER,
    "gpen": _RESTORER,
    "parsenet": _masks(),
    "ganimation": _ACTION_UNITS,
}
