"""What the first pass learns of one clip before any expression is chosen: faces, track, coefficients.

    KEY/observations-NNNNN.npz                     faces in a chunk of frames, from detector and tracker
    KEY/coefficients-KEY2/coefficients-NNNNN.npz   3DMM coefficients of the chosen face

Observations depend on the clip and on how faces are found, coefficients also on which face and on the
network. Both are units of `dubstream.runtime.units.unit_folder`; what shares them finds them done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dubstream.engines.artifact import Artifact
from dubstream.engines.cache import folder_lock
from dubstream.engines.facts import digest_facts
from dubstream.runtime.faces.geometry import Box, crop_box
from dubstream.runtime.faces.identities import people
from dubstream.runtime.faces.likeness import Portrait, most_alike, reference_portrait
from dubstream.runtime.faces.observations import Observations
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.faces.selector import FaceSelector, parse_face_selector
from dubstream.runtime.faces.track import Track, resolve_track
from dubstream.runtime.media.guard import show
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.opening import content_digest
from dubstream.runtime.media.picture import read_picture
from dubstream.runtime.media.probe import VideoInfo
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import FaceOptions, StreamOptions
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.preparation.face_finder import Finder, open_finder
from dubstream.runtime.preparation.regress import CoefficientTable, Frames, Picture, Regressor
from dubstream.runtime.progress import Progress
from dubstream.runtime.timing import Timing
from dubstream.runtime.units.arrays import load_arrays, save_arrays
from dubstream.runtime.units.kept_facts import (
    differences,
    keep_facts,
    nearest_difference,
    not_a_preparation,
    read_facts,
)
from dubstream.runtime.units.unit_folder import UnitFolder

log = logging.getLogger(__name__)

SCHEMA = 2
"""Raise when the same inputs would give other observations or coefficients."""

CHUNK_FRAMES = 240
"""Source frames per chunk, about 10 s; a constant, as chunk borders are part of what is stored."""

_CHOICE = ("selector", "max_gap")
"""Face options that choose among what was observed; the others decide what is observed."""


@dataclass(frozen=True)
class Clip:
    """Frames to look at: a video, or a picture as a clip of one frame.

    Attributes:
        frames: gives (index, uint8 BGR frame) for a range of frames.
        count: of frames.
        width, height: of a frame in pixels.
        digest: SHA-256 of the file.
    """

    frames: Frames
    count: int
    width: int
    height: int
    digest: str

    @classmethod
    def of(cls, reader: VideoReader, info: VideoInfo, digest: str) -> Clip:
        """A video."""
        return cls(reader.frames, info.frame_count, info.width, info.height, digest)


@dataclass(frozen=True)
class TrackedFace:
    """The chosen face: its track, and the part of the frame that is looked at closely."""

    track: Track
    crop_box: Box


class ClipFaces:
    """Observes one clip and measures the chosen face, or finds that done.

    Args:
        clip: the frames.
        artifacts: verified ones by network; the coefficient regressor and `face.networks` are among them.
        face, stream: options.
        cache: folder of all preparations.
        given: a preparation that has to fit and is complete; nothing is made then. None for the cache's.
        limits: of a reference picture that chooses the face; None for the defaults.

    Raises:
        UsageError: `given` is no preparation, or one of something else.
        MediaError: the reference picture cannot be read.
    """

    def __init__(
        self,
        clip: Clip,
        artifacts: Mapping[str, Artifact],
        face: FaceOptions,
        stream: StreamOptions,
        cache: Path,
        given: Path | None = None,
        limits: MediaLimits | None = None,
    ) -> None:
        recon = artifacts["recon"]
        self._clip, self._recon, self._face, self._stream = clip, recon, face, stream
        self._artifacts = artifacts
        self._selector = parse_face_selector(face.selector)
        self._reference: tuple[Picture, str] | None = None
        self.frozen = given is not None
        options = asdict(face)
        if self._selector.picture is not None:
            path = self._selector.picture
            self._reference = read_picture(path, limits or MediaLimits()), show(path)
            options["selector"] = f"picture {content_digest(path)}"
        observed = {
            "schema": SCHEMA,
            "video": clip.digest,
            "frames": clip.count,
            "face": {name: value for name, value in options.items() if name not in _CHOICE},
            "finder": {name: artifacts[name].digest for name in face.networks},
        }
        measured = {**observed, "face": options, "recon": recon.digest}
        self.key, self.measured_key = digest_facts(observed), digest_facts(measured)
        root = given or cache / "prepared" / self.key[:32]
        if given is not None:
            _check_given(given, observed)
        self.folder = root
        self._observations = UnitFolder(root, self.key)
        self._coefficients = self.subfolder("coefficients", self.measured_key, measured)
        if not self.frozen:
            keep_facts(root, observed)

    def subfolder(self, kind: str, key: str, facts: dict[str, Any]) -> UnitFolder:
        """Units below this preparation, made from `facts`, which `key` is the digest of."""
        folder = self.folder / f"{kind}-{key[:16]}"
        if not self.frozen:
            units = UnitFolder(folder, key)
            keep_facts(folder, facts)
            return units
        if not folder.is_dir():
            others = sorted(self.folder.glob(f"{kind}-*"))
            what = nearest_difference(others, facts) or "there are none"
            raise not_a_preparation(self.folder, f"its {kind} do not fit: {what}")
        return UnitFolder(folder, key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time adds to a preparation; nobody adds to a given one."""
        if self.frozen:
            yield
        else:
            with folder_lock(self.folder):
                yield

    def face(self, platform: Platform, timing: Timing, progress: Progress) -> TrackedFace:
        """Follow the chosen face through the clip; call it under the lock.

        Raises:
            NoFaceError: no usable face anywhere, or nobody like the reference picture.
            DubError: reading, writing or a network failed.
        """
        clip, selector = self._clip, self._selector
        with ExitStack() as opened:
            finder, portrait = None, None
            if self._reference is not None or self._unobserved():
                finder = opened.enter_context(open_finder(self._face, self._artifacts, platform))
            if finder is not None and self._reference is not None:
                # Before the clip is looked at, which takes long: the picture may show nobody.
                portrait = reference_portrait(*self._reference, finder.detector, finder.landmarks)
            starts = range(0, clip.count, CHUNK_FRAMES)
            seen = Observations.join([self._observed(start, finder, timing, progress) for start in starts])
        if portrait is not None:
            selector = self._person_like(portrait, seen)
        track = resolve_track(seen, clip.width, clip.height, selector, max_gap=self._face.max_gap)
        first = int(np.flatnonzero(track.present)[0])
        return TrackedFace(track, crop_box(track.points[first], clip.width, clip.height))

    def _unobserved(self) -> bool:
        starts = range(0, self._clip.count, CHUNK_FRAMES)
        return any(self.missing(self._observations, _chunk_name(start)) for start in starts)

    def _observed(
        self, start: int, finder: Finder | None, timing: Timing, progress: Progress
    ) -> Observations:
        """The chunk that starts there, looked at now unless that was done."""
        clip, name = self._clip, _chunk_name(start)
        stop = min(start + CHUNK_FRAMES, clip.count)
        if finder is not None and self.missing(self._observations, name):
            finder.spent()  # on a reference picture, which is none of the frames
            with timing.measure("track", stop - start), self._observations.making(name, {}) as path:
                frames = _counted(clip.frames(start, stop), "track", clip.count, progress)
                found = observe(frames, finder.detector, finder.landmarks, every=self._face.detect_every)
                save_arrays(path, found.arrays())
            for network, spent in finder.spent().items():
                timing.split("track", f"track/{network}", *spent)
        progress("track", stop, clip.count)
        return Observations.from_arrays(load_arrays(self._observations, name))

    def _person_like(self, portrait: Portrait, seen: Observations) -> FaceSelector:
        found = people(seen)
        if not found or self._reference is None:
            return FaceSelector()  # nobody, which `resolve_track` says best
        return FaceSelector("person", index=most_alike(portrait, found, self._frame, self._reference[1]))

    def _frame(self, index: int) -> Picture:
        return next(frame for _, frame in self._clip.frames(index, index + 1))

    def unmeasured(self, chunks: Sequence[int]) -> list[int]:
        """Those of the chunks whose coefficients have to be made."""
        return [chunk for chunk in chunks if self.missing(self._coefficients, _table_name(chunk))]

    @contextmanager
    def measuring(
        self, chunks: Sequence[int], face: TrackedFace, platform: Platform
    ) -> Iterator[Regressor | None]:
        """The network, where coefficients of one of the chunks are missing; else None."""
        if not self.unmeasured(chunks):
            yield None
            return
        stream = self._stream
        with (
            platform.opened(self._recon) as (engine,),
            closing(
                Regressor(platform, engine, face.track, face.crop_box, batch=stream.batch, slots=stream.slots)
            ) as regressor,
        ):
            yield regressor

    def table(
        self, chunk: int, regressor: Regressor | None, timing: Timing
    ) -> tuple[CoefficientTable, dict[int, Picture]]:
        """Coefficients of a chunk, and the pictures they came from where they were measured just now."""
        name = _table_name(chunk)
        if regressor is None or not self.missing(self._coefficients, name):
            return CoefficientTable.from_arrays(load_arrays(self._coefficients, name)), {}
        with self._coefficients.making(name, {}) as path:
            found = regressor.run(self._clip.frames, *self.span(chunk), trace=timing.trace)
            save_arrays(path, found.table.arrays())
        timing.add("prepare", found.report)
        return found.table, found.crops

    def span(self, chunk: int) -> tuple[int, int]:
        """First frame of a chunk, and the one after its last."""
        return chunk * CHUNK_FRAMES, min((chunk + 1) * CHUNK_FRAMES, self._clip.count)

    def missing(self, units: UnitFolder, name: str) -> bool:
        """Whether a unit has to be made; `UsageError` where it has to and the preparation is a given one."""
        if units.finished(name) is not None:
            return False
        if self.frozen:
            raise not_a_preparation(self.folder, f"{units.folder.name}/{name} is missing or damaged")
        return True


def _check_given(folder: Path, facts: dict[str, Any]) -> None:
    kept = read_facts(folder)
    if kept is None:
        raise not_a_preparation(
            folder, "this is no preparation; expected a folder such as CACHE/prepared/KEY"
        )
    different = differences(kept, facts)
    if different:
        raise not_a_preparation(folder, f"made from something else: {'; '.join(different)}")


def _chunk_name(start: int) -> str:
    return f"observations-{start // CHUNK_FRAMES:05d}.npz"


def _table_name(chunk: int) -> str:
    return f"coefficients-{chunk:05d}.npz"


def _counted(frames: Iterable[Any], stage: str, total: int, progress: Progress) -> Iterable[Any]:
    for index, frame in frames:
        yield index, frame
        progress(stage, index + 1, total)
