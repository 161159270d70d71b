"""Two videos, frame by frame and stream by stream.

    A, B ─▶ probe ─▶ one constant rate each ─▶ pairs of frames ─▶ meter ─▶ series
                └──▶ sound: start, length, envelope

Both files are decoded once and no frame is kept; without a preparation A is decoded once more, by the face
tracker. What cannot be compared (another size, another rate) is a finding, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import UsageError
from dubstream.runtime.faces.geometry import Pads
from dubstream.runtime.faces.track import Track
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.probe import VideoInfo, probe_video
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import FaceOptions
from dubstream.runtime.progress import Progress, silent
from dubstream.runtime.review.faces import prepared, tracked
from dubstream.runtime.review.meter import Meter, Values, Worst
from dubstream.runtime.review.motion import LipMotion, lip_motion
from dubstream.runtime.review.sound import Sound, read_sound, sound_difference, sound_lag_s
from dubstream.runtime.timeline import AudioMode, plan_timeline


class Expect(StrEnum):
    """What B is to A.

    ``same``: B shall be what A is (another backend's dub, a re-encode). ``dubbed``: B is a dub of A: the
    mouth and the sound are others, and B may be longer or shorter, by the audio mode.
    """

    SAME = "same"
    DUBBED = "dubbed"


@dataclass(frozen=True)
class ReviewRequest:
    """One comparison.

    Attributes:
        first, second: the files A and B.
        expect: what B is to A.
        faces: the preparation of A that a dub left in its cache; None to track the face.
        face: which face, and how it is followed.
        pads: of the face box, as the dub had them.
        audio_mode: with ``dubbed``, what the dub did about unequal lengths.
        limits: what both files may be.
        background_level: difference of a colour channel, 0 to 255, up to which a pixel of the background
            counts as equal. 24 leaves alone what x264 makes of the same picture at usual qualities.
    """

    first: Path
    second: Path
    expect: Expect = Expect.SAME
    faces: Path | None = None
    face: FaceOptions = field(default_factory=FaceOptions)
    pads: Pads = field(default_factory=Pads)
    audio_mode: AudioMode = AudioMode.BOUNCE
    limits: MediaLimits = field(default_factory=MediaLimits)
    background_level: int = 24

    def __post_init__(self) -> None:
        if not 0 <= self.background_level <= 255:
            raise UsageError(f"--background-level received {self.background_level}, expected 0 to 255")


@dataclass(frozen=True)
class FileFacts:
    """One of the two files.

    Attributes:
        path: its name.
        width, height: pixels as displayed.
        rate: constant rate in frames per second at which it was read, exact.
        frames: at that rate.
        stored_frames: frames in the file.
        video_s: length of the picture in seconds.
        sound_s: length of the sound; None without.
        sound_start_s: when the sound starts after the picture, seconds; None without.
    """

    path: str
    width: int
    height: int
    rate: Fraction
    frames: int
    stored_frames: int
    video_s: float
    sound_s: float | None
    sound_start_s: float | None


@dataclass(frozen=True)
class Review:
    """What a comparison measured.

    Attributes:
        first, second: the files.
        expect: what B was to be to A.
        obstacle: why frames could not be compared; "" where they were.
        series: float64 (frames,) by name, see `dubstream.runtime.review.meter.NAMES`; empty with an obstacle.
        lips: lip motion of the whole clip.
        sound_lag_s: by how much B's sound comes late within its stream; None where both have not the same.
        sound_difference: of the envelopes, 0 to about 1; None where one has no sound.
        worst, worst_mouth: the least similar frame and mouth window.
        seconds: computing time by measure, decoding among them.
    """

    first: FileFacts
    second: FileFacts
    expect: Expect
    obstacle: str
    series: Mapping[str, Values]
    lips: LipMotion
    sound_lag_s: float | None
    sound_difference: float | None
    worst: Worst | None = None
    worst_mouth: Worst | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Pairs of frames compared."""
        return len(self.series["ssim"]) if self.series else 0


def review_videos(
    request: ReviewRequest, progress: Progress = silent, *, track: Track | None = None
) -> Review:
    """Compare two videos.

    Args:
        request: files and options.
        progress: told about tracking and comparing.
        track: the face in A's frames, for callers that have it; otherwise from `request.faces` or tracked.

    Raises:
        MediaError: a file that is no video, damaged, or beyond a limit.
        NoFaceError: A shows no face.
        UsageError: `request.faces` is no preparation of A.
    """
    limits = request.limits
    infos = [probe_video(path, limits) for path in (request.first, request.second)]
    plans = [info.plan(limits) for info in infos]
    sounds = [read_sound(path, limits) for path in (request.first, request.second)]
    facts = [_facts(info, plan, sound) for info, plan, sound in zip(infos, plans, sounds, strict=True)]
    if request.expect is Expect.DUBBED:
        length = Fraction(len(plans[1])) / infos[0].rate
        plans[0] = plan_timeline(plans[0], infos[0].rate, length, request.audio_mode).sources
    obstacle = _obstacle(infos)
    lag, apart = _sounds_apart(sounds[0], sounds[1])
    if obstacle:
        nothing = LipMotion(None, None, None, None)
        return Review(facts[0], facts[1], request.expect, obstacle, {}, nothing, lag, apart)
    meter = _measured(request, infos, plans, track, progress)
    series = meter.series()
    return Review(
        facts[0], facts[1], request.expect, "", series, lip_motion(series["motion_a"], series["motion_b"]),
        lag, apart, meter.worst, meter.worst_mouth, meter.seconds,
    )  # fmt: skip


def _measured(
    request: ReviewRequest,
    infos: list[VideoInfo],
    plans: list[npt.NDArray[np.int64]],
    track: Track | None,
    progress: Progress,
) -> Meter:
    first, second = infos
    with VideoReader(first, request.limits) as of_first, VideoReader(second, request.limits) as of_second:
        if track is None and request.faces is not None:
            track = prepared(request.faces, first, of_first, request.face)
        if track is None:
            track = tracked(first, of_first, request.face, progress)
        meter = Meter(track, first.width, first.height, request.pads, request.background_level)
        total = min(len(plan) for plan in plans)
        pairs = zip(of_first.frames_at(plans[0][:total]), of_second.frames_at(plans[1][:total]), strict=True)
        for done, ((source, one), (_, other)) in enumerate(pairs, 1):
            meter.add(one, np.ascontiguousarray(other[: first.height, : first.width]), source)
            progress("compare", done, total)
    return meter


def _facts(info: VideoInfo, plan: npt.NDArray[np.int64], sound: Sound | None) -> FileFacts:
    return FileFacts(
        path=str(info.path),
        width=info.width,
        height=info.height,
        rate=info.rate,
        frames=len(plan),
        stored_frames=info.frame_count,
        video_s=info.duration_s,
        sound_s=None if sound is None else sound.length_s,
        sound_start_s=None if sound is None else sound.start_s,
    )


def _obstacle(infos: list[VideoInfo]) -> str:
    """Why frames of the two cannot be paired; "" where they can."""
    first, second = infos
    # An encoder that cannot hold an odd side pads it: B may be a pixel larger where A is odd.
    padded = (first.width + first.width % 2, first.height + first.height % 2)
    if (second.width, second.height) not in ((first.width, first.height), padded):
        return f"A is {first.width}x{first.height}, B is {second.width}x{second.height} pixels"
    if first.rate != second.rate:
        return f"A has {float(first.rate):g}, B has {float(second.rate):g} frames per second"
    return ""


def _sounds_apart(first: Sound | None, second: Sound | None) -> tuple[float | None, float | None]:
    if first is None or second is None:
        return None, None
    lag = sound_lag_s(first, second)
    return lag, sound_difference(first, second, lag or 0.0)
