"""`--mode native`: a tracked face, our own finish at the frames' resolution, any number of voices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dubstream.runtime.audio import mel_spectrogram, speech_from
from dubstream.runtime.job.speakers import Chain, check_people
from dubstream.runtime.job.synthesise import Scene, Synthesiser
from dubstream.runtime.job.way import JobFacts, Way
from dubstream.runtime.media.audio import AudioTrack
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.platforms.emotion_stages import Emotion
from dubstream.runtime.platforms.finish_stages import Finish
from dubstream.runtime.preparation.expression import open_expression
from dubstream.runtime.preparation.preparation import Preparation, Prepared
from dubstream.runtime.speakers import Speaker
from dubstream.runtime.timeline import Timeline, plan_timeline

Mel = npt.NDArray[np.float32]


class NativeWay(Way):
    """See `Way`."""

    def __init__(self, job: JobFacts) -> None:
        super().__init__(job)
        request = job.request
        self._expression = open_expression(request.options, request.artifacts, request.cache)
        self._prepared: list[Prepared] = []

    def plan(self, tracks: Sequence[AudioTrack]) -> Timeline:
        """A constant rate, as long as the longest voice by the audio mode."""
        job, options = self._job, self._job.request.options
        self._timeline = plan_timeline(
            job.info.plan(options.limits),
            job.info.rate,
            max(Fraction(track.samples.shape[1], track.rate) for track in tracks),
            options.audio_mode,
        )
        options.limits.check_most("max_frames", self._timeline.frames, "output frames planned")
        with job.timing.measure("audio", self._timeline.frames):
            self._mels = [mel_spectrogram(speech_from(track.samples, track.rate)) for track in tracks]
        return self._timeline

    def prepare(self) -> None:
        """The preparation of every voice's face; what was seen of the video serves all of them."""
        speakers = self._job.request.voices
        with self._job.reading() as reader:
            self._prepared = [self._preparation(reader, speaker) for speaker in speakers]
        check_people(speakers, [one.track for one in self._prepared])

    @property
    def keys(self) -> list[str]:
        """Of the voices' preparations."""
        return [one.key for one in self._prepared]

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Where one of the voices' faces is."""
        return np.asarray(np.any([one.track.present for one in self._prepared], axis=0))

    @contextmanager
    def opened(self) -> Iterator[Chain]:
        """A synthesiser for every voice."""
        with ExitStack() as stack:
            pairs = zip(self._prepared, self._mels, strict=True)
            yield Chain([self._synthesiser(stack, one, mel) for one, mel in pairs])

    @property
    def licensed(self) -> tuple[str, ...]:
        """Those beside the four that every dub needs."""
        options = self._job.request.options
        return (*options.finish.networks, *options.emotion.networks)

    def notes(self, unparsed: int) -> list[str]:
        """Expression and frames without a parsed face."""
        notes = [] if self._expression.note is None else [self._expression.note]
        if unparsed:
            notes.append(f"the parser saw no face in {unparsed} dubbed frames, which show the source")
        return notes

    def _preparation(self, reader: VideoReader, speaker: Speaker) -> Prepared:
        job, request = self._job, self._job.request
        options = request.options
        preparation = Preparation(
            reader, job.info, job.digest, request.artifacts, self._expression,
            replace(options, face=replace(options.face, selector=speaker.face)),
            request.cache, given=request.prepared,
        )  # fmt: skip
        needed = np.unique(self._timeline.sources)
        return preparation.run(needed, job.platform, job.timing, job.progress)

    def _synthesiser(self, stack: ExitStack, prepared: Prepared, mel: Mel) -> Synthesiser:
        job, networks = self._job, self._job.request.artifacts
        options = job.request.options
        names = ("lnet", "enet", *options.emotion.networks, *options.finish.frame_networks)
        engines = stack.enter_context(job.platform.opened(*(networks[name] for name in names)))
        stack.enter_context(closing(prepared.references))
        lnet, enet, *more = engines
        emotion = Emotion(options.emotion, more.pop(0)) if options.emotion.networks else None
        scene = Scene(prepared, self._timeline, mel, options.pads, job.info.width, job.info.height)
        synthesiser = Synthesiser(
            job.platform, lnet, enet, scene, finish=Finish.of(options.finish, more), emotion=emotion,
            batch=options.stream.batch, slots=options.stream.slots,
        )  # fmt: skip
        return stack.enter_context(closing(synthesiser))
