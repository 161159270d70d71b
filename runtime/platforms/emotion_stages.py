"""The stages that give the upper face an emotion, between E-Net and the blend, on the host.

    frames ── look ── upper_face ── ganimation ── emotional ── emotion ── frames

The lip networks have seen the face as it was filmed by then; what follows, blend or finish, sees the frame
with its upper face changed, as if it had been filmed so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dubstream.engines.engine import Engine
from dubstream.kernels.checks import F32, U8
from dubstream.kernels.face_inputs import FACE
from dubstream.kernels.planes import BGR_SIGNED, to_planes
from dubstream.kernels.resample import crop_resize
from dubstream.kernels.upper_face import change_upper_face
from dubstream.runtime.emotion import EmotionOptions
from dubstream.runtime.platforms.stages import HostStage
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import EngineStage, Stage

EMOTION_FINITE = "emotion_finite"
"""The output buffer of stages that cannot raise: uint8 (1,), 0 where the network gave NaN or infinity."""


@dataclass(frozen=True)
class Emotion:
    """An emotion with its network.

    Attributes:
        options: one that needs the network.
        network: GANimation.
    """

    options: EmotionOptions
    network: Engine


def emotion_buffers(emotion: Emotion) -> list[BufferSpec]:
    """The slot buffers of an emotion, beside those of the synthesis."""
    spec = emotion.network.spec
    return [
        BufferSpec.of(spec.input("image"), "scratch", "upper_face"),
        BufferSpec.of(spec.input("aus"), "scratch"),
        BufferSpec.of(spec.output("fused"), "scratch", "emotional"),
    ]


def emotion_stages(emotion: Emotion) -> list[Stage]:
    """The stages, which read `face_boxes` and change `frames` inside them."""
    names = {"image": "upper_face", "aus": "aus", "fused": "emotional"}
    return [
        _look_stage(emotion.options),
        EngineStage(emotion.network, names),
        _emotion_stage(emotion.options),
    ]


def _look_stage(options: EmotionOptions) -> HostStage:
    """Reads `frames`, `face_boxes`; writes `upper_face`, the whole face, and `aus`."""
    intensities = options.intensities

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
        arrays["aus"][:count] = intensities
        for item in range(count):
            face = crop_resize(arrays["frames"][item], arrays["face_boxes"][item], _face_picture())
            out = arrays["upper_face"][item]
            if out.dtype == np.uint8:
                np.copyto(out, face)
            else:
                # Bilinear to a third of the side, as the original does: the middle one of every 3 x 3 pixels.
                to_planes(face[1::3, 1::3], BGR_SIGNED, out=out)

    return HostStage("look", work)


def _emotion_stage(options: EmotionOptions) -> HostStage:
    """Reads `upper_face`, `emotional`, `face_boxes`; changes `frames`."""

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
        for item in range(count):
            change_upper_face(
                arrays["frames"][item],
                _change(arrays["upper_face"][item], arrays["emotional"][item]),
                arrays["face_boxes"][item],
                options.strength,
            )

    return HostStage("emotion", work)


def _change(before: U8 | F32, after: U8 | F32) -> F32:
    """What the network changed, in levels: float32 (h, w, 3) from pictures or planes in [-1, 1]."""
    difference = after.astype(np.float32) - before
    if before.dtype == np.uint8:
        return difference
    return np.ascontiguousarray(difference.transpose(1, 2, 0) * np.float32(127.5))


def _face_picture() -> U8:
    return np.empty((FACE, FACE, 3), np.uint8)
