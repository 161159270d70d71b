"""The one face that is dubbed, from the first frame to the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import InternalError, NoFaceError, UsageError
from dubstream.runtime.faces.identities import Person, people
from dubstream.runtime.faces.observations import VALUES, Observations, overlap
from dubstream.runtime.faces.selector import FaceSelector
from dubstream.runtime.faces.smoothing import smooth

DEFAULT_MAX_GAP = 3  # frames; flow bridges what detection misses, so a longer gap is a real absence
DEFAULT_RADIUS = 4  # frames on each side
_SHORTEST_RUN = 5  # frames; shorter appearances are detection errors
_GAP_OVERLAP = 0.3  # IoU of the face before and after a gap that is filled
_JOINT_FRAMES = 12  # over which the step between two sightings is spread, each side
_CHOSEN_OVERLAP = 0.1  # least IoU with a box given by the user


@dataclass(frozen=True)
class Track:
    """Where the chosen face is in every frame.

    Attributes:
        frames: int64 (n,), absolute indices, ascending.
        present: bool (n,).
        box: float64 (n, 4), the detector's box x1, y1, x2, y2 in frame pixels; 0 where absent.
        points: float64 (n, 5, 2), eyes, nose, mouth corners; 0 where absent.
    """

    frames: NDArray[np.int64]
    present: NDArray[np.bool_]
    box: NDArray[np.float64]
    points: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.frames)
        shapes = (self.present.shape, self.box.shape, self.points.shape)
        if shapes != ((count,), (count, 4), (count, 5, 2)):
            raise InternalError(f"track of {count} frames has shapes {shapes}")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, for `np.savez`."""
        return {"frames": self.frames, "present": self.present, "box": self.box, "points": self.points}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Track:
        """Inverse of `arrays`."""
        return cls(
            frames=np.asarray(arrays["frames"], dtype=np.int64),
            present=np.asarray(arrays["present"], dtype=np.bool_),
            box=np.asarray(arrays["box"], dtype=np.float64),
            points=np.asarray(arrays["points"], dtype=np.float64),
        )


def resolve_track(
    observations: Observations,
    width: int,
    height: int,
    selector: FaceSelector | None = None,
    max_gap: int = DEFAULT_MAX_GAP,
    radius: int = DEFAULT_RADIUS,
) -> Track:
    """Choose one person and smooth the path of the face.

    Args:
        observations: of the whole clip (`Observations.join`).
        width, height: the frame's size in pixels.
        selector: default the largest face; not a "picture", which has to be found first (`likeness`).
        max_gap: absences up to this many frames are interpolated where the face reappears in place.
        radius: reach of the symmetric smoothing on each side, in frames; 0 for none.

    Returns:
        A track over all observed frames. Appearances shorter than 5 frames are dropped, unless
        the clip itself is shorter.

    Raises:
        NoFaceError: nobody in the clip, or nobody where the selector's box is.
        UsageError: an index beyond the people in the first frame that shows any, or a "picture".
    """
    found = people(observations)
    if not found:
        raise NoFaceError(
            f"no face in {len(observations.frames)} frames of {width}x{height}; "
            "expected one that is upright, roughly frontal and 5 % of the longer side or more",
            hint="use footage that shows the speaker's face, or crop it closer",
        )
    person = _choose(found, selector or FaceSelector(), width, height)
    values = _path(observations.frames, person)
    cuts = _join_sightings(values, observations.frames, person, max_gap)
    runs = [run for run in present_runs(~np.isnan(values[:, 0])) if _long_enough(run, len(values))]
    present = np.zeros(len(values), dtype=np.bool_)
    smoothed = np.zeros_like(values)
    for first, last in _split(runs, cuts):
        present[first : last + 1] = True
        smoothed[first : last + 1] = smooth(values[first : last + 1], radius)
    if not present.any():
        raise NoFaceError(
            f"the face is never seen for {_SHORTEST_RUN} frames in a row; expected a steady view of it",
            hint="choose another face with --face, or other footage",
        )
    return Track(observations.frames, present, smoothed[:, :4], smoothed[:, 4:].reshape(-1, 5, 2))


def absent_ranges(track: Track) -> list[tuple[int, int]]:
    """Absolute first and last frame, both included, of every stretch without the face."""
    return [(int(track.frames[a]), int(track.frames[b])) for a, b in present_runs(~track.present)]


def present_runs(present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Positions of the first and last True, both included, of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in edges.reshape(-1, 2)]


def _choose(found: list[Person], selector: FaceSelector, width: int, height: int) -> Person:
    if selector.rule == "picture":
        raise UsageError(
            f"--face {selector.picture}: people are not compared with a picture here",
            hint="use --face INDEX or x,y,w,h",
        )
    if selector.rule == "person":
        return found[selector.index]
    if selector.rule == "index":
        return _by_index(found, selector.index)
    if selector.rule == "box":
        return _by_box(found, np.array(selector.box))
    if selector.rule == "center":
        return max(found, key=lambda person: _centrality(person, width, height))
    return max(found, key=_area)


