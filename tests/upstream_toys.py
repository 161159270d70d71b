"""Toy networks for the original's way of dubbing: detectors of a clip's own size, whose faces move.

Other than in `toy_face_graphs` a box moves by pixels with the mean of what is seen, so that means over
frames, pads and crops matter; in a picture darker than `DARK` nobody is found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_networks
from toy_face_graphs import FACE_BOX, SCORE, Graph, Node, face_points
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.specs import spec_of
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.writer import SegmentWriter
from dubstream.runtime.options.dub import DubRequest
from dubstream.runtime.options.upstream import SizedDetectors

DARK = 20.0
"""Mean level of a picture below which the detectors find nobody."""

_MEAN_LEVEL = 114.67  # subtracted on average by both detectors
_GAIN = 0.15  # pixels that a box moves for each level


def publish_upstream_toys(
    folder: Path, width: int, height: int, patch: pytest.MonkeyPatch
) -> dict[str, Artifact]:
    """Toys of all networks, with the detectors that a clip of this size needs in the original's way."""
    artifacts = publish_toys(folder)
    for name in SizedDetectors.of(width, height).names:
        spec = spec_of(name)
        patch.setitem(toy_networks._GRAPHS, name, _detector(spec))
        artifacts[name] = toy_networks._publish(folder, spec, broken=False)
    return artifacts


def written(request: DubRequest, **options: Any) -> tuple[DubSummary, list[np.ndarray]]:
    """Dub, and give the frames as they go to the encoder."""
    frames: list[np.ndarray] = []
    encode = SegmentWriter.write

    def keep(writer: SegmentWriter, picture: np.ndarray) -> None:
        frames.append(picture.copy())
        encode(writer, picture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentWriter, "write", keep)
        return dub(replace(request, options=replace(request.options, **options))), frames


def _detector(spec: NetworkSpec) -> Graph:
    height, width = (int(axis) for axis in spec.inputs[0].shape[2:])
    priors = int(spec.output("scores").shape[1])
    size = np.array([width, height], np.float32)
    seen = np.zeros((1, priors), np.float32)
    seen[0, priors // 2], seen[0, 0] = SCORE, SCORE - 0.015  # the second, smaller one overlaps
    boxes = np.tile(np.array(FACE_BOX, np.float32) * np.tile(size, 2), (1, priors, 1))
    boxes[0, 0] += np.float32(5)
    nodes: list[Node] = [
        ("ReduceMean", ["image", "chw"], ["mean"], {"keepdims": 1}),
        ("Mul", ["mean", "gain"], ["moved4"], {}),
        ("Squeeze", ["moved4", "last"], ["moved"], {}),
        ("Add", ["every_box", "moved"], ["boxes"], {}),
        ("Greater", ["mean", "dark"], ["light4"], {}),
        ("Cast", ["light4"], ["light_number"], {"to": 1}),
        ("Squeeze", ["light_number", "last2"], ["light"], {}),
        ("Mul", ["seen", "light"], ["scores"], {}),
    ]
    constants = {
        "chw": np.array([1, 2, 3]), "gain": np.array(_GAIN, np.float32), "last": np.array([3]),
        "last2": np.array([2, 3]), "every_box": boxes, "dark": np.array(DARK - _MEAN_LEVEL, np.float32),
        "seen": seen,
    }  # fmt: skip
    if spec.name.startswith("retinaface"):
        nodes.append(("Add", ["every_point", "moved4"], ["points"], {}))
        constants["every_point"] = np.tile(face_points() * size, (1, priors, 1, 1)).astype(np.float32)
    return nodes, constants
