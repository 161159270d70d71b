"""The toy networks in half precision: the same computation, uint8 pictures at the edges, float16 lips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from toy_networks import publish_toys

from dubstream.engines.artifact import Artifact, artifact_paths, digest_files, open_artifact, publish_artifact
from dubstream.engines.contract import NetworkSpec
from dubstream.engines.specs import spec_of

_TYPES = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}
_CONSTANTS: dict[str, np.ndarray] = {
    "to_rgb": np.array([2, 1, 0]), "levels": np.float32(255), "two": np.float32(2), "one": np.float32(1),
    "black": np.float32(0), "quarter": np.array([1, 1, 0.25, 0.25], np.float32),
}  # fmt: skip


def publish_half_toys(
    folder: Path, precision: str = "fp16", *, broken: str | None = None
) -> dict[str, Artifact]:
    """Publish half-precision toys of all networks into `folder`, beside the toys they are made from.

    The `broken` one computes NaN.
    """
    toys = publish_toys(folder, broken=broken)
    return {name: _publish(folder, toy, precision) for name, toy in toys.items()}


def _publish(folder: Path, toy: Artifact, precision: str) -> Artifact:
    spec = spec_of(toy.spec.name, precision)
    path, _ = artifact_paths(folder, spec.name, precision)
    draft = path.with_suffix(".part")
    draft.write_bytes(_halved(onnx.load(toy.path), spec).SerializeToString())
    files, digest = digest_files([draft], [path.name])
    sidecar = replace(toy.sidecar, precision=precision, spec=spec.as_json(), files=files, sha256=digest)
    publish_artifact(draft, folder, sidecar)
    return open_artifact(folder, spec, precision)


def _halved(toy: onnx.ModelProto, spec: NetworkSpec) -> onnx.ModelProto:
    graph = _Graph()
    inner = _EDGES[spec.name](graph, list(toy.graph.node))
    constants = {f"c_{name}": value for name, value in _CONSTANTS.items()}
    model = helper.make_model(
        helper.make_graph(
            [*graph.before, *inner, *graph.after],
            spec.name,
            [helper.make_tensor_value_info(t.name, _TYPES[t.dtype], list(t.shape)) for t in spec.inputs],
            [helper.make_tensor_value_info(t.name, _TYPES[t.dtype], list(t.shape)) for t in spec.outputs],
            [
                *toy.graph.initializer,
                *(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes before and after a toy's own."""

    def __init__(self) -> None:
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []

    def planes(self, picture: str, *, rgb: bool = False, signed: bool = False) -> str:
        steps: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
            ("Cast", (), {"to": TensorProto.FLOAT}),
            ("Transpose", (), {"perm": [0, 3, 1, 2]}),
            ("Div", ("c_levels",), {}),
        ]
        steps += [("Gather", ("c_to_rgb",), {"axis": 1})] if rgb else []
        steps += [("Mul", ("c_two",), {}), ("Sub", ("c_one",), {})] if signed else []
        return _chain(self.before, picture, f"{picture}_planes", steps)

    def small(self, planes: str) -> str:
        self.before.append(
            helper.make_node("Resize", [planes, "", "c_quarter"], [f"{planes}_small"], mode="linear")
        )
        return f"{planes}_small"

    def shown(self, planes: str, picture: str, *, rgb: bool = False, signed: bool = False) -> None:
        steps: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
        steps += [("Add", ("c_one",), {}), ("Div", ("c_two",), {})] if signed else []
        steps += [("Gather", ("c_to_rgb",), {"axis": 1})] if rgb else []
        steps += [
            ("Mul", ("c_levels",), {}),
            ("Round", (), {}),
            ("Clip", ("c_black", "c_levels"), {}),
            ("Transpose", (), {"perm": [0, 2, 3, 1]}),
            ("Cast", (), {"to": TensorProto.UINT8}),
        ]
        _chain(self.after, planes, picture, steps)

    def cast(self, where: list[onnx.NodeProto], source: str, target: str, dtype: int) -> None:
        where.append(helper.make_node("Cast", [source], [target], to=dtype))


def _chain(
    nodes: list[onnx.NodeProto], source: str, target: str, steps: list[tuple[str, tuple[str, ...], Any]]
) -> str:
    for number, (op, more, attributes) in enumerate(steps):
        output = target if number == len(steps) - 1 else f"{target}_{number}"
        nodes.append(helper.make_node(op, [source, *more], [output], **attributes))
        source = output
    return target


def _renamed(nodes: list[onnx.NodeProto], **names: str) -> list[onnx.NodeProto]:
    for node in nodes:
        for side in (node.input, node.output):
            for position, name in enumerate(side):
                side[position] = names.get(name, name)
    return nodes


def _recon(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return _renamed(nodes, image=graph.planes("image", rgb=True))


def _dnet(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    inner = _renamed(nodes, image=graph.planes("image", rgb=True, signed=True), edited="edited_planes")
    graph.shown("edited_planes", "edited", rgb=True, signed=True)
    return inner


def _lnet(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    parts = [graph.small(graph.planes(name)) for name in ("face", "reference")]
    graph.before.append(helper.make_node("Concat", parts, ["faces"], axis=1))
    graph.cast(graph.after, "lips32", "lips", TensorProto.FLOAT16)
    return _renamed(nodes, lips="lips32")


def _enet(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    graph.cast(graph.before, "lips", "lips32", TensorProto.FLOAT)
    inner = _renamed(nodes, lips="lips32", reference=graph.planes("reference"), enhanced="enhanced_planes")
    graph.shown("enhanced_planes", "enhanced")
    return inner


def _detector(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return _renamed(nodes, image=graph.planes("image"))


def _fan(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    graph.cast(graph.after, "heatmaps32", "heatmaps", TensorProto.FLOAT16)
    return _renamed(nodes, image=graph.planes("image", rgb=True), heatmaps="heatmaps32")


def _restorer(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    graph.shown("restored_planes", "restored", rgb=True, signed=True)
    image = graph.planes("image", rgb=True, signed=True)
    return _renamed(nodes, image=image, restored="restored_planes")


def _parser(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    graph.shown("masks_planes", "masks")
    inner = [node for node in nodes if not {"classes", "whole"} & {*node.output}]
    return _renamed(inner, image=graph.planes("image", rgb=True, signed=True), masks="masks_planes")


def _action_units(graph: _Graph, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """At full size, where the real one works on a third of it: the toy is as happy with any."""
    graph.shown("fused_planes", "fused", signed=True)
    return _renamed(nodes, image=graph.planes("image", signed=True), fused="fused_planes")


_EDGES = {
    "recon": _recon, "dnet": _dnet, "lnet": _lnet, "enet": _enet, "s3fd": _detector, "retinaface": _detector,
    "fan4": _fan, "gfpgan": _restorer, "gpen": _restorer, "parsenet": _parser, "ganimation": _action_units,
}  # fmt: skip
