"""Small networks with the constructions of the real ones, for the checker.

Written straight in ONNX operators: what matters here is what TensorRT's parser and builder make of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dubstream.engines.contract import BATCH, NetworkSpec, TensorSpec, Tolerance

_ELEMENTS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


class Toy:
    """An ONNX graph under construction; node outputs are named like the nodes.

    Args:
        inputs: name to (dtype, shape without the batch axis).
        dtype: element type of constants made by `constant`.
    """

    def __init__(self, inputs: dict[str, tuple[str, tuple[int, ...]]], dtype: str = "float32") -> None:
        self.inputs = inputs
        self.dtype = dtype
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._random = np.random.default_rng(11)

    def node(self, name: str, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output called `name`."""
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, *shape: int, dtype: str | None = None) -> str:
        """Add a random constant."""
        return self.constant(name, self._random.normal(0, 0.1, shape), dtype)

    def constant(self, name: str, values: Any, dtype: str | None = None) -> str:
        """Add a constant, in `dtype` or the toy's."""
        self._weights.append(numpy_helper.from_array(np.asarray(values, dtype or self.dtype), name))
        return name

    def cast(self, name: str, source: str, dtype: str) -> str:
        """Add a Cast."""
        return self.node(name, "Cast", source, to=_ELEMENTS[dtype])

    def conv(self, name: str, source: str, channels_in: int, channels_out: int) -> str:
        """Add a 3x3 convolution with padding."""
        weight = self.weight(f"{name}_w", channels_out, channels_in, 3, 3)
        return self.node(name, "Conv", source, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def save(
        self,
        folder: Path,
        name: str,
        outputs: dict[str, tuple[str, tuple[int, ...]]],
        *,
        axis: str | int = BATCH,
        opset: int = 20,
    ) -> tuple[Path, NetworkSpec]:
        """Write ``<name>.onnx``; returns it and its spec. `axis` is the batch axis written into the graph."""
        sides = [
            [
                helper.make_tensor_value_info(each, _ELEMENTS[dtype], [axis, *shape])
                for each, (dtype, shape) in side.items()
            ]
            for side in (self.inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, name, *sides, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        onnx.checker.check_model(model)
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        return path, spec(name, self.inputs, outputs)


def spec(
    name: str, inputs: dict[str, tuple[str, tuple[int, ...]]], outputs: dict[str, tuple[str, tuple[int, ...]]]
) -> NetworkSpec:
    """A spec with these tensors and a largest batch of 8."""
    sides = [
        tuple(
            TensorSpec(each, dtype, (BATCH, *shape), None, None, "") for each, (dtype, shape) in side.items()
        )
        for side in (inputs, outputs)
    ]
    tolerance = Tolerance(1e-3, 0.999, "a toy")
    return NetworkSpec(
        name=name, title="toy", inputs=sides[0], outputs=sides[1], max_batch=8,
        tolerances=dict.fromkeys(outputs, tolerance), gmacs=0.0, checkpoint="", licence="",
    )  # fmt: skip


def plain(folder: Path) -> tuple[Path, NetworkSpec]:
    """One convolution in float32."""
    toy = Toy({"image": ("float32", (3, 16, 16))})
    toy.node("picture", "Relu", toy.conv("filtered", "image", 3, 4))
    return toy.save(folder, "plain", {"picture": ("float32", (4, 16, 16))})


def fourier(folder: Path, dtype: str) -> tuple[Path, NetworkSpec]:
    """A real FFT along the width and back, as two constant matmuls with the ortho scale folded in."""
    size, half = 24, 13
    angle = 2 * np.pi * np.outer(np.arange(size), np.arange(half)) / size
    table = np.concatenate([np.cos(angle), -np.sin(angle)], 1) / np.sqrt(size)
    twice = np.where((np.arange(half) == 0) | (np.arange(half) == half - 1), 1.0, 2.0)
    toy = Toy({"image": (dtype, (8, size, size))}, dtype)
    spectrum = toy.node("spectrum", "MatMul", "image", toy.constant("forward", table))
    mixed = toy.node("mixed", "Relu", toy.conv("mixing", spectrum, 8, 8))
    toy.node("signal", "MatMul", mixed, toy.constant("inverse", (table * np.tile(twice, 2)).T))
    return toy.save(folder, f"fourier_{dtype}", {"signal": (dtype, (8, size, size))})


def warp(folder: Path, dtype: str) -> tuple[Path, NetworkSpec]:
    """A flow added to a coordinate grid, GridSample, InstanceNorm; the warp is a float32 island in half."""
    size = 16
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    base = np.stack(np.meshgrid(axis, axis), -1)[None]
    toy = Toy({"image": (dtype, (4, size, size))}, dtype)
    flow = toy.node("flow", "Transpose", toy.conv("motion", "image", 4, 2), perm=[0, 2, 3, 1])
    picture = "image"
    if dtype == "float16":
        flow, picture = toy.cast("flow32", flow, "float32"), toy.cast("picture32", "image", "float32")
    grid = toy.node("grid", "Add", flow, toy.constant("base", base, "float32"))
    sampled = toy.node(
        "sampled", "GridSample", picture, grid, mode="linear", padding_mode="border", align_corners=0
    )
    if dtype == "float16":
        sampled = toy.cast("sampled16", sampled, "float16")
    scale, shift = toy.constant("scale", np.ones(4)), toy.constant("shift", np.zeros(4))
    normal = toy.node("normal", "InstanceNormalization", sampled, scale, shift, epsilon=1e-5)
    toy.node("warped", "Relu", toy.conv("after", normal, 4, 4))
    return toy.save(folder, f"warp_{dtype}", {"warped": (dtype, (4, size, size))})


def modulated(folder: Path, dtype: str) -> tuple[Path, NetworkSpec]:
    """A style-modulated convolution as conv(x * s) * d, d = rsqrt(s^2 @ sum(w^2)) in float32."""
    channels = 8
    toy = Toy({"image": (dtype, (channels, 16, 16)), "style": (dtype, (channels,))}, dtype)
    style = toy.cast("style32", "style", "float32") if dtype == "float16" else "style"
    square = toy.node("square", "Mul", style, style)
    energy = toy.node(
        "energy", "MatMul", square, toy.constant("power", np.full((channels, channels), 0.1), "float32")
    )
    eps = toy.constant("eps", 1e-8, "float32")
    inverse = toy.node(
        "inverse", "Reciprocal", toy.node("root", "Sqrt", toy.node("safe", "Add", energy, eps))
    )
    demodulation = toy.cast("inverse16", inverse, "float16") if dtype == "float16" else inverse
    axes = toy.constant("axes", [2, 3], "int64")
    scaled = toy.node("scaled", "Mul", "image", toy.node("s", "Unsqueeze", "style", axes))
    filtered = toy.conv("filtered", scaled, channels, channels)
    toy.node("picture", "Mul", filtered, toy.node("d", "Unsqueeze", demodulation, axes))
    return toy.save(folder, f"modulated_{dtype}", {"picture": (dtype, (channels, 16, 16))})


def pictures(folder: Path) -> tuple[Path, NetworkSpec]:
    """uint8 NHWC in and out around a half-precision convolution: no pixel is converted on the host."""
    toy = Toy({"frame": ("uint8", (16, 16, 3))}, "float16")
    planes = toy.node("planes", "Transpose", toy.cast("half", "frame", "float16"), perm=[0, 3, 1, 2])
    scaled = toy.node("unit", "Mul", planes, toy.constant("to_unit", 1 / 255))
    back = toy.node("levels", "Mul", toy.conv("filtered", scaled, 3, 3), toy.constant("to_levels", 255.0))
    clipped = toy.node("clipped", "Clip", back, toy.constant("low", 0.0), toy.constant("high", 255.0))
    rows = toy.node("rows", "Transpose", toy.node("rounded", "Round", clipped), perm=[0, 2, 3, 1])
    toy.cast("shown", rows, "uint8")
    return toy.save(folder, "pictures", {"shown": ("uint8", (16, 16, 3))})


def mixed_grid(folder: Path) -> tuple[Path, NetworkSpec]:
    """A half-precision image sampled with a float32 grid: TensorRT's parser must refuse it."""
    toy = Toy({"image": ("float16", (4, 16, 16)), "grid": ("float32", (16, 16, 2))})
    toy.node("sampled", "GridSample", "image", "grid", mode="linear", padding_mode="zeros", align_corners=1)
    return toy.save(folder, "mixed_grid", {"sampled": ("float16", (4, 16, 16))})


def grouped(folder: Path) -> tuple[Path, NetworkSpec]:
    """The batch folded into convolution groups: cannot have a dynamic batch."""
    toy = Toy({"image": ("float32", (4, 16, 16))})
    folded = toy.node("folded", "Reshape", "image", toy.constant("fold", [1, -1, 16, 16], "int64"))
    filtered = toy.node("filtered", "Conv", folded, toy.weight("w", 8, 4, 3, 3), group=2, pads=[1, 1, 1, 1])
    toy.node("picture", "Reshape", filtered, toy.constant("unfold", [-1, 4, 16, 16], "int64"))
    return toy.save(folder, "grouped", {"picture": ("float32", (4, 16, 16))})


def attention(folder: Path) -> tuple[Path, NetworkSpec]:
    """The Attention operator of opset 23 in float32: parses, and no kernel exists for it."""
    toy = Toy(dict.fromkeys(("q", "k", "v"), ("float32", (2, 16, 24))))
    toy.node("mixed", "Attention", "q", "k", "v")
    return toy.save(folder, "attention", {"mixed": ("float32", (2, 16, 24))}, opset=23)
