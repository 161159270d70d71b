"""Where the face is: from the preparation of a dub, or tracked anew."""

from __future__ import annotations

import json
from pathlib import Path

from dubstream.engines.errors import DubError, InternalError, UsageError
from dubstream.runtime.faces.detector import CascadeDetector, CascadeLandmarks
from dubstream.runtime.faces.identities import people
from dubstream.runtime.faces.likeness import Portrait, most_alike, reference_portrait
from dubstream.runtime.faces.observations import Observations
from dubstream.runtime.faces.observe import observe
from dubstream.runtime.faces.selector import FaceSelector, parse_face_selector
from dubstream.runtime.faces.track import Track, resolve_track
from dubstream.runtime.media.guard import show
from dubstream.runtime.media.limits import MediaLimits
from dubstream.runtime.media.picture import read_picture
from dubstream.runtime.media.probe import VideoInfo
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import FaceOptions
from dubstream.runtime.preparation.clip_faces import CHUNK_FRAMES
from dubstream.runtime.progress import Progress
from dubstream.runtime.units.arrays import load_arrays
from dubstream.runtime.units.unit_folder import UnitFolder

_UNIT = "observations-{:05d}.npz"


def tracked(info: VideoInfo, reader: VideoReader, options: FaceOptions, progress: Progress) -> Track:
    """Find and follow the face, as a dub does: reads the video once, from start to end.

    Where a picture says which face, that is looked at first, and a few frames of everybody are read again.

    Raises:
        NoFaceError: no usable face anywhere, in the picture or like it.
        DubError: the video or the picture cannot be read.
    """
    wanted = _wanted(options)
    chunks = []
    total = info.frame_count
    for start in range(0, total, CHUNK_FRAMES):
        stop = min(start + CHUNK_FRAMES, total)
        detector, landmarks = CascadeDetector(), CascadeLandmarks()
        chunks.append(observe(reader.frames(start, stop), detector, landmarks, every=options.detect_every))
        progress("track", stop, total)
    return _chosen(chunks, info, reader, options, wanted)


def prepared(folder: Path, info: VideoInfo, reader: VideoReader, options: FaceOptions) -> Track:
    """The face as a dub saw it.

    Args:
        folder: a preparation, `CACHE/prepared/KEY`; nothing in it is changed.
        info: the video it was made from.
        reader: of that video; read only where a picture says which face.
        options: which of the faces, as the dub was told.

    Raises:
        UsageError: no preparation, one that is damaged or unfinished, or one of a video of another length.
        NoFaceError: no usable face in it, in the picture or like it.
        DubError: the picture cannot be read.
    """
    wanted = _wanted(options)
    units = _units(folder)
    chunks = []
    for number in range(-(-info.frame_count // CHUNK_FRAMES)):
        name = _UNIT.format(number)
        if units.finished(name) is None:
            raise _not_a_preparation(folder, f"{name} is missing, damaged or of another preparation")
        try:
            chunks.append(Observations.from_arrays(load_arrays(units, name)))
        except (OSError, ValueError, DubError) as error:
            raise _not_a_preparation(folder, f"{name}: {error}") from error
    frames = sum(len(chunk.frames) for chunk in chunks)
    if frames != info.frame_count or (folder / _UNIT.format(len(chunks))).exists():
        raise UsageError(
            f"--faces {folder} is of a video with another number of frames than the {info.frame_count} of "
            f"{info.path.name}; expected the preparation of that video",
            hint="leave --faces out to track the face anew",
        )
    return _chosen(chunks, info, reader, options, wanted)


def _units(folder: Path) -> UnitFolder:
    """The folder's units, under the identity that their first sidecar names."""
    sidecar = folder / f"{_UNIT.format(0)}.json"
    try:
        identity = json.loads(sidecar.read_bytes())["identity"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_a_preparation(folder, f"no readable {sidecar.name} in it") from error
    if not isinstance(identity, str):
        raise _not_a_preparation(folder, f"{sidecar.name} names no identity")
    return UnitFolder(folder, identity)


def _wanted(options: FaceOptions) -> tuple[Portrait, str] | None:
    """The face in the picture that says which face, and the picture's name; None without one."""
    path = parse_face_selector(options.selector).picture
    if path is None:
        return None
    picture, name = read_picture(path, MediaLimits()), show(path)
    return reference_portrait(picture, name, CascadeDetector(), CascadeLandmarks()), name


def _chosen(
    chunks: list[Observations],
    info: VideoInfo,
    reader: VideoReader,
    options: FaceOptions,
    wanted: tuple[Portrait, str] | None,
) -> Track:
    selector = parse_face_selector(options.selector)
    try:
        joined = Observations.join(chunks)
    except InternalError as error:  # pragma: no cover - chunks were checked one by one
        raise UsageError(f"face observations do not fit together: {error.message}") from error
    if wanted is not None:
        selector = _person_like(*wanted, joined, reader)
    return resolve_track(joined, info.width, info.height, selector, max_gap=options.max_gap)


def _person_like(portrait: Portrait, name: str, seen: Observations, reader: VideoReader) -> FaceSelector:
    found = people(seen)
    if not found:
        return FaceSelector()  # nobody, which `resolve_track` says best
    best = most_alike(portrait, found, lambda index: next(reader.frames(index, index + 1))[1], name)
    return FaceSelector("person", index=best)


def _not_a_preparation(folder: Path, problem: str) -> UsageError:
    return UsageError(
        f"--faces received {folder}, which is no preparation: {problem}; expected a folder such as "
        "CACHE/prepared/KEY",
        hint="leave --faces out to track the face anew",
    )
