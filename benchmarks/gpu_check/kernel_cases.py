"""Kernels with inputs, launches and what their references make of the same inputs.

Those of emotions and of a finish by networks are in `dubstream.benchmarks.gpu_check.face_cases`.

Tolerances are those of the tests that run the same sources on a CPU: OpenCV's rule to the bit, one level in
a blend (its sums run in another order), 1e-6 in float planes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.kernels.blend import BlendSettings, blend_face
from dubstream.kernels.blend_table import blend_table
from dubstream.kernels.face_inputs import FACE, LIPS, face_inputs
from dubstream.kernels.finish_launchers import FinishLaunchers
from dubstream.kernels.launchers import DeviceFrames, Launchers
from dubstream.kernels.modules import KernelModules
from dubstream.kernels.nv12 import BT601, BT709_FULL, YuvMatrix, bgr_to_nv12, nv12_to_bgr
from dubstream.kernels.paste import paste
from dubstream.kernels.resample import crop_resize, warp_affine

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


class AllLaunchers(Launchers):
    """Every launcher of a device."""

    def __init__(self, modules: KernelModules) -> None:
        super().__init__(modules)
        self.finish = FinishLaunchers(modules)


Launch = Callable[[AllLaunchers, Mapping[str, int], Any], None]

ODD = ((1, 1), (1, 9), (7, 2), (31, 45), (90, 121))  # height, width
FULL = (1080, 1920)
_GAP = 5  # bytes behind each row, as decoders leave them


@dataclass(frozen=True)
class KernelCase:
    """One launch, or launches that belong together.

    Attributes:
        name: the launcher's name.
        shape: for the row.
        arrays: contents of device memory before, by name; outputs too.
        launch: with the addresses by name and a stream.
        expected: by name, what the arrays hold afterwards.
        max_abs: by name where a difference is allowed.
        share: of the elements that may differ at all.
    """

    name: str
    shape: str
    arrays: Arrays
    launch: Launch
    expected: Callable[[], Arrays]
    max_abs: float = 0.0
    share: float = 1.0


def kernel_cases(*, small: bool) -> Iterator[KernelCase]:
    """Every launcher on odd sizes; with `small` false also on full-HD frames, which are what is timed."""
    for seed, size in enumerate(ODD if small else (*ODD, FULL)):
        rng = np.random.default_rng(seed)
        faces = 8 if size == FULL else 3
        yield _crop(rng, size, faces)
        yield _warp(rng, size, faces)
        yield _paste(rng, size, faces)
        for matrix in (BT601, BT709_FULL):
            yield _decoded(rng, size, matrix)
            yield _encoded(rng, size, matrix)
        if min(size) > 8:
            yield _pictures(rng, size, faces)
            yield _blend(rng, size, faces)
    yield _planes(np.random.default_rng(99), 3)


def frames_with_gaps(rng: np.random.Generator, count: int, size: tuple[int, int]) -> tuple[Array, Array, Any]:
    """Memory with gaps behind the rows, the pixels in it, and how a launcher sees it at an address."""
    height, width = size
    memory = rng.integers(0, 256, (count, height, 3 * width + _GAP), dtype=np.uint8)
    pitch = memory.shape[2]

    def at(address: int) -> DeviceFrames:
        return DeviceFrames(address, height, width, pitch, pitch * height)

    return memory, pixels_of(memory, size), at


def pixels_of(memory: Array, size: tuple[int, int]) -> Array:
    """The pixels in such memory, a view: splitting an axis never copies."""
    height, width = size
    return memory[:, :, : 3 * width].reshape(len(memory), height, width, 3)


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int], inside: bool = False) -> Array:
    """int32 (count, 5): a frame each, and boxes that leave it unless told otherwise."""
    height, width = size
    corners = rng.integers(0, [width, height], (count, 2))
    spans = rng.integers(1, [width + 1, height + 1], (count, 2))
    start, end = corners - 2, corners + spans
    if inside:
        start, end = corners, np.minimum(end, [width, height])
    return np.concatenate([np.arange(count)[:, None], start, end], 1).astype(np.int32)


def shape_of(size: tuple[int, int], count: int) -> str:
    """For the row: count x height x width."""
    return f"{count}x{size[0]}x{size[1]}"


def _crop(rng: np.random.Generator, size: tuple[int, int], count: int) -> KernelCase:
    memory, pixels, at = frames_with_gaps(rng, count, size)
    items, out = random_boxes(rng, count, size), np.zeros((count, 256, 251, 3), np.uint8)

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        kernels.crop_resize(at(on["frames"]), on["items"], count, on["out"], (251, 256), stream=stream)

    def expected() -> Arrays:
        made = [crop_resize(pixels[item[0]], item[1:], np.empty_like(out[0])) for item in items]
        return {"out": np.stack(made)}

    arrays = {"frames": memory, "items": items, "out": out}
    return KernelCase("crop_resize", shape_of(size, count), arrays, launch, expected)


def _warp(rng: np.random.Generator, size: tuple[int, int], count: int) -> KernelCase:
    memory, pixels, at = frames_with_gaps(rng, count, size)
    angles, scales = rng.uniform(-3, 3, count), rng.uniform(0.3, 3, count)
    turns = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], -1) * scales[:, None]
    shifts = rng.uniform(-5, [size[1] + 5, size[0] + 5], (count, 2))
    maps = np.concatenate([turns.reshape(count, 2, 2), shifts[:, :, None]], 2)
    frame_of, out = np.arange(count, dtype=np.int32), np.zeros((count, 256, 251, 3), np.uint8)
    border = (135, 133, 132)

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        where = (on["frame_of"], on["maps"], count, on["out"], (251, 256))
        kernels.warp_affine(at(on["frames"]), *where, border=border, stream=stream)

    def expected() -> Arrays:
        made = [
            warp_affine(frame, one, np.empty_like(out[0]), border=border)
            for frame, one in zip(pixels, maps, strict=True)
        ]
        return {"out": np.stack(made)}

    arrays = {"frames": memory, "frame_of": frame_of, "maps": maps, "out": out}
    return KernelCase("warp_affine", shape_of(size, count), arrays, launch, expected)


def _paste(rng: np.random.Generator, size: tuple[int, int], count: int) -> KernelCase:
    memory, _, at = frames_with_gaps(rng, count, size)
    items = random_boxes(rng, count, size)
    pictures = rng.integers(0, 256, (count, 97, 101, 3), dtype=np.uint8)
    spans = (items[:, 3:] - items[:, 1:3]).max(0)

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        largest = (int(spans[0]), int(spans[1]))
        kernels.paste(
            at(on["frames"]), on["items"], count, on["pictures"], (101, 97), largest=largest, stream=stream
        )

    def expected() -> Arrays:
        made = memory.copy()
        for picture, item in zip(pictures, items, strict=True):
            paste(pixels_of(made, size)[item[0]], picture, item[1:])
        return {"frames": made}

    arrays = {"frames": memory, "items": items, "pictures": pictures}
    return KernelCase("paste", shape_of(size, count), arrays, launch, expected)


def _surface(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Array, int, int]:
    """An NV12 surface with gaps, the rows of its luma, and the bytes of chroma in a row."""
    height, width = size
    rows, pairs = (height + 1) // 2, 2 * ((width + 1) // 2)
    return rng.integers(0, 256, (height + rows, pairs + _GAP), dtype=np.uint8), height, pairs


def _decoded(rng: np.random.Generator, size: tuple[int, int], matrix: YuvMatrix) -> KernelCase:
    surface, rows, pairs = _surface(rng, size)
    picture = np.zeros((*size, 3), np.uint8)
    pitch = surface.shape[1]

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        planes = (on["surface"], on["surface"] + rows * pitch, pitch)
        kernels.nv12_to_bgr(*planes, (size[1], size[0]), matrix, on["picture"], stream=stream)

    def expected() -> Arrays:
        luma, chroma = surface[:rows, : size[1]], surface[rows:, :pairs]
        return {"picture": nv12_to_bgr(luma, chroma, matrix, out=np.empty_like(picture))}

    arrays = {"surface": surface, "picture": picture}
    return KernelCase("nv12_to_bgr", shape_of(size, 1), arrays, launch, expected)


def _encoded(rng: np.random.Generator, size: tuple[int, int], matrix: YuvMatrix) -> KernelCase:
    surface, rows, pairs = _surface(rng, size)
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    pitch = surface.shape[1]

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        planes = (on["surface"], on["surface"] + rows * pitch, pitch)
        kernels.bgr_to_nv12(on["picture"], (size[1], size[0]), matrix, *planes, stream=stream)

    def expected() -> Arrays:
        made = surface.copy()
        bgr_to_nv12(picture, matrix, luma=made[:rows, : size[1]], chroma=made[rows:, :pairs])
        return {"surface": made}

    arrays = {"surface": surface, "picture": picture}
    return KernelCase("bgr_to_nv12", shape_of(size, 1), arrays, launch, expected)


def _pictures(rng: np.random.Generator, size: tuple[int, int], count: int) -> KernelCase:
    """`face_pictures`, compared through the reference's float planes: whole levels over 255."""
    memory, pixels, at = frames_with_gaps(rng, count, size)
    stabilised = rng.integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
    boxes, faces = random_boxes(rng, count, size, inside=True), random_boxes(rng, count, size)
    items = np.concatenate([boxes, faces[:, 1:]], 1)

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        tables = (on["stabilised"], on["items"], count, on["faces"], on["references"])
        kernels.face_pictures(at(on["frames"]), *tables, stream=stream)

    def expected() -> Arrays:
        levels = []
        for frame, still, item in zip(pixels, stabilised, items, strict=True):
            lips, planes = (
                np.empty((6, LIPS, LIPS), np.float32),
                np.empty((3, FACE, FACE), np.float32),
            )
            face_inputs(frame, still, item[1:5], item[5:], faces_96=lips, reference_384=planes)
            levels.append(np.rint(planes * 255).astype(np.uint8).transpose(1, 2, 0))
        return {"references": np.stack(levels)}

    empty = np.zeros((count, FACE, FACE, 3), np.uint8)
    arrays = {"frames": memory, "stabilised": stabilised, "items": items}
    arrays |= {"faces": empty, "references": empty.copy()}
    return KernelCase("face_pictures", shape_of(size, count), arrays, launch, expected)


