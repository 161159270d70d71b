"""The pixel stages between the networks, on the host: the kernels' numpy references on slot buffers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dubstream.kernels.blend import DEFAULT_SETTINGS, BlendSettings, blend_face
from dubstream.kernels.composite import composite
from dubstream.kernels.face_inputs import face_inputs_batch
from dubstream.kernels.planes import RGB_SIGNED, PlaneLayout, from_planes, to_planes
from dubstream.runtime.streaming.device import Stream
from dubstream.runtime.streaming.slots import Slot


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


def planes_stage(name: str, source: str, target: str, layout: PlaneLayout) -> HostStage:
    """Pictures to network planes: `source` uint8 BGR (N, H, W, 3), `target` float32 (N, 3, H, W)."""

    def work(slot: Slot, count: int) -> None:
        for picture, planes in zip(slot.device[source][:count], slot.device[target][:count], strict=True):
            to_planes(picture, layout, out=planes)

    return HostStage(name, work)


def reference_stage() -> HostStage:
    """D-Net's face inside the quad, the source outside: one composite instead of two resamplings.

    Reads `edited` float32 RGB planes, `crops` uint8 BGR (N, 256, 256, 3) and `masks` float32
    (N, 256, 256); writes `references` uint8 BGR (N, 256, 256, 3).
    """

    def work(slot: Slot, count: int) -> None:
        for item in range(count):
            out = slot.device["references"][item]
            from_planes(slot.device["edited"][item], RGB_SIGNED, out=out)
            composite(out, slot.device["crops"][item], slot.device["masks"][item], out=out)

    return HostStage("reference", work)


def face_inputs_stage() -> HostStage:
    """What L-Net and E-Net see.

    Reads `frames`, `references`, `crop_boxes`, `face_boxes`; writes `faces`, `reference`.
    """

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
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
    """The synthesised face into its frame: reads `frames`, `enhanced`, `face_boxes`; writes `dubbed`."""

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
        for item in range(count):
            blend_face(
                arrays["frames"][item],
                arrays["enhanced"][item],
                arrays["face_boxes"][item],
                out=arrays["dubbed"][item],
                settings=settings,
            )

    return HostStage("blend", work)
