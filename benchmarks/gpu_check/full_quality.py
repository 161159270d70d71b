"""The complete system as a stream: L-Net, E-Net, an emotion, a parse and a restored mouth in every frame.

Frames are those of a job (`dubstream.runtime.job.synthesise`), without files around it: a real face moves
over noise, and its preparation is made up. ONNX Runtime on the CPU renders the first of them from the same
artifacts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.benchmarks.gpu_check.executors import artifact_of
from dubstream.benchmarks.gpu_check.journal import Journal
from dubstream.benchmarks.gpu_check.setting import Setting, require_driver, require_package
from dubstream.benchmarks.gpu_check.streamer import overlap, stream_facts
from dubstream.engines.artifact import Artifact
from dubstream.export.real_inputs import real_inputs
from dubstream.kernels.blend import DEFAULT_SETTINGS, blend_window
from dubstream.kernels.boxes import Box, cut
from dubstream.kernels.multiband import pyramid_reach
from dubstream.runtime.emotion import EmotionOptions
from dubstream.runtime.faces.geometry import Pads, crop_box
from dubstream.runtime.faces.track import Track
from dubstream.runtime.job.synthesise import Scene, Synthesiser
from dubstream.runtime.options.backend import HOST, TENSORRT, Backend
from dubstream.runtime.options.dub import StreamOptions
from dubstream.runtime.options.finish import FinishOptions
from dubstream.runtime.platforms.emotion_stages import Emotion
from dubstream.runtime.platforms.finish_stages import Finish
from dubstream.runtime.platforms.platform import Platform, open_platform
from dubstream.runtime.preparation.preparation import Prepared
from dubstream.runtime.preparation.references import ReferenceReader
from dubstream.runtime.streaming.report import StreamReport
from dubstream.runtime.timeline import Timeline

NETWORKS = ("lnet", "enet", "ganimation", "parsenet", "gfpgan")
PRECISION = "fp16"
EMOTION = EmotionOptions("angry")
FINISH = FinishOptions("parse", "gfpgan")
SLOTS = (2, 3)
SANITY_DB = 30.0
"""A face out of place, or with blue for red, is far below; two ways of rounding to half precision above."""
_BEST_DB = 99.0  # JSON knows no infinity

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Load:
    """How much is rendered.

    Attributes:
        frames: of one run, at least five batches.
        batch: of the stream.
        size: height, width of a frame.
        compared: frames that the CPU renders too.
        repeats: timed runs.
    """

    frames: int
    batch: int
    size: tuple[int, int]
    compared: int
    repeats: int


SMALL = Load(frames=11, batch=2, size=(180, 240), compared=3, repeats=1)
LARGE = Load(frames=100, batch=8, size=(1080, 1920), compared=2, repeats=5)


class Clip:
    """Frames with a face of 0.6 of their height, and what a job would have prepared of them."""

    def __init__(self, load: Load) -> None:
        height, width = load.size
        random = np.random.default_rng(11)
        self._ground = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        side = int(0.6 * height)
        self._face = cv2.resize(real_inputs("lnet")["face"][0], (side, side), interpolation=cv2.INTER_LINEAR)
        turn = np.arange(load.frames) / 4
        middle = np.array([(width - side) / 2, (height - side) / 2])
        moves = np.stack([np.sin(turn), np.cos(turn)], 1) * 0.02 * height
        self._corners = np.rint(middle + moves).astype(int)
        points = self._corners[:, None] + side * _POINTS
        boxes = np.concatenate([self._corners, self._corners + side], 1).astype(np.float64)
        track = Track(np.arange(load.frames), np.ones(load.frames, bool), boxes, points)
        look = crop_box(points[0], width, height)
        # The reader's file is all that is left out.
        references = cast(ReferenceReader, _Still(self.frame(0)[cut(look, (0, 0, 0, 0))]))
        prepared = Prepared("made up", Path(), track, look, references)
        timeline = Timeline(Fraction(25), np.arange(load.frames))
        mel = random.uniform(-4, 4, (80, 4 * load.frames)).astype(np.float32)
        self.scene = Scene(prepared, timeline, mel, Pads(), width, height)

    def frame(self, index: int) -> Picture:
        """Frame `index`, own memory."""
        frame = self._ground.copy()
        x, y = self._corners[index]
        frame[y : y + len(self._face), x : x + len(self._face)] = self._face
        return frame

    def window(self, index: int) -> Box:
        """The part of frame `index` that a dub may change."""
        box = self.scene.face_box(index)
        reach = pyramid_reach(DEFAULT_SETTINGS.levels(box))
        return blend_window(box, self.scene.width, self.scene.height, reach)


class _Still:
    """One picture as the reference of every frame."""

    def __init__(self, picture: Picture) -> None:
        self._picture = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)

    def read(self, index: int) -> Picture:
        """The picture."""
        return np.asarray(self._picture, np.uint8)


# Eyes, nose and mouth corners of a face that fills its box as the lip network wants it, in shares of the box.
_POINTS = np.array([[0.28, 0.36], [0.72, 0.36], [0.5, 0.58], [0.33, 0.81], [0.67, 0.81]])


def check(setting: Setting, journal: Journal) -> None:
    """Rows ``full/N-slots``: the frames, overlap, and frames per second."""
    load = SMALL if setting.small else LARGE
    artifacts = [artifact_of(setting, name, PRECISION) for name in NETWORKS]
    if not setting.host:
        require_driver()
        require_package("pycuda", "CudaDevice is made of it")
        require_package("tensorrt", "the complete system runs on its engines")
    clip = Clip(load)
    wanted = _by_the_host(clip, artifacts, load.compared)
    backend = Backend(HOST if setting.host else TENSORRT, setting.index, PRECISION)
    with open_platform(backend, StreamOptions(batch=load.batch)) as platform:
        for slots in SLOTS:
            stage = f"full/{slots}-slots"
            with journal.guard(stage), _system(platform, artifacts, clip, load.batch, slots) as system:
                _checked(journal, stage, system, clip, wanted, load)


def _checked(
    journal: Journal, stage: str, system: Synthesiser, clip: Clip, wanted: list[Picture], load: Load
) -> None:
    frames: list[Picture] = []
    _render(system, clip, load.frames, lambda frame: frames.append(frame.copy()))
    likeness = min(map(_psnr, frames, wanted, map(clip.window, range(len(wanted)))))
    problem = _wrong(clip, frames)
    if problem is None and likeness < SANITY_DB:
        problem = f"a frame is {likeness:.1f} dB from the CPU's, expected {SANITY_DB:g} or more"
    unparsed, reports = system.unparsed, [_timed(system, clip, load) for _ in range(load.repeats)]
    facts = stream_facts(reports[-1]) | overlap(reports[-1].spans, reports[-1].stages)
    facts |= {"batch": load.batch, "shape": f"{load.size[0]}x{load.size[1]}", "psnr_db": likeness}
    journal.judged(stage, problem, **facts, unparsed=unparsed, rendered=len(frames))
    if problem is None:
        journal.timed(f"{stage}/fps", "fps", [report.fps for report in reports], batch=load.batch)


def _timed(system: Synthesiser, clip: Clip, load: Load) -> StreamReport:
    return _render(system, clip, load.frames, lambda frame: None)


def _wrong(clip: Clip, frames: list[Picture]) -> str | None:
    """What is wrong with rendered frames on sight."""
    for index, frame in enumerate(frames):
        source, inside = clip.frame(index), cut(clip.window(index), (0, 0, 0, 0))
        changed = (frame != source).any(axis=2)
        if not changed[inside].any():
            return f"frame {index} shows its source, expected another face"
        changed[inside] = False
        if changed.any():
            return (
                f"frame {index} differs from its source in {np.count_nonzero(changed)} pixels of the ground"
            )
    return None


def _by_the_host(clip: Clip, artifacts: list[Artifact], count: int) -> list[Picture]:
    frames: list[Picture] = []
    with (
        open_platform(Backend(wanted=PRECISION), StreamOptions(batch=1)) as platform,
        _system(platform, artifacts, clip, batch=1, slots=1) as system,
    ):
        _render(system, clip, count, lambda frame: frames.append(frame.copy()))
    return frames


@contextmanager
def _system(
    platform: Platform, artifacts: list[Artifact], clip: Clip, batch: int, slots: int
) -> Iterator[Synthesiser]:
    with platform.opened(*artifacts) as (lnet, enet, ganimation, *finishing):
        system = Synthesiser(
            platform, lnet, enet, clip.scene, finish=Finish.of(FINISH, finishing),
            emotion=Emotion(EMOTION, ganimation), batch=batch, slots=slots,
        )  # fmt: skip
        with closing(system):
            yield system


def _render(system: Synthesiser, clip: Clip, count: int, write: Callable[[Picture], None]) -> StreamReport:
    def frames_at(wanted: npt.NDArray[np.int64]) -> Iterable[tuple[int, Picture]]:
        return ((int(index), clip.frame(int(index))) for index in wanted)

    return system.render(frames_at, 0, count, write, lambda count: None, trace=True)


def _psnr(first: Picture, second: Picture, window: Box) -> float:
    inside: Any = cut(window, (0, 0, 0, 0))
    error = float(np.mean((first[inside].astype(np.float64) - second[inside]) ** 2))
    return min(10 * float(np.log10(255**2 / error)), _BEST_DB) if error else _BEST_DB
