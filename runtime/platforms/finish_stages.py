"""The stages that take the blend's place when frames are finished by networks, on the host.

    enhanced ── align ── aligned ──┬─ parsenet ── masks ───┬─ finish ── dubbed
                                   └─ gfpgan ── restored ──┘

One parse of a frame serves both masks, and it is the restorer's input that is parsed.
"""

from __future__ import annotations

from dataclasses import dataclass

from dubstream.engines.engine import Engine
from dubstream.kernels.finish import FinishSettings, Restored, align_dubbed, finish_face
from dubstream.kernels.parse_mask import face_masks
from dubstream.runtime.options.finish import PARSE, FinishOptions
from dubstream.runtime.platforms.stages import HostStage, enhanced_planes
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.stages import EngineStage, Stage


@dataclass(frozen=True)
class Finish:
    """The finish with its networks.

    Attributes:
        options: at least one network.
        parser: ParseNet.
        restorer: GFPGAN; None where mouths are not restored.
    """

    options: FinishOptions
    parser: Engine
    restorer: Engine | None

    @classmethod
    def of(cls, options: FinishOptions, engines: list[Engine]) -> Finish | None:
        """From the engines of `options.frame_networks`, in that order; None where there are none."""
        if not engines:
            return None
        parser, *rest = engines
        return cls(options, parser, rest[0] if rest else None)

    @property
    def settings(self) -> FinishSettings:
        """Masks and bands."""
        return FinishSettings() if self.options.mask == PARSE else FinishSettings(parsed=None)


def finish_buffers(finish: Finish) -> list[BufferSpec]:
    """The slot buffers of a finish, beside those of the synthesis.

    ``to_aligned`` is float64 (2, 3), from pixels of the frame to those of the aligned face; ``parsed`` is
    uint8 (1,), whether the parser saw a face.
    """
    buffers = [
        BufferSpec("to_aligned", (2, 3), "float64", "input"),
        BufferSpec.of(finish.parser.spec.input("image"), "scratch", "aligned"),
        BufferSpec.of(finish.parser.spec.output("masks"), "scratch"),
        BufferSpec("parsed", (1,), "uint8", "output"),
    ]
    if finish.restorer is not None:
        buffers.append(BufferSpec.of(finish.restorer.spec.output("restored"), "scratch"))
    return buffers


def finish_stages(finish: Finish) -> list[Stage]:
    """The stages of a finish, which read ``enhanced`` and write ``dubbed`` as the blend does."""
    # The parser's classes are for people who look at them: ONNX Runtime leaves out what has no buffer.
    parser = EngineStage(finish.parser, {"image": "aligned", "masks": "masks"})
    stages: list[Stage] = [_align_stage(finish.settings), parser]
    if finish.restorer is not None:
        stages.append(EngineStage(finish.restorer, {"image": "aligned", "restored": "restored"}))
    return [*stages, _finish_stage(finish.settings, restores=finish.restorer is not None)]


def _align_stage(settings: FinishSettings) -> HostStage:
    """Reads `frames`, `enhanced`, `face_boxes`, `to_aligned`; writes `aligned`."""

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
        for item in range(count):
            align_dubbed(
                arrays["frames"][item],
                enhanced_planes(arrays["enhanced"][item]),
                arrays["face_boxes"][item],
                arrays["to_aligned"][item],
                out=arrays["aligned"][item],
                settings=settings,
            )

    return HostStage("align", work)


def _finish_stage(settings: FinishSettings, *, restores: bool) -> HostStage:
    """Reads what `_align_stage` reads, `masks`, `aligned` and `restored`; writes `dubbed` and `parsed`."""

    def work(slot: Slot, count: int) -> None:
        arrays = slot.device
        for item in range(count):
            masks = face_masks(arrays["masks"][item])
            arrays["parsed"][item] = not masks.empty
            finish_face(
                arrays["frames"][item],
                enhanced_planes(arrays["enhanced"][item]),
                arrays["face_boxes"][item],
                arrays["to_aligned"][item],
                masks,
                Restored(arrays["restored"][item], arrays["aligned"][item]) if restores else None,
                out=arrays["dubbed"][item],
                settings=settings,
            )

    return HostStage("finish", work)
