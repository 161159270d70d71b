"""The kernels of emotions and of a finish by networks, as cases; see `kernel_cases`.

Tolerances are those of the tests that run the same sources on a CPU: a level where sums in another order, or
a mask's ramp in float32 instead of float64, round the other way at a tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dubstream.benchmarks.gpu_check.kernel_cases import (
    FULL,
    AllLaunchers,
    Array,
    Arrays,
    KernelCase,
    frames_with_gaps,
    pixels_of,
    shape_of,
)
from dubstream.kernels.blend_table import blend_table
from dubstream.kernels.face_align import ALIGNED, GFPGAN_POINTS, similarity
from dubstream.kernels.face_inputs import FACE
from dubstream.kernels.finish import FinishSettings, Restored, align_dubbed, finish_face
from dubstream.kernels.finish_launchers import SCRATCH_BYTES, FinishScratch, Pictures
from dubstream.kernels.launchers import FaceChange
from dubstream.kernels.parse_mask import face_masks
from dubstream.kernels.planes import BGR_SIGNED, to_planes
from dubstream.kernels.resample import crop_resize
from dubstream.kernels.upper_face import SEEN, change_upper_face

SMALL = ((90, 121), (47, 38))  # height, width
_STRENGTH = 0.7
_FIRST = (slice(64, 480), slice(96, 416))  # rows and columns of a parsed face in its 512 x 512 picture
_MOUTH = (slice(352, 432), slice(176, 336))


def face_cases(*, small: bool) -> Iterator[KernelCase]:
    """Every launcher on small odd frames; with `small` false also on full-HD ones, which are timed."""
    for seed, size in enumerate(SMALL if small else (*SMALL, FULL)):
        rng = np.random.default_rng([seed, 7])
        faces = 8 if size == FULL else 3
        yield _seen(rng, size, faces)
        yield _changed(rng, size, faces, planes=True)
        yield _changed(rng, size, faces, planes=False)
        yield _finished(rng, size, faces)


def _boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Array:
    """int32 (count, 5): a frame each, and boxes inside it of half its height or more."""
    height, width = size
    sides = rng.integers([width // 2, height // 2], [width + 1, height + 1], (count, 2))
    corners = rng.integers(0, [width, height] - sides + 1)
    return np.concatenate([np.arange(count)[:, None], corners, corners + sides], 1).astype(np.int32)


def _seen(rng: np.random.Generator, size: tuple[int, int], count: int) -> KernelCase:
    memory, pixels, at = frames_with_gaps(rng, count, size)
    items = _boxes(rng, count, size)
    arrays = {"frames": memory, "items": items, "finite": np.zeros((count, 1), np.uint8)}
    arrays["planes"] = np.zeros((count, 3, SEEN, SEEN), np.float32)

    def launch(kernels: AllLaunchers, on: Mapping[str, int], stream: Any) -> None:
        where = (on["items"], count, on["planes"], on["finite"])
        kernels.upper_face_planes(at(on["frames"]), *where, stream=stream)

    def expected() -> Arrays:
        made = np.empty_like(arrays["planes"])
        for out, item in zip(made, items, strict=True):
            face = crop_resize(pixels[item[0]], item[1:], np.empty((FACE, FACE, 3), np.uint8))
            to_planes(face[1::3, 1::3], BGR_SIGNED, out=out)
        return {"planes": made, "finite": np.ones((count, 1), np.uint8)}

    return KernelCase("upper_face_planes", shape_of(size, count), arrays, launch, expected, max_abs=1e-6)


def _changed(rng: np.random.Generator, size: tuple[int, int], count: int, *, planes: bool) -> KernelCase:
    memory, _, at = frames_with_gaps(rng, count, size)
    items = _boxes(rng, count, size)
    if planes:
        before, after = rng.uniform(-1, 1, (2, count, 3, SEEN, SEEN)).astype(np.float32)
        change = ((after - before) * np.float32(127.5)).transpose(0, 2, 3, 1)
    else:
        before, after = rng.integers(0, 256, (2, count, FACE, FACE, 3), dtype=np.uint8)
        change = after.astype(np.float32) - before
    arrays = {"frames": memory, "items": items, "before": before, "after": after}
    arrays["finite"] = np.ones((count, 1), np.uint8)

    def launch(kernels: AllLaunchers, on: Mapping[str, int], stream: Any) -> None:
        face = FaceChange(on["before"], on["after"], before.shape[2], on["finite"] if planes else None)
        kernels.change_upper_faces(
            at(on["frames"]), on["items"], count, face, _STRENGTH, largest=size[::-1], stream=stream
        )

    def expected() -> Arrays:
        made = memory.copy()
        for frame, one, item in zip(pixels_of(made, size), change, items, strict=True):
            change_upper_face(frame, np.ascontiguousarray(one), item[1:], _STRENGTH)
        return {"frames": made, "finite": arrays["finite"]}

    name = f"change_upper_faces/{'planes' if planes else 'pictures'}"
    return KernelCase(name, shape_of(size, count), arrays, launch, expected, 1, _share(memory))


def _finished(rng: np.random.Generator, size: tuple[int, int], count: int) -> KernelCase:
    """The whole finish as a job does it, on uint8 pictures; the restorer's input is the reference's."""
    settings = FinishSettings()
    memory, pixels, at = frames_with_gaps(rng, count, size)
    boxes = _boxes(rng, count, size)[:, 1:]
    table = blend_table(range(count), boxes, size[1], size[0], settings.final)
    maps = np.stack([_to_aligned(box) for box in boxes.astype(np.float64)])
    enhanced = rng.random((count, 3, FACE, FACE), dtype=np.float32)
    masks = rng.integers(0, 12, (count, ALIGNED, ALIGNED, 2), dtype=np.uint8)
    masks[:, *_FIRST, 0] += 240
    masks[:, *_MOUTH, 1] += 240
    shown = np.empty((count, ALIGNED, ALIGNED, 3), np.uint8)
    faces = list(zip(enhanced, boxes, maps, strict=True))
    for frame, face, out in zip(pixels, faces, shown, strict=True):
        align_dubbed(frame, *face, out=out, settings=settings)
    arrays = {
        "frames": memory, "items": table.items, "maps": maps, "enhanced": enhanced, "shown": shown,
        "probabilities": masks, "restored": rng.integers(0, 256, shown.shape, dtype=np.uint8),
        "aligned": np.zeros_like(shown), "parsed": np.zeros((count, 1), np.uint8),
        "arena": np.full(table.arena_bytes // 4, np.nan, np.float32),
        **{name: np.zeros((count, nbytes), np.uint8) for name, nbytes in SCRATCH_BYTES.items()},
    }  # fmt: skip

    def launch(kernels: AllLaunchers, on: Mapping[str, int], stream: Any) -> None:
        frames, finish = at(on["frames"]), kernels.finish
        scratch = FinishScratch(**{name: on[name] for name in SCRATCH_BYTES})
        part, face, arena = (frames, on["items"], table), (on["enhanced"], (FACE, FACE)), on["arena"]
        finish.plan(frames, on["items"], on["maps"], count, scratch, stream=stream)
        kernels.start_blend(*part, *face, arena, shape=settings.box.mask, stream=stream)
        finish.align(*part, arena, scratch, Pictures(on["aligned"], planes=False), stream=stream)
        finish.parse(Pictures(on["probabilities"], planes=False), count, scratch, on["parsed"], stream=stream)
        kernels.start_blend(*part, *face, arena, shape=settings.final.mask, stream=stream)
        mouth = (Pictures(on["restored"], planes=False), Pictures(on["shown"], planes=False))
        finish.add_mouth(on["items"], on["maps"], table, arena, scratch, *mouth, stream=stream)
        finish.match_face(*part, arena, scratch, stream=stream)
        kernels.blend_bands(*part, arena, stream=stream)
        finish.blacken_broken(*part, scratch, stream=stream)

    def expected() -> Arrays:
        made = memory.copy()
        for index, (frame, face) in enumerate(zip(pixels_of(made, size), faces, strict=True)):
            mouth = Restored(arrays["restored"][index], shown[index])
            finish_face(frame, *face, face_masks(masks[index]), mouth, settings=settings)
        return {"frames": made, "aligned": shown, "parsed": np.ones((count, 1), np.uint8)}

    return KernelCase("finish", shape_of(size, count), arrays, launch, expected, 1, _share(memory))


def _to_aligned(box: Array) -> Array:
    """The map of a face that fills the box as a face does."""
    corner, sides = box[:2], box[2:] - box[:2]
    points = (GFPGAN_POINTS - (106, 130)) / (300, 330) * sides + corner
    return similarity(points, GFPGAN_POINTS)


def _share(memory: Array) -> float:
    return (2 + memory.size / 10_000) / memory.size
