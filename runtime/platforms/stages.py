"""The pixel stages between the networks, on the host: the kernels' numpy references on slot buffers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.contract import NetworkSpec
from dubstream.kernels.blend import DEFAULT_SETTINGS, BlendSettings, blend_face
from dubstream.kernels.face_inputs import face_inputs_batch
from dubstream.kernels.paste import paste
from dubstream.kernels.planes import BGR_UNIT, to_planes
from dubstream.kernels.resample import crop_resize
from dubstream.runtime.streaming.device import Stream
from dubstream.runtime.streaming.slots import BufferSpec, Slot


class HostStage:
    """A function of a slot and its item count as a stage.

    Args:
        name: the stage's name in reports, traces and errors.
        work: called in stream order with the slot and how many of its items are in use.
    """

    def __init__(self, name: str, work: Callable[[Slot, int], None]) -> None:
        self._name = name
        self._work = work

    @property
    def name(self) -> str:
        """The stage's name."""
        return self._name

    def bind(self, slot: Slot) -> None:
        """Nothing to prepare: the slot's arrays are found by name."""

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Enqueue the work for the slot's first `count` items."""
        # The count is taken now: by the time the work runs, the host may have moved on.
        stream.launch(partial(self._work, slot, slot.count), self.name)


def synthesis_buffers(lnet: NetworkSpec, enet: NetworkSpec, height: int, width: int) -> list[BufferSpec]:
    """The slot buffers of the second pass, for networks of any precision.

    Args:
        lnet, enet: as loaded; what they exchange stays on the device.
        height, width: of the frames.
    """
    picture = (height, width, 3)
    inner = {tensor.name: tensor for tensor in (*lnet.inputs, *lnet.outputs, *enet.inputs, *enet.outputs)}
    mel = inner.pop("mel")
    return [
        BufferSpec("frames", picture, "uint8", "input"),
        BufferSpec("references", (256, 256, 3), "uint8", "input"),
        BufferSpec("crop_boxes", (4,), "int32", "input"),
        BufferSpec("face_boxes", (4,), "int32", "input"),
        BufferSpec.of(mel, "input"),
        *(BufferSpec.of(tensor, "scratch") for tensor in inner.values()),
        BufferSpec("dubbed", picture, "uint8", "output"),
    ]


def face_inputs_stage() -> HostStage:
    """What L-Net and E-Net see.

    Reads `frames`, `references`, `crop_boxes`, `face_boxes`. For networks that take pictures it writes `face`
    and `reference`, uint8 BGR (N, 384, 384, 3); for networks that take planes `faces` and `reference`.
    """

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
        if "face" in arrays:
            for item in range(count):
                _face_pictures(slot, item)
            return
        face_inputs_batch(
            arrays["frames"][:count],
            arrays["references"][:count],
            arrays["crop_boxes"][:count],
            arrays["face_boxes"][:count],
            faces_96=arrays["faces"][:count],
            references_384=arrays["reference"][:count],
        )

    return HostStage("crop", work)


def blend_stage(settings: BlendSettings = DEFAULT_SETTINGS) -> HostStage:
    """The synthesised face into its frame: reads `frames`, `enhanced`, `face_boxes`; writes `dubbed`.

    `enhanced` is float32 (N, 3, 384, 384) in [0, 1] or uint8 (N, 384, 384, 3), BGR both.
    """

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
        for item in range(count):
            blend_face(
                arrays["frames"][item],
                enhanced_planes(arrays["enhanced"][item]),
                arrays["face_boxes"][item],
                out=arrays["dubbed"][item],
                settings=settings,
            )

    return HostStage("blend", work)


def _face_pictures(slot: Slot, item: int) -> None:
    arrays = slot.device
    frame, face_box = arrays["frames"][item], arrays["face_boxes"][item]
    crop_resize(frame, face_box, arrays["face"][item])
    referred = frame.copy()
    paste(referred, arrays["references"][item], arrays["crop_boxes"][item])
    crop_resize(referred, face_box, arrays["reference"][item])


def enhanced_planes(enhanced: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """E-Net's picture, in whichever form, as float32 BGR planes (3, 384, 384)."""
    if enhanced.dtype != np.uint8:
        return enhanced
    return to_planes(enhanced, BGR_UNIT, out=np.empty((3, *enhanced.shape[:2]), np.float32))
