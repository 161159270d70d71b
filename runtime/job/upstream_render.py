"""The second pass of `--mode upstream`: the original's stages 5.2, 5.4 and 7 on one frame after another.

The way of a frame is `dubstream.runtime.upstream.frame`; here it gets its networks, and decoding and encoding
go on beside it. Every network is called for one frame: what one stage finds decides what the next one sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dubstream.engines.face_specs import GANIMATION, GFPGAN, PARSENET
from dubstream.engines.specs import ENET, LNET
from dubstream.kernels.checks import F32
from dubstream.kernels.detection import RETINAFACE_RULE, RETINAFACE_STRICT_RULE
from dubstream.runtime.audio import mel_window
from dubstream.runtime.emotion import EmotionOptions
from dubstream.runtime.faces.geometry import CANONICAL
from dubstream.runtime.job.synthesise import FramesAt, Picture
from dubstream.runtime.options.upstream import SizedDetectors
from dubstream.runtime.platforms.calls import Calls
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.platforms.stages import HostStage
from dubstream.runtime.preparation.upstream import UpstreamPrepared
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.streamer import Streamer
from dubstream.runtime.timeline import Timeline
from dubstream.runtime.upstream.five_points import FaceDetector, Faces
from dubstream.runtime.upstream.frame import FrameNetworks, finished_frame, synthesised_frame
from dubstream.runtime.upstream.networks import Classes, FiveFaces, Lips, Planes
from dubstream.runtime.upstream.references import reference_frame

STAGE = "upstream"
"""The one stage: all of a frame's way."""


@dataclass(frozen=True)
class UpstreamScene:
    """What all segments of a job share.

    Attributes:
        prepared: boxes, landmarks and references.
        timeline: source frame of every output frame.
        mel: float32 (80, T), the sound.
        starts: int64, the first column of every output frame's window.
        width, height: of the frames.
    """

    prepared: UpstreamPrepared
    timeline: Timeline
    mel: F32
    starts: npt.NDArray[np.int64]
    width: int
    height: int


def render_networks(detectors: SizedDetectors, emotion: EmotionOptions) -> tuple[str, ...]:
    """Names of the networks a renderer calls."""
    finders = detectors.frame_points, detectors.mask_points
    return (LNET.name, ENET.name, GFPGAN.name, PARSENET.name, *finders, *emotion.networks)


class UpstreamRenderer:
    """Renders segments; a `Renderer`.

    Args:
        platform: where it is computed.
        calls: `render_networks`, opened there; closed by the caller, afterwards.
        detectors: names of those among them.
        scene: what all segments share.
        emotion: of the upper face. One that edits it is the original's `--up_face` with `--without_rl1`,
            without which that has no effect there; without an edit the lip network's upper half stays.
        slots: frames under way at once, decoded, rendered or encoded.

    Attributes:
        unparsed: frames so far in which the last detection found no face: they show the source.
    """

    def __init__(
        self,
        platform: Platform,
        calls: Calls,
        detectors: SizedDetectors,
        scene: UpstreamScene,
        emotion: EmotionOptions,
        *,
        slots: int,
    ) -> None:
        self.unparsed = 0
        self._scene = scene
        self._last = _Watched(FiveFaces(calls[detectors.mask_points], RETINAFACE_RULE))
        self._replaces_upper_face = bool(emotion.networks)
        self._networks = FrameNetworks(
            lips=Lips(calls[LNET.name], calls[ENET.name]),
            faces=self._last,
            strict_faces=FiveFaces(calls[detectors.frame_points], RETINAFACE_STRICT_RULE),
            restore_mouth=Planes(calls[GFPGAN.name], "restored"),
            parse=Classes(calls[PARSENET.name]),
            edit_upper_face=Planes(calls[GANIMATION.name], "fused", aus=emotion.intensities)
            if emotion.networks
            else None,
        )
        buffers = [
            BufferSpec("frames", (scene.height, scene.width, 3), "uint8", "input"),
            BufferSpec("references", (CANONICAL, CANONICAL, 3), "uint8", "input"),
            BufferSpec("dubbed", (scene.height, scene.width, 3), "uint8", "output"),
        ]
        stages = [HostStage(STAGE, self._work)]
        self._streamer = Streamer(platform.device, buffers, stages, batch=1, slots=slots)

    def close(self) -> None:
        """Let go of streams and buffers. Idempotent."""
        self._streamer.close()

    def render(
        self,
        frames_at: FramesAt,
        start: int,
        stop: int,
        write: Callable[[Picture], None],
        advance: Callable[[int], None],
        *,
        trace: bool = False,
    ) -> StreamReport:
        """As `dubstream.runtime.job.synthesise.Synthesiser.render`.

        Raises:
            StageError: a network failed on a frame, or gave numbers that are not finite; names the frame.
        """

        def drain(slot: Slot) -> None:
            write(slot.outputs["dubbed"][0])
            advance(1)

        return self._streamer.run(self._items(frames_at, start, stop), _fill, drain, trace=trace)

    def _items(self, frames_at: FramesAt, start: int, stop: int) -> Iterator[_Item]:
        wanted = self._scene.timeline.sources[start:stop]
        shown: Iterable[tuple[int, Picture]] = frames_at(wanted)
        for output, (source, frame) in enumerate(shown, start):
            yield _Item(output, source, frame, self._scene.prepared.references.read(source))

    def _work(self, slot: Slot, _: int) -> None:
        scene, item = self._scene, slot.context
        prepared, frame = scene.prepared, slot.device["frames"][0]
        landmarks, box = prepared.landmarks[item.source], prepared.face_boxes[item.source]
        enhanced = slot.device["references"][0]
        reference = reference_frame(enhanced, landmarks, frame, prepared.source_box)
        mel = mel_window(scene.mel, int(scene.starts[item.output]))
        synthesised = synthesised_frame(
            frame, reference, box, mel, self._networks, replace_upper_face=self._replaces_upper_face
        )
        slot.device["dubbed"][0] = finished_frame(synthesised, frame, box, self._networks)
        self.unparsed += self._last.saw_nobody


class _Item(NamedTuple):
    """One output frame and its enhanced stabilised picture."""

    output: int
    source: int
    frame: Picture
    enhanced: Picture


class _Watched:
    """A detector that remembers whether its last picture showed anybody."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self.saw_nobody = False

    def __call__(self, levels: F32) -> Faces:
        faces = self._detector(levels)
        self.saw_nobody = not len(faces.scores)
        return faces


def _fill(slot: Slot, item: _Item) -> None:
    slot.first, slot.count, slot.context = item.output, 1, item
    slot.inputs["frames"][0] = item.frame
    slot.inputs["references"][0] = item.enhanced