def _planes(rng: np.random.Generator, count: int) -> KernelCase:
    pictures = rng.integers(0, 256, (2, count, FACE, FACE, 3), dtype=np.uint8)
    pictures[0, :, FACE // 2 :] = 0
    step = FACE // LIPS

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        inputs, outputs = (on["faces"], on["references"], count), (on["faces_96"], on["references_384"])
        kernels.face_planes(*inputs, *outputs, stream=stream)

    def expected() -> Arrays:
        # Bilinear reduction by four: the mean of the 2x2 centre of every 4x4 square.
        centre = pictures[:, :, 1:-1, 1:-1].astype(np.float64)
        means = sum(centre[:, :, dy::step, dx::step] for dy in (0, 1) for dx in (0, 1)) / (4 * 255)
        lips = np.concatenate(list(np.asarray(means)), -1).transpose(0, 3, 1, 2)
        return {
            "faces_96": lips.astype(np.float32),
            "references_384": (pictures[1] / 255).transpose(0, 3, 1, 2).astype(np.float32),
        }

    arrays = {"faces": pictures[0], "references": pictures[1]}
    arrays["faces_96"] = np.zeros((count, 6, LIPS, LIPS), np.float32)
    arrays["references_384"] = np.zeros((count, 3, FACE, FACE), np.float32)
    return KernelCase("face_planes", shape_of((FACE, FACE), count), arrays, launch, expected, max_abs=1e-6)


def _blend(rng: np.random.Generator, size: tuple[int, int], count: int) -> KernelCase:
    memory, _, at = frames_with_gaps(rng, count, size)
    settings = BlendSettings()
    boxes = random_boxes(rng, count, size, inside=True)
    enhanced = (rng.random((count, 3, FACE, FACE)) * 1.4 - 0.2).astype(np.float32)
    frames, corners = boxes[:, 0].tolist(), [tuple(map(int, box[1:])) for box in boxes]
    table = blend_table(frames, corners, size[1], size[0], settings)

    def launch(kernels: Launchers, on: Mapping[str, int], stream: Any) -> None:
        faces = (on["items"], table, on["enhanced"], (FACE, FACE), on["arena"])
        kernels.blend_faces(at(on["frames"]), *faces, shape=settings.mask, stream=stream)

    def expected() -> Arrays:
        made = memory.copy()
        for frame, face, box in zip(pixels_of(made, size), enhanced, corners, strict=True):
            blend_face(frame, face, box, settings=settings)
        return {"frames": made}

    arena = np.full(table.arena_bytes // 4, np.nan, np.float32)
    arrays = {"frames": memory, "items": table.items, "enhanced": enhanced, "arena": arena}
    share = (2 + memory.size / 10_000) / memory.size
    return KernelCase("blend_faces", shape_of(size, count), arrays, launch, expected, max_abs=1, share=share)
