"""The references of `--mode upstream`: D-Net, GPEN, and the landmarks of what they made (3.7, 5.1, 5.2)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from dubstream.engines.errors import NoFaceError
from dubstream.engines.face_specs import FAN4, GPEN, PARSENET
from dubstream.engines.specs import DNET
from dubstream.kernels.checks import F32, U8
from dubstream.kernels.detection import RETINAFACE_RULE
from dubstream.runtime.coefficients import driving_rows, driving_window
from dubstream.runtime.faces.geometry import Box, quad
from dubstream.runtime.options.upstream import SizedDetectors
from dubstream.runtime.platforms.calls import Calls, account_calls
from dubstream.runtime.preparation.references import ReferenceWriter, chunk_name
from dubstream.runtime.preparation.upstream_units import Work, at_frame, chunks_of, table_name
from dubstream.runtime.units.arrays import load_arrays
from dubstream.runtime.units.unit_folder import UnitFolder
from dubstream.runtime.upstream.frame import ReferenceNetworks, enhanced_reference
from dubstream.runtime.upstream.landmarks import (
    I32,
    MISSING,
    crop_points,
    filled_landmarks,
    source_picture,
)
from dubstream.runtime.upstream.networks import (
    BestFace,
    Classes,
    FaceLandmarks,
    FiveFaces,
    Planes,
    Stabiliser,
)

log = logging.getLogger(__name__)

STAGE = "stabilise"

PARTS = (DNET.name, GPEN.name, PARSENET.name)
"""Its networks, beside a detector of its own and those of the landmarks."""


class UpstreamReferences:
    """Makes the references that are missing.

    Args:
        units: where they are kept; their landmarks are among a unit's facts.
        measured: finished landmarks and coefficients of the clip.
        box: of every frame, the part that is stabilised.
        expression: float32 (64,), of all references.
        one_shot: D-Net moves the first frame for the whole clip, driven by each frame's own window.
    """

    def __init__(
        self, units: UnitFolder, measured: UnitFolder, box: Box, expression: F32, *, one_shot: bool
    ) -> None:
        self._units, self._measured, self._box = units, measured, box
        self._expression, self._one_shot = expression, one_shot

    def run(self, work: Work) -> I32:
        """Landmarks of the used frames' references, int32 (used, 68, 2), when all of those are there.

        Raises:
            NoFaceError: no landmarks in the first one; the original stops there, with NaN.
        """
        facts = {chunk: self._units.finished(chunk_name(chunk)) for chunk in work.chunks}
        missing = [chunk for chunk in work.chunks if facts[chunk] is None]
        if missing:
            landmarks = work.detectors.crop_boxes, FAN4.name
            with work.opened(*PARTS, work.detectors.crop_points, *landmarks) as calls:
                maker = ReferenceMaker(calls, work.detectors, self._driving(work), self._anchor(work))
                for chunk in missing:
                    earlier = facts.get(chunk - 1)
                    maker.before = None if earlier is None else np.array(earlier["landmarks"][-1], np.int32)
                    facts[chunk] = self._make(chunk, maker, calls, work)
        found = [np.array(one_chunk["landmarks"], np.int32) for one_chunk in facts.values() if one_chunk]
        return np.concatenate(found)[: work.used]

    def _make(self, chunk: int, maker: ReferenceMaker, calls: Calls, work: Work) -> dict[str, Any]:
        start, stop = work.span(chunk)
        facts: dict[str, Any] = {"landmarks": []}
        with work.timing.measure(STAGE, stop - start), self._units.making(chunk_name(chunk), facts) as path:
            writer = ReferenceWriter(path, facts)
            try:
                for index, frame in work.frames(chunk, STAGE, work.used):
                    with at_frame(STAGE, index):
                        enhanced, points = maker.made(index, source_picture(frame, self._box))
                    writer.append(index, enhanced)
                    facts["landmarks"].append(points.tolist())
            finally:
                writer.close()
        account_calls(work.timing, STAGE, calls)
        log.info("references %d to %d are made", start, stop - 1)
        return facts

    def _driving(self, work: Work) -> F32:
        """Rows of all driving windows, float32 (n, 73)."""
        chunks = chunks_of(work.driving)
        tables = [load_arrays(self._measured, table_name(chunk))["coefficients"] for chunk in chunks]
        return driving_rows(np.concatenate(tables), self._expression)

    def _anchor(self, work: Work) -> U8 | None:
        if not self._one_shot:
            return None
        (_, frame), *_ = work.reader.frames(0, 1)
        return source_picture(frame, self._box)


class ReferenceMaker:
    """One frame after another, in their order.

    Args:
        calls: `PARTS`, the detectors of 256 x 256 pictures, and FAN-4.
        detectors: names of those among them.
        rows: of all driving windows, float32 (n, 73).
        anchor: uint8 RGB (256, 256, 3) that D-Net moves for all frames; None to move each frame's own.

    Attributes:
        before: landmarks of the one before, which a frame without a face repeats; None at the start.
    """

    def __init__(self, calls: Calls, detectors: SizedDetectors, rows: F32, anchor: U8 | None) -> None:
        self.before: I32 | None = None
        self._rows, self._anchor = rows, anchor
        self._dnet = Stabiliser(calls[DNET.name])
        self._networks = ReferenceNetworks(
            faces=FiveFaces(calls[detectors.crop_points], RETINAFACE_RULE),
            restore_reference=Planes(calls[GPEN.name], "restored"),
            parse=Classes(calls[PARSENET.name]),
        )
        self._landmarks = FaceLandmarks(BestFace(calls[detectors.crop_boxes]), calls[FAN4.name])

    def made(self, index: int, source: U8) -> tuple[U8, I32]:
        """The enhanced stabilised picture of a frame, uint8 BGR, and its landmarks, int32 (68, 2)."""
        moved = source if self._anchor is None else self._anchor
        stabilised = self._dnet(moved, driving_window(self._rows, index))
        enhanced = enhanced_reference(stabilised, self._networks)
        points = filled_landmarks([self.before, self._landmarks(enhanced)])[-1]
        if (points == MISSING).all():
            raise NoFaceError("its stabilised picture shows no face", hint="use the native mode")
        quad(crop_points(points))  # refuses points that no quad can be made of
        self.before = points
        return enhanced, points
