"""What is seen of every face in every frame of a chunk, before anyone decides whom to dub.

A chunk is observed alone: nothing is carried in from its neighbours, and detection picks frames by their
absolute index, so chunks may be observed in any order, by different machines, and again after a crash.
The detector's boxes jump by several pixels; optical flow does not, but drifts. So each row holds both:
where flow alone carried the face since its first sight, and what the detector measured; `track` joins them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import InternalError, StageError, UsageError
from dubstream.runtime.faces.detector import FaceDetector, LandmarkEstimator, reduced_gray
from dubstream.runtime.faces.flow import face_motion, moved_box, moved_points
from dubstream.runtime.faces.observations import (
    CARRIED,
    LOOK,
    MEASURED,
    MISSED,
    VALUES,
    Observations,
    overlap,
)

FLOW_SIDE = 640  # pixels of the longer side for optical flow
DEFAULT_EVERY = 5  # frames between detections

_SAME_FACE = 0.3  # overlap (IoU) of a detection and a followed face
_MOST_MISSES = 3  # detections in a row that may fail before a followed face is given up


def observe(
    frames: Iterable[tuple[int, NDArray[np.uint8]]],
    detector: FaceDetector,
    landmarks: LandmarkEstimator,
    every: int = DEFAULT_EVERY,
) -> Observations:
    """Detect and follow all faces of consecutive frames.

    The detector runs at frames whose absolute index is a multiple of `every`, at the first frame, where a
    followed face got lost, and at every frame while none is in sight.

    Args:
        frames: (absolute index, uint8 (H, W, 3) BGR), in order; a gap in the indices starts afresh.
        detector, landmarks: see `detector`.
        every: frames between detections, 1 or more.

    Raises:
        UsageError: `every` below 1.
        StageError: detector or landmarks failed; it names the frame.
    """
    if every < 1:
        raise UsageError(f"detection every {every} frames; expected 1 or more")
    table = _Table()
    observer = _Observer(detector, landmarks)
    seen: list[int] = []
    for index, bgr in frames:
        if seen and index <= seen[-1]:
            raise InternalError(f"frame {index} after frame {seen[-1]}; expected ascending indices")
        if seen and index != seen[-1] + 1:
            observer.forget()
        lost = observer.follow(bgr)
        kind = CARRIED
        if not seen or lost or not observer.targets or index % every == 0:
            try:
                observer.look(bgr)
            except InternalError as error:
                raise StageError("track", index, error) from error
            kind = MISSED
        table.add(index, observer.targets, kind, bgr)
        seen.append(index)
    return table.finished(seen)


@dataclass
class _Target:
    """A face being followed. `carried` is moved by flow alone; `anchor` is also reset by detections."""

    tracklet: int
    carried: NDArray[np.float64]
    anchor: NDArray[np.float64]
    measured: NDArray[np.float64] | None = None
    misses: int = 0


class _Observer:
    def __init__(self, detector: FaceDetector, landmarks: LandmarkEstimator) -> None:
        self.targets: list[_Target] = []
        self._detector = detector
        self._landmarks = landmarks
        self._before: NDArray[np.uint8] | None = None
        self._tracklets = 0

    def forget(self) -> None:
        self.targets, self._before = [], None

    def follow(self, bgr: NDArray[np.uint8]) -> bool:
        """Move all targets into this frame; True when one got lost."""
        gray, scale = reduced_gray(bgr, FLOW_SIDE)
        before, self._before = self._before, gray
        targets, self.targets = self.targets, []
        if before is None or before.shape != gray.shape:
            return bool(targets)
        for target in targets:
            motion = face_motion(before, gray, target.anchor * scale)
            if motion is None:
                continue
            motion[:, 2] /= scale
            target.anchor = moved_box(motion, target.anchor)
            points = moved_points(motion, target.carried[4:].reshape(5, 2))
            target.carried = np.concatenate([moved_box(motion, target.carried[:4]), points.ravel()])
            target.measured = None
            self.targets.append(target)
        return len(self.targets) < len(targets)

    def look(self, bgr: NDArray[np.uint8]) -> None:
        """Match a detection to the targets: update, start, and give up."""
        faces = self._detector.detect(bgr)
        matched = _match([target.anchor for target in self.targets], [face.box for face in faces])
        for number, target in enumerate(self.targets):
            target.misses = 0 if number in matched else target.misses + 1
        for number, face in enumerate(faces):
            seen = np.concatenate([face.box, self._landmarks.points(bgr, face).ravel()])
            target = next((self.targets[t] for t, f in matched.items() if f == number), None) or self._new(
                seen
            )
            target.anchor, target.measured = seen[:4], seen
        self.targets = [target for target in self.targets if target.misses < _MOST_MISSES]

    def _new(self, seen: NDArray[np.float64]) -> _Target:
        target = _Target(self._tracklets, carried=seen, anchor=seen[:4])
        self._tracklets += 1
        self.targets.append(target)
        return target


@dataclass
class _Table:
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    carried: list[NDArray[np.float64]] = field(default_factory=list)
    measured: list[NDArray[np.float64]] = field(default_factory=list)
    looks: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, index: int, targets: list[_Target], kind: int, bgr: NDArray[np.uint8]) -> None:
        for target in targets:
            seen = target.measured
            self.rows.append((index, target.tracklet, kind if seen is None else MEASURED))
            self.carried.append(target.carried)
            self.measured.append(np.full(VALUES, np.nan) if seen is None else seen)
            self.looks.append(np.zeros((LOOK, LOOK, 3), np.uint8) if seen is None else glance(bgr, seen[:4]))

    def finished(self, frames: list[int]) -> Observations:
        rows = np.array(self.rows, dtype=np.int64).reshape(-1, 3)
        return Observations(
            frames=np.array(frames, dtype=np.int64),
            frame=rows[:, 0],
            tracklet=rows[:, 1],
            kind=rows[:, 2].astype(np.uint8),
            carried=np.array(self.carried, dtype=np.float32).reshape(-1, VALUES),
            measured=np.array(self.measured, dtype=np.float32).reshape(-1, VALUES),
            look=np.array(self.looks, dtype=np.uint8).reshape(-1, LOOK, LOOK, 3),
        )


def _match(targets: list[NDArray[np.float64]], faces: list[NDArray[np.float64]]) -> dict[int, int]:
    """Target number to face number, best overlap first, each used once."""
    pairs = [(overlap(box, face), t, f) for t, box in enumerate(targets) for f, face in enumerate(faces)]
    matched: dict[int, int] = {}
    for share, target, face in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if share >= _SAME_FACE and target not in matched and face not in matched.values():
            matched[target] = face
    return matched


def glance(bgr: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The tiny picture of a face that `identities` compares, uint8 BGR (8, 8, 3); black outside the frame."""
    import cv2

    low = np.maximum(box[:2].astype(int), 0)
    high = np.maximum(np.minimum(box[2:].astype(int), (bgr.shape[1], bgr.shape[0])), low + 1)
    patch = bgr[low[1] : high[1], low[0] : high[0]]
    if patch.size == 0:
        return np.zeros((LOOK, LOOK, 3), np.uint8)
    return np.asarray(cv2.resize(patch, (LOOK, LOOK), interpolation=cv2.INTER_AREA), dtype=np.uint8)
