"""The stages that give the upper face an emotion, on a CUDA device.

The twin of `dubstream.runtime.platforms.emotion_stages`, with the same names and buffers. The frame is
changed where it lies on the device, so that the blend or finish behind it sees it so; the host's stays as
it was filmed.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from dubstream.engines.engine import Engine
from dubstream.engines.errors import InternalError
from dubstream.kernels.face_inputs import FACE
from dubstream.kernels.launchers import FaceChange, Launchers
from dubstream.kernels.modules import KernelModules
from dubstream.runtime.platforms.cuda_stages import NetworkStage, frames_of, load_kernels
from dubstream.runtime.platforms.emotion_stages import EMOTION_FINITE, Emotion
from dubstream.runtime.platforms.emotion_stages import emotion_buffers as pixel_buffers
from dubstream.runtime.streaming.cuda import CudaDevice
from dubstream.runtime.streaming.cuda_graph import graphed
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import Stage, unread_outputs

_ITEMS = BufferSpec("emotion_items", (5,), "int32", "input")  # frame, face box
_FINITE = BufferSpec(EMOTION_FINITE, (1,), "uint8", "output")
_NAMES = {"image": "upper_face", "aus": "aus", "fused": "emotional"}


def emotion_buffers(emotion: Emotion) -> list[BufferSpec]:
    """The slot buffers on the host, the kernels' table, and what else the network gives or may give."""
    buffers = [*pixel_buffers(emotion), _ITEMS]
    buffers += [BufferSpec.of(tensor, "scratch") for tensor in unread_outputs(emotion.network, _NAMES)]
    return [*buffers, _FINITE] if _takes_planes(emotion.network) else buffers


def fill_emotion_table(slot: Slot) -> None:
    """The table of a slot whose boxes and count are filled; nothing for a slot without an emotion.

    Raises:
        InternalError: a face box that leaves its frame.
    """
    if _ITEMS.name not in slot.inputs:
        return
    _, height, width, _ = slot.inputs["frames"].shape
    boxes = slot.inputs["face_boxes"][: slot.count]
    for box in boxes[((boxes < 0) | (boxes > [width, height, width, height])).any(axis=1)]:
        raise InternalError(f"face box {tuple(box.tolist())} leaves a frame of {width}x{height}")
    slot.inputs[_ITEMS.name][: slot.count] = np.column_stack((np.arange(slot.count), boxes))


def emotion_stages(
    device: CudaDevice, emotion: Emotion, *, modules: KernelModules | None = None
) -> list[Stage]:
    """The stages, which read `face_boxes` and change `frames` on the device.

    Args:
        device: attached in this thread.
        emotion: its network on that device; closed by the caller, after the streamer.
        modules: the device's kernels; None to load them now.

    Raises:
        DeviceError: a kernel cannot be compiled for the device or loaded.
    """
    launchers = Launchers(modules or load_kernels(device))
    others = {tensor.name: tensor.name for tensor in unread_outputs(emotion.network, _NAMES)}
    return graphed(
        [
            LookStage(device, launchers, emotion),
            NetworkStage(emotion.network, _NAMES | others),
            EmotionStage(launchers, emotion),
        ]
    )


class LookStage:
    """What the network sees: reads `frames` and `emotion_items`, writes `upper_face`."""

    name = "look"
    capturable = True

    def __init__(self, device: CudaDevice, launchers: Launchers, emotion: Emotion) -> None:
        self._device = device
        self._launchers = launchers
        self._intensities = emotion.options.intensities

    def bind(self, slot: Slot) -> None:
        """Write `aus`, which is the same for every face of a job."""
        staged = self._device.pinned(slot.device["aus"].shape, np.float32)
        staged[:] = self._intensities
        with closing(self._device.stream(self.name)) as stream:
            self._device.upload(slot.device["aus"], staged, stream)
            stream.synchronize()

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """Enqueue the work for the slot's first `count` items."""
        stream.launch(partial(self._enqueue, slot, stream), self.name)

    def _enqueue(self, slot: Slot, stream: Any) -> None:
        arrays, frames = slot.device, frames_of(slot.device["frames"])
        items, face = (arrays[_ITEMS.name].ptr, slot.count), arrays["upper_face"].ptr
        if EMOTION_FINITE in arrays:
            finite = arrays[EMOTION_FINITE].ptr
            self._launchers.upper_face_planes(frames, *items, face, finite, stream=stream.native)
        else:
            self._launchers.crop_resize(frames, *items, face, (FACE, FACE), stream=stream.native)


class EmotionStage:
    """Reads `upper_face`, `emotional`, `emotion_items`; changes `frames`, and writes `emotion_finite`."""

    name = "emotion"
    capturable = False  # the size of its launch follows the faces

    def __init__(self, launchers: Launchers, emotion: Emotion) -> None:
        self._launchers = launchers
        self._strength = emotion.options.strength

    def bind(self, slot: Slot) -> None:
        """Nothing to prepare: the slot's arrays are found by name."""

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """Enqueue the work for the slot's first `count` items."""
        stream.launch(partial(self._enqueue, slot, stream), self.name)

    def _enqueue(self, slot: Slot, stream: Any) -> None:
        arrays, boxes = slot.device, slot.inputs["face_boxes"][: slot.count]
        width, height = (boxes[:, 2:] - boxes[:, :2]).max(axis=0).tolist()
        before, after = arrays["upper_face"], arrays["emotional"]
        finite = arrays[EMOTION_FINITE].ptr if EMOTION_FINITE in arrays else None
        self._launchers.change_upper_faces(
            frames_of(arrays["frames"]),
            arrays[_ITEMS.name].ptr,
            slot.count,
            FaceChange(before.ptr, after.ptr, before.shape[2], finite),
            self._strength,
            largest=(width, height),
            stream=stream.native,
        )


def _takes_planes(network: Engine) -> bool:
    return network.spec.input("image").dtype != "uint8"
