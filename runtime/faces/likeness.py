"""Is this the face of the reference picture? For `--face PICTURE`, without a recognition network.

Two measures, averaged. The tiny picture of `identities` knows the colours of hair, skin and clothes; the face
laid on five common points and freed of its lighting knows features. Measured with the cascade: two views in
one video 0.76 to 1.0. Of two portraits, each changed in 13 ways, 22 of 26 came to 0.75 or more: a half and a
third of the size, blur, JPEG, other lights, no colour, turned by 10 degrees and once by 15. The other three
turned by 15 (0.27, 0.68, no face found) and a much darkened one (0.21) did not: the cascade saw another box.
A portrait mirrored, which counts as the nearest other face, came to 0.58 or less. The features of strangers
(9900 pairs of LFW) reach 0.56 in one pair of twenty and 0.75 at most.

So this is no recogniser: it tells the people of one clip apart by a picture in about the same view, best a
frame of that footage. The answer has to be clear, or there is none: dubbing nobody is better than the wrong
person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import NoFaceError
from dubstream.runtime.faces.detector import FaceDetector, LandmarkEstimator, five_points
from dubstream.runtime.faces.flow import fit_similarity
from dubstream.runtime.faces.identities import Person, same_look
from dubstream.runtime.faces.observe import glance

LEAST_ALIKE = 0.65
"""Mean of the two correlations below which a face is another one's."""

CLEARLY = 0.1
"""By so much the best has to be ahead of the second."""

_SIDE = 32  # pixels of the laid face
_FINE = 4  # times: it is cut larger and averaged, as warping alone would alias
_SLACK = 2  # pixels, each way, over which the laid faces are shifted to fit: landmarks have errors
_LIGHT = 5.0  # pixels, reach of the lighting that is taken out
_GRAIN = 4.0  # grey levels; flatter regions carry no features
_VIEWS = 5  # frames of a person that are compared

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Portrait:
    """One view of a face, made comparable.

    Attributes:
        look: float64 (192,), the tiny picture of the face's box.
        features: float32 (32, 32), the laid face without its lighting.
    """

    look: NDArray[np.float64]
    features: NDArray[np.float32]


def reference_portrait(
    picture: Picture, name: str, detector: FaceDetector, landmarks: LandmarkEstimator
) -> Portrait:
    """The largest face of a reference picture, uint8 BGR (H, W, 3).

    Args:
        picture: the reference.
        name: of it, for the error.
        detector, landmarks: those the clip is observed with, as their boxes and points differ.

    Raises:
        NoFaceError: there is none.
    """
    faces = detector.detect(picture)
    if not faces:
        raise NoFaceError(
            f"no face in {name}, {picture.shape[1]}x{picture.shape[0]}; expected the person to dub",
            hint="a frame of the video itself works best, or choose with --face INDEX or x,y,w,h",
        )
    face = max(faces, key=lambda found: (found.x2 - found.x1) * (found.y2 - found.y1))
    return portrait(picture, np.concatenate([face.box, landmarks.points(picture, face).ravel()]))


def portrait(picture: Picture, values: NDArray[np.float64]) -> Portrait:
    """One view of a face.

    Args:
        picture: uint8 BGR (H, W, 3).
        values: float (14,), box and five points in its pixels.
    """
    look = glance(picture, values[:4]).reshape(-1).astype(np.float64)
    return Portrait(look, _features(picture, values[4:].reshape(5, 2)))


def alikeness(first: Portrait, second: Portrait) -> float:
    """-1 to 1: the mean of two correlations, of the looks and of the features."""
    return 0.5 * (same_look(first.look, second.look) + _same_features(first.features, second.features))


def most_alike(
    reference: Portrait, found: Sequence[Person], frame: Callable[[int], Picture], name: str
) -> int:
    """The number of the person whom the reference shows.

    Args:
        reference: see `reference_portrait`.
        found: everyone in the clip, at least one.
        frame: the clip's frame at an absolute index, uint8 BGR.
        name: of the reference, for errors.

    Raises:
        NoFaceError: nobody looks like it, or two do.
    """
    alike = [max(alikeness(reference, view) for view in views(person, frame)) for person in found]
    order = sorted(range(len(found)), key=lambda number: -alike[number])
    best = order[0]
    told = ", ".join(f"{alike[number]:.2f}" for number in order[:4])
    choose = "give another picture, best a frame of the video, or choose with --face INDEX or x,y,w,h"
    if alike[best] < LEAST_ALIKE:
        raise NoFaceError(
            f"nobody in the video looks like {name}: likeness {told}; expected {LEAST_ALIKE} or more",
            hint=choose,
        )
    if len(order) > 1 and alike[best] - alike[order[1]] < CLEARLY:
        raise NoFaceError(
            f"several people in the video look like {name}: likeness {told}; "
            f"expected the best to be ahead by {CLEARLY}",
            hint=choose,
        )
    return best


def views(person: Person, frame: Callable[[int], Picture]) -> list[Portrait]:
    """A few views of a person, spread over the frames they are seen in."""
    seen = [
        (sighting.first + row, values)
        for sighting in person.sightings
        for row, values in enumerate(sighting.values)
    ]
    chosen = np.unique(np.linspace(0, len(seen) - 1, _VIEWS + 2)[1:-1].round().astype(int))
    return [portrait(frame(seen[at][0]), seen[at][1]) for at in chosen]


def _features(picture: Picture, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """The face laid on common points, grey, its local mean and contrast taken out: float32 (32, 32)."""
    import cv2

    motion = fit_similarity(points, _LAID * _FINE)
    if motion is None:
        return np.zeros((_SIDE, _SIDE), np.float32)
    side = _SIDE * _FINE
    laid = cv2.warpAffine(
        picture, motion, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    small = cv2.resize(cv2.cvtColor(laid, cv2.COLOR_BGR2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    gray = small.astype(np.float32)
    detail = gray - cv2.GaussianBlur(gray, (0, 0), _LIGHT)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), _LIGHT))
    return np.asarray(detail / np.maximum(contrast, _GRAIN), np.float32)


def _same_features(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Correlation of the inner part of one with the best fitting part of the other, -1 to 1."""
    import cv2

    inner = first[_SLACK:-_SLACK, _SLACK:-_SLACK]
    if inner.std() == 0 or second.std() == 0:
        return 0.0
    return float(cv2.matchTemplate(second, inner, cv2.TM_CCOEFF_NORMED).max())


def _laid_points() -> NDArray[np.float64]:
    """Where the five points lie in the laid face: eyes 0.42 of its side apart, mouth above the lower rim."""
    eyes = np.array([[0.29, 0.33], [0.71, 0.33]])
    return five_points(eyes, 1.1) * _SIDE


_LAID = _laid_points()