def _boxes(person: Person) -> NDArray[np.float64]:
    return np.concatenate([sighting.values[:, :4] for sighting in person.sightings])


def _area(person: Person) -> float:
    """Pixels covered, summed over all frames: a face near the camera, and for long."""
    boxes = _boxes(person)
    return float(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum())


def _centrality(person: Person, width: int, height: int) -> float:
    """Closeness to the frame's centre, 1 there and 0 in a corner, summed over all frames."""
    boxes = _boxes(person)
    offset = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array([width, height]) / 2
    return float((1.0 - np.hypot(*offset.T) / (np.hypot(width, height) / 2)).sum())


def _by_index(found: list[Person], index: int) -> Person:
    first = min(person.sightings[0].first for person in found)
    shown = [person for person in found if person.sightings[0].first == first]
    shown.sort(key=lambda person: float(person.sightings[0].values[0, 0] + person.sightings[0].values[0, 2]))
    if index >= len(shown):
        raise UsageError(
            f"face index {index}; frame {first}, the first with a face, shows {len(shown)}",
            hint=f"use --face 0 to {len(shown) - 1}, or x,y,w,h",
        )
    return shown[index]


def _by_box(found: list[Person], box: NDArray[np.float64]) -> Person:
    best = [max(overlap(seen, box) for seen in _boxes(person)) for person in found]
    number = int(np.argmax(best))
    if best[number] < _CHOSEN_OVERLAP:
        seen = "; ".join(",".join(f"{v:.0f}" for v in _boxes(person)[0]) for person in found[:4])
        raise NoFaceError(
            f"no face overlaps the box {box.tolist()} (x1, y1, x2, y2); faces are first seen at {seen}",
            hint="give x,y,w,h of one of them, or use --face largest",
        )
    return found[number]


def _path(frames: NDArray[np.int64], person: Person) -> NDArray[np.float64]:
    """The person's values over all frames, NaN where unseen."""
    values = np.full((len(frames), VALUES), np.nan)
    for sighting in person.sightings:
        start = int(np.searchsorted(frames, sighting.first))
        values[start : start + len(sighting.values)] = sighting.values
    return values


def _join_sightings(
    values: NDArray[np.float64], frames: NDArray[np.int64], person: Person, max_gap: int
) -> list[int]:
    """Make the path continuous, in place, where one sighting takes over from another in place.

    Returns:
        Positions at which it is not continuous although no frame is missing: cuts, where smoothing must stop.
    """
    cuts = []
    for before, after in zip(person.sightings, person.sightings[1:], strict=False):
        end, start = (int(position) for position in np.searchsorted(frames, [before.last, after.first]))
        if overlap(values[end, :4], values[start, :4]) < _GAP_OVERLAP:
            cuts.append(start)
        elif start - end - 1 <= max_gap:
            low = max(end + 1 - min(_JOINT_FRAMES, len(before.values)), 0)
            high = start + min(_JOINT_FRAMES, len(after.values))
            _spread_step(values[low : end + 1], values[start:high], start - end)
            _interpolate(values[end : start + 1])
    return cuts


def _spread_step(before: NDArray[np.float64], after: NDArray[np.float64], gap: int) -> None:
    """Two sightings disagree by the noise of their detections: meet half-way, in place."""
    speeds = [side for side in (np.diff(before[-4:], axis=0), np.diff(after[:4], axis=0)) if len(side)]
    motion = gap * np.concatenate(speeds).mean(axis=0) if speeds else 0.0
    step = after[0] - before[-1] - motion
    before += 0.5 * step * np.linspace(0.0, 1.0, len(before) + 1)[1:, None]
    after -= 0.5 * step * np.linspace(1.0, 0.0, len(after) + 1)[:-1, None]


def _interpolate(stretch: NDArray[np.float64]) -> None:
    """Fill everything between the first and the last row linearly, in place."""
    share = np.linspace(0.0, 1.0, len(stretch))[:, None]
    stretch[:] = (1.0 - share) * stretch[0] + share * stretch[-1]


def _split(runs: list[tuple[int, int]], cuts: list[int]) -> list[tuple[int, int]]:
    """Runs (first, last), broken before every cut."""
    pieces = []
    for first, last in runs:
        starts = [first, *(cut for cut in sorted(cuts) if first < cut <= last)]
        pieces += list(zip(starts, [start - 1 for start in starts[1:]] + [last], strict=True))
    return pieces


def _long_enough(run: tuple[int, int], count: int) -> bool:
    return run[1] - run[0] + 1 >= min(_SHORTEST_RUN, count)
