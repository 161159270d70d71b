"""From sightings to people: which tracklets show the same face, so that two people are never swapped.

Sightings end at cuts, occlusions and chunk borders. Across a short gap the place decides, with the looks
as a veto; across a long one the looks decide. In doubt a sighting stays a person of its own: not dubbing some
frames is better than dubbing the wrong face.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dubstream.runtime.faces.observations import MEASURED, MISSED, Observations, overlap
from dubstream.runtime.faces.smoothing import smooth

_NEAR_GAP = 12  # frames across which a face is still about where it was
_NEAR_OVERLAP = 0.3
_SAME_LOOK = 0.75  # correlation; one face reaches 0.9 over a clip, two people 0.1 to 0.6
_OTHER_LOOK = 0.6  # below this, being in the same place is not enough
_SIZE_RATIO = 3.0  # a face does not grow by more across a gap
_FEWEST_HITS = 3  # detections; fewer in a marginal sighting are texture
_LEAST_HIT_RATE = 0.4  # found, of the times it was looked for
_MARGINAL = 0.1  # of the longest person's frames
_DRIFT_FRAMES = 25  # reach of the average that joins optical flow to detections, each side
_OUTLIER_SPAN = 5  # detections


@dataclass
class Sighting:
    """One tracklet: frames first..first+n-1, values float64 (n, 14), mean look float64 (192,)."""

    first: int
    values: NDArray[np.float64]
    look: NDArray[np.float64]
    hits: int
    attempts: int

    @property
    def last(self) -> int:
        return self.first + len(self.values) - 1


@dataclass
class Person:
    """Sightings of one face, in order of time, never at the same time."""

    sightings: list[Sighting] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.sightings[-1].last

    @property
    def frames(self) -> int:
        return sum(len(sighting.values) for sighting in self.sightings)

    @property
    def look(self) -> NDArray[np.float64]:
        weights = np.array([float(sighting.hits) for sighting in self.sightings])
        return np.asarray(weights @ np.stack([sighting.look for sighting in self.sightings]) / weights.sum())


def people(observations: Observations) -> list[Person]:
    """Everyone who is seen for more than a flicker, in order of first appearance."""
    found: list[Person] = []
    ordered = sorted(_sightings(observations), key=lambda sighting: sighting.first)
    for _, together in groupby(ordered, key=lambda sighting: sighting.first):
        _assign(found, list(together))
    return _without_flicker(found)


def _sightings(observations: Observations) -> list[Sighting]:
    order = np.lexsort((observations.frame, observations.tracklet))
    starts = np.flatnonzero(np.diff(observations.tracklet[order], prepend=-1))
    return [_sighting(observations, rows) for rows in np.split(order, starts[1:]) if rows.size]


def _sighting(observations: Observations, rows: NDArray[np.int64]) -> Sighting:
    kind = observations.kind[rows]
    hit = rows[kind == MEASURED]
    looks = observations.look[hit].reshape(len(hit), -1).astype(np.float64)
    frames = observations.frame[rows]
    carried = observations.carried[rows].astype(np.float64)
    measured = observations.measured[hit].astype(np.float64)
    return Sighting(
        first=int(frames[0]),
        values=_anchored(frames, carried, observations.frame[hit], measured),
        look=looks.mean(axis=0),
        hits=len(hit),
        attempts=len(hit) + int(np.count_nonzero(kind == MISSED)),
    )


def _anchored(
    frames: NDArray[np.int64],
    carried: NDArray[np.float64],
    at: NDArray[np.int64],
    measured: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Optical flow's smooth path, shifted to where the detections on average are.

    The difference of the two is the detector's noise plus flow's slow drift: a median against
    outliers and a local line over about a second on each side keep the drift alone.
    """
    offset = measured - carried[np.searchsorted(frames, at)]
    half = min(_OUTLIER_SPAN // 2, (len(at) - 1) // 2)
    padded = np.pad(offset, ((half, half), (0, 0)), mode="reflect") if half else offset
    offset = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0), axis=-1)
    spacing = max(len(frames) / len(at), 1.0)
    radius = max(round(_DRIFT_FRAMES / spacing), 1)
    offset = smooth(offset, radius, order=1 if len(at) > 2 * radius else 0)
    columns = [np.interp(frames, at, offset[:, column]) for column in range(offset.shape[1])]
    return carried + np.stack(columns, axis=1)


def _assign(found: list[Person], together: list[Sighting]) -> None:
    """Give sightings that start in the same frame to the people known so far, best match first."""
    scores = [
        (_match_score(person, sighting), number, candidate)
        for number, person in enumerate(found)
        for candidate, sighting in enumerate(together)
    ]
    taken: set[int] = set()
    placed: set[int] = set()
    for score, number, candidate in sorted(scores, key=lambda item: (-item[0], item[1:])):
        if score > 0 and number not in taken and candidate not in placed:
            found[number].sightings.append(together[candidate])
            taken.add(number)
            placed.add(candidate)
    found.extend(Person([sighting]) for number, sighting in enumerate(together) if number not in placed)


def _match_score(person: Person, sighting: Sighting) -> float:
    """How well a sighting continues a person; 0 when it cannot."""
    gap = sighting.first - person.last
    before, after = person.sightings[-1].values[-1, :4], sighting.values[0, :4]
    ratio = (after[2] - after[0]) / max(before[2] - before[0], 1e-9)
    if gap < 1 or not 1 / _SIZE_RATIO < ratio < _SIZE_RATIO:
        return 0.0
    alike, shared = same_look(person.look, sighting.look), overlap(before, after)
    near = gap <= _NEAR_GAP and shared >= _NEAR_OVERLAP and alike >= _OTHER_LOOK
    return alike + (shared if gap <= _NEAR_GAP else 0.0) if near or alike >= _SAME_LOOK else 0.0


def same_look(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Correlation of two looks, float (192,), -1 to 1."""
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm > 0 else 0.0


def _without_flicker(found: list[Person]) -> list[Person]:
    longest = max((person.frames for person in found), default=0)
    return [person for person in found if not _is_flicker(person, longest)]


def _is_flicker(person: Person, longest: int) -> bool:
    hits = sum(sighting.hits for sighting in person.sightings)
    attempts = sum(sighting.attempts for sighting in person.sightings)
    marginal = hits < _FEWEST_HITS and person.frames < _MARGINAL * longest
    return marginal or hits < _LEAST_HIT_RATE * attempts
