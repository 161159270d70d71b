"""Faces to finish, by the kernels and by their references, from the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from cpu_cases import NOBODY, address, frames_with_gaps, views

from dubstream.kernels.blend_table import blend_table
from dubstream.kernels.boxes import Box, box_size
from dubstream.kernels.face_align import ALIGNED, GFPGAN_POINTS, similarity
from dubstream.kernels.finish import FinishSettings, Restored, align_dubbed, finish_face
from dubstream.kernels.finish_launchers import SCRATCH_BYTES, FinishLaunchers, FinishScratch, Pictures
from dubstream.kernels.launchers import DeviceFrames, Launchers
from dubstream.kernels.modules import KernelModules
from dubstream.kernels.parse_mask import face_masks

FACE_SIZE = (48, 40)  # of the synthesised faces: width, height
GAINS_AT = 4 * 72 + 4 * 4  # in a record, see finish.cuh


@dataclass(frozen=True)
class Scene:
    """Frames of noise with one face each.

    Attributes:
        size: height, width of the frames.
        boxes: of the faces.
        turns: of the faces in their boxes, in radians.
        zoom: how much more of the frame than the face the aligned picture shows; from 2 on it is reduced.
        smooth: frames as soft as a portrait's skin.
        settings: of the finish.
    """

    size: tuple[int, int]
    boxes: tuple[Box, ...]
    turns: tuple[float, ...]
    zoom: float = 1.0
    smooth: bool = False
    settings: FinishSettings = field(default_factory=FinishSettings)


class Faces:
    """The faces of a scene with their networks' pictures and the memory their kernels work in.

    Args:
        scene: what there is to see.
        planes: networks speak float32 planes; else uint8 pictures.
        seed: of the noise.
    """

    def __init__(self, scene: Scene, *, planes: bool, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.scene, self.planes = scene, planes
        count = self.count = len(scene.boxes)
        self.memory, self.frames = frames_with_gaps(rng, count, *scene.size)
        if scene.smooth:
            for frame in self.pictures:
                frame[:] = cv2.GaussianBlur(frame, (0, 0), 5) // 2 + rng.integers(0, 4, frame.shape, np.uint8)
        self.enhanced = (rng.random((count, 3, FACE_SIZE[1], FACE_SIZE[0])) * 1.4 - 0.2).astype(np.float32)
        maps = [
            _to_aligned(box, turn, scene.zoom) for box, turn in zip(scene.boxes, scene.turns, strict=True)
        ]
        self.to_aligned = np.stack(maps)
        restored = rng.uniform(-1.2, 1.2, (count, 3, ALIGNED, ALIGNED)).astype(np.float32)
        probabilities = np.stack([_probabilities(rng) for _ in range(count)])
        if not planes:
            restored = _bytes((np.clip(restored[:, ::-1], -1, 1) + 1) * 127.5)
            probabilities = _bytes(probabilities * 255)
        self.restored, self.probabilities = restored, probabilities
        self.table = blend_table(range(count), scene.boxes, *scene.size[::-1], scene.settings.final)
        # Numbers in memory nobody has written would hide in a sum; these do not.
        self.arena = np.full(self.table.arena_bytes // 4, np.nan, np.float32)
        self.scratch = {
            name: np.full((count, nbytes), 0xFF, np.uint8) for name, nbytes in SCRATCH_BYTES.items()
        }
        self.parsed = np.full((count, 1), 9, np.uint8)

    @property
    def pictures(self) -> np.ndarray:
        return views(self.memory, *self.scene.size)

    @property
    def gains(self) -> np.ndarray:
        """Of the last `finished`, float32 (count, 3)."""
        return self.scratch["states"][:, GAINS_AT : GAINS_AT + 12].copy().view(np.float32)

    def empty_aligned(self) -> np.ndarray:
        shape, dtype = self.restored.shape, self.restored.dtype
        return np.full(shape, np.nan if self.planes else 77, dtype)

    def aligned(self, modules: KernelModules) -> np.ndarray:
        """What the kernels show parser and restorer."""
        finish, (items, arena, scratch) = FinishLaunchers(modules), self._work()
        aligned = self.empty_aligned()
        to_aligned, enhanced = address(self.to_aligned), address(self.enhanced)
        finish.plan(self.frames, items, to_aligned, self.count, scratch, stream=NOBODY)
        finish.check_faces(enhanced, FACE_SIZE, self.count, scratch, stream=NOBODY)
        part = (self.frames, items, self.table)
        shape = self.scene.settings.box.mask
        Launchers(modules).start_blend(*part, enhanced, FACE_SIZE, arena, shape=shape, stream=NOBODY)
        finish.align(*part, arena, scratch, self._networks(aligned), stream=NOBODY)
        return aligned

    def finished(self, modules: KernelModules, aligned: np.ndarray, *, restores: bool = True) -> np.ndarray:
        """The memory of the frames, finished by the kernels; after `aligned`."""
        blend, finish = Launchers(modules), FinishLaunchers(modules)
        items, arena, scratch = self._work()
        memory = self.memory.copy()
        frames = DeviceFrames(
            address(memory), *self.scene.size, self.frames.pitch_bytes, self.frames.frame_bytes
        )
        part, settings = (frames, items, self.table), self.scene.settings
        enhanced, to_aligned = address(self.enhanced), address(self.to_aligned)
        probabilities = self._networks(self.probabilities)
        finish.parse(probabilities, self.count, scratch, address(self.parsed), stream=NOBODY)
        blend.start_blend(*part, enhanced, FACE_SIZE, arena, shape=settings.final.mask, stream=NOBODY)
        if restores:
            pictures = self._networks(self.restored), self._networks(aligned)
            finish.add_mouth(items, to_aligned, self.table, arena, scratch, *pictures, stream=NOBODY)
        if settings.parsed is not None:
            finish.match_face(*part, arena, scratch, stream=NOBODY)
        blend.blend_bands(*part, arena, stream=NOBODY)
        finish.blacken_broken(*part, scratch, stream=NOBODY)
        return memory

    def aligned_by_reference(self) -> np.ndarray:
        aligned, settings = self.empty_aligned(), self.scene.settings
        for index, out in enumerate(aligned):
            align_dubbed(self.pictures[index], *self._face(index), out=out, settings=settings)
        return aligned

    def finished_by_reference(self, aligned: np.ndarray, *, restores: bool = True) -> np.ndarray:
        memory = self.memory.copy()
        for index, frame in enumerate(views(memory, *self.scene.size)):
            masks = face_masks(self.probabilities[index])
            mouth = Restored(self.restored[index], aligned[index]) if restores else None
            finish_face(frame, *self._face(index), masks, mouth, settings=self.scene.settings)
        return memory

    def _face(self, index: int) -> tuple[np.ndarray, Box, np.ndarray]:
        return self.enhanced[index], self.scene.boxes[index], self.to_aligned[index]

    def _work(self) -> tuple[int, int, FinishScratch]:
        scratch = FinishScratch(**{name: address(part) for name, part in self.scratch.items()})
        return address(self.table.items), address(self.arena), scratch

    def _networks(self, array: np.ndarray) -> Pictures:
        return Pictures(address(array), self.planes)


def _to_aligned(box: Box, turn: float, zoom: float) -> np.ndarray:
    """The map of a face that fills the box, turned around its middle."""
    shape = (GFPGAN_POINTS - (256, 300)) / (300, 330) * box_size(box) * zoom
    c, s = np.cos(turn), np.sin(turn)
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    return similarity(shape @ np.array([[c, s], [-s, c]]) + middle, GFPGAN_POINTS)


def _probabilities(rng: np.random.Generator) -> np.ndarray:
    """An ellipse for the face, one for the mouth, noisy, roughly where the template has them."""
    found = np.zeros((2, ALIGNED, ALIGNED), np.float32)
    x, y = (int(shift) for shift in rng.integers(-40, 40, 2))
    cv2.ellipse(found[0], (256 + x, 300 + y), (130, 180), 10, 0, 360, 0.95, -1)
    cv2.ellipse(found[1], (256 + x, 370 + y), (75, 40), 10, 0, 360, 1.0, -1)
    noise = rng.random(found.shape, dtype=np.float32) * np.float32(0.1)
    return np.clip(found - noise, 0, 1)


def _bytes(planes: np.ndarray) -> np.ndarray:
    """Planes in levels as pixels."""
    return np.ascontiguousarray(np.rint(planes).astype(np.uint8).transpose(0, 2, 3, 1))
