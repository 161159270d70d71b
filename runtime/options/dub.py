"""Settings of a dub, in groups that decide different things."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dubstream.engines.artifact import Artifact
from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import FAN4, S3FD
from dubstream.engines.specs import CORE, SPECS
from dubstream.runtime.emotion import EmotionOptions
from dubstream.runtime.expression import ExpressionOptions, TemplateMix
from dubstream.runtime.faces.geometry import Pads
from dubstream.runtime.faces.selector import parse_face_selector
from dubstream.runtime.faces.track import DEFAULT_MAX_GAP
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.writer import EncodeOptions
from dubstream.runtime.options.backend import HOST, Backend
from dubstream.runtime.options.finish import BOTH, BOX, FinishOptions
from dubstream.runtime.options.upstream import (
    ANY_SIZE,
    UPSTREAM,
    SizedDetectors,
    UpstreamOptions,
    refuse_native,
)
from dubstream.runtime.speakers import Speaker
from dubstream.runtime.timeline import AudioMode

MAX_BATCH = min(spec.max_batch for spec in map(SPECS.__getitem__, CORE))
"""The largest batch every network takes."""

FINDERS: dict[str, tuple[str, ...]] = {"cascade": (), "networks": (S3FD.name, FAN4.name)}
"""Ways of finding faces, with the networks each needs: a detector, then landmarks."""


@dataclass(frozen=True)
class FaceOptions:
    """Which face, and how it is followed; part of a preparation's identity.

    Attributes:
        selector: ``largest``, ``center``, an index from the left, ``x,y,w,h``, or a picture of the person.
        detect_every: the detector looks at every n-th frame, tracking fills in between.
        max_gap: longest stretch without a face, in frames, that is bridged.
        finder: ``cascade`` (OpenCV's, nothing to download) or ``networks`` (S3FD and FAN-4).

    Raises:
        UsageError: a value that makes no sense.
    """

    selector: str = "largest"
    detect_every: int = 5
    max_gap: int = DEFAULT_MAX_GAP
    finder: str = "cascade"

    def __post_init__(self) -> None:
        parse_face_selector(self.selector)
        if self.finder not in FINDERS:
            raise UsageError(f"--faces received '{self.finder}', expected one of {', '.join(FINDERS)}")
        if self.detect_every < 1 or self.max_gap < 0:
            raise UsageError(
                f"--detect-every {self.detect_every} and --face-gap {self.max_gap}: "
                "expected at least 1 and at least 0"
            )

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that find faces; none for the cascade."""
        return FINDERS[self.finder]


@dataclass(frozen=True)
class StreamOptions:
    """How work is cut into batches; changes speed and memory, and the last bits of the result.

    Attributes:
        batch: frames per network call; a GPU wants more than the default, see `Backend.batch`.
        slots: batches under way at once; 2 is double buffering.
        threads: threads of one network call; None for all CPUs this process may use.
        segment_s: seconds of output per segment, the unit of resuming.
    """

    batch: int = Backend().batch
    slots: int = 2
    threads: int | None = None
    segment_s: float = 10.0

    def __post_init__(self) -> None:
        if not (1 <= self.batch <= MAX_BATCH and self.slots >= 1 and 0.1 <= self.segment_s <= 600):
            raise UsageError(
                f"--batch {self.batch}, --slots {self.slots}, --segment-seconds {self.segment_s}: "
                f"expected 1 to {MAX_BATCH}, at least 1, and 0.1 to 600"
            )
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads {self.threads}: expected at least 1")


@dataclass(frozen=True)
class DubOptions:
    """Everything about a dub but its files.

    Attributes:
        face, stream, backend: see there.
        pads: widening of the face box in pixels of a face 250 pixels high.
        audio_mode: what to do when audio and video differ in length.
        encode: codec, quality, threads of the video encoder.
        limits: what input media may be.
        allow_truncated: dub what could be decoded of a damaged file instead of refusing it.
        expression: of the references the lips are made from.
        trace: keep a span for every step of every batch.
        finish: mask and restoration of the dubbed face.
        emotion: of the upper face.

    Raises:
        UsageError: a batch too large for a finish.
    """

    face: FaceOptions = field(default_factory=FaceOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    backend: Backend = field(default_factory=Backend)
    pads: Pads = field(default_factory=Pads)
    audio_mode: AudioMode = AudioMode.BOUNCE
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    limits: MediaLimits = field(default_factory=MediaLimits)
    allow_truncated: bool = False
    expression: ExpressionOptions = field(default_factory=ExpressionOptions)
    trace: bool = False
    finish: FinishOptions = field(default_factory=FinishOptions)
    emotion: EmotionOptions = field(default_factory=EmotionOptions)
    upstream: UpstreamOptions | None = None

    def __post_init__(self) -> None:
        self._check_finish()
        if self.upstream is not None:
            self._check_upstream()

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks such a dub needs, save those that depend on the size of its frames."""
        if self.upstream is not None:
            return (*ANY_SIZE, *self.emotion.networks)
        second = (*self.finish.networks, *self.emotion.networks)
        return tuple(dict.fromkeys((*CORE, *self.preparation_networks, *second)))

    def networks_for(self, width: int, height: int) -> tuple[str, ...]:
        """Names of all networks it needs for frames of that size in pixels."""
        if self.upstream is None:
            return self.networks
        return (*self.networks, *SizedDetectors.of(width, height).names)

    @property
    def preparation_networks(self) -> tuple[str, ...]:
        """Names of those the first pass needs."""
        return ("recon", "dnet", *self.face.networks, *self.finish.reference_networks)

    def _check_upstream(self) -> None:
        expression = self.expression.parsed
        refuse_native(
            {
                "--face, --faces, --detect-every or --face-gap": self.face != FaceOptions(),
                "--audio-mode": self.audio_mode is not AudioMode.BOUNCE,
                "--batch": self.stream.batch != StreamOptions().batch,
                "--mask": self.finish.mask != BOX,
                f"--expression {self.expression.source}": not isinstance(expression, TemplateMix)
                or expression.first != expression.second,
                f"--emotion {self.emotion.name}:{self.emotion.strength:g}": self.emotion.strength != 1.0,
            }
        )
        if self.backend.on_gpu or self.backend.precision != "fp32":
            raise UsageError(
                f"--mode {UPSTREAM} with --backend {self.backend.name} --precision {self.backend.precision}: "
                "the original's numbers are those of float32 on the processor",
                hint=f"--backend {HOST} --precision fp32",
            )
        if self.finish.restore != BOTH:
            raise UsageError(
                f"--mode {UPSTREAM} restores mouths with GFPGAN and references with GPEN, which is for "
                f"non-commercial use only; received --restore {self.finish.restore}",
                hint=f"where that is allowed: --mode {UPSTREAM} --restore {BOTH}",
            )

    def _check_finish(self) -> None:
        most = min((SPECS[name].max_batch for name in self.finish.networks), default=MAX_BATCH)
        if self.stream.batch > most:
            raise UsageError(
                f"--batch {self.stream.batch}: {', '.join(self.finish.networks)} take at most {most} at once"
            )


@dataclass(frozen=True)
class DubRequest:
    """One dub.

    Attributes:
        video: input file.
        audio: speech of the chosen face; of a video, its first audio track is taken. None with speakers.
        output: the file to write; its folder must exist.
        artifacts: verified ONNX artifacts of all networks, by name, in the backend's precision.
        cache: folder for preparations and unfinished jobs.
        options: the rest.
        plans: folder of built TensorRT plans; None for the one of `dubstream build`.
        plans_key: key file of a folder of plans that others can write.
        prepared: folder of a finished preparation that has to fit; None to find or make one in the cache.
        speakers: several people, each with speech of their own; then there is no `audio`.

    Raises:
        UsageError: artifacts of another precision than the backend's, not one of audio and speakers, or a
            face chosen beside speakers.
    """

    video: Path
    audio: Path | None
    output: Path
    artifacts: dict[str, Artifact]
    cache: Path
    options: DubOptions = field(default_factory=DubOptions)
    plans: Path | None = None
    plans_key: Path | None = None
    prepared: Path | None = None
    speakers: tuple[Speaker, ...] = ()

    def __post_init__(self) -> None:
        self.options.backend.check_artifacts(self.artifacts)
        if self.options.upstream is not None:
            refuse_native({"--speaker": bool(self.speakers), "--prepared": self.prepared is not None})
        if (self.audio is None) == (not self.speakers):
            received = "neither" if self.audio is None else "both"
            raise UsageError(f"expected the speech as AUDIO or as --speaker FACE=AUDIO, received {received}")
        chosen = self.options.face.selector
        if self.speakers and chosen != FaceOptions().selector:
            raise UsageError(
                f"--face {chosen} beside --speaker, expected each speaker to name a face of their own"
            )

    @property
    def voices(self) -> tuple[Speaker, ...]:
        """The speakers, or the one that `audio` and the chosen face are."""
        return self.speakers or (Speaker(self.options.face.selector, Path(self.audio or "")),)


def parse_pads(text: str) -> Pads:
    """``top,bottom,left,right`` in pixels; `UsageError` for anything else."""
    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) == 4 and all(abs(number) < 1000 for number in numbers):
            return Pads(*numbers)
    except ValueError:
        pass
    raise UsageError(f"--pads received '{text}', expected top,bottom,left,right in pixels, e.g. 0,20,0,0")
