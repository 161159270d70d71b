"""The first pass of `--mode upstream`: the original's stages 3, 5.1 and 5.3 and the landmarks of 5.2.

    KEY/                             one video, one face detector
        faces-NNNNN.npz              the best face of every frame, before pads and means
        measured-KEY2/               one source box, one landmark and one coefficient network
            source-box.npz
            measured-NNNNN.npz       landmarks and coefficients
        references-KEY3/             one expression, one D-Net, one GPEN
            references-NNNNN.pngs    stabilised pictures, enhanced; their landmarks beside them

Units of `dubstream.runtime.units.unit_folder`: a killed job goes on, another speech finds them done. Whole in
memory are only boxes, landmarks and coefficients, some 2 kB a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstream.engines.artifact import Artifact
from dubstream.engines.cache import folder_lock
from dubstream.engines.face_specs import FAN4
from dubstream.engines.facts import digest_facts
from dubstream.engines.specs import RECON
from dubstream.kernels.checks import F32
from dubstream.runtime.coefficients import frame_coefficients
from dubstream.runtime.faces.geometry import Box
from dubstream.runtime.media.probe import VideoInfo
from dubstream.runtime.media.reader import VideoReader
from dubstream.runtime.options.dub import DubOptions
from dubstream.runtime.options.upstream import SizedDetectors, UpstreamOptions
from dubstream.runtime.platforms.platform import Platform
from dubstream.runtime.preparation.references import ReferenceReader
from dubstream.runtime.preparation.upstream_references import PARTS, UpstreamReferences
from dubstream.runtime.preparation.upstream_units import (
    CHUNK_FRAMES,
    Work,
    at_frame,
    chunks_of,
    table_name,
)
from dubstream.runtime.progress import Progress
from dubstream.runtime.timing import Timing
from dubstream.runtime.units.arrays import load_arrays
from dubstream.runtime.units.kept_facts import keep_facts
from dubstream.runtime.units.unit_folder import UnitFolder
from dubstream.runtime.upstream.boxes import face_boxes, no_face
from dubstream.runtime.upstream.landmarks import I32, filled_landmarks, recon_input, source_picture
from dubstream.runtime.upstream.networks import BestFace, Coefficients, FaceLandmarks
from dubstream.runtime.upstream.source import found_source_box, given_source_box, searched

SCHEMA = 1
"""Raise when the same inputs would give other units."""

_BOX = "source-box.npz"
_TRACK, _MEASURE = "track", "measure"


@dataclass(frozen=True)
class UpstreamPrepared:
    """A video, ready to be dubbed as the original does.

    Attributes:
        key: identity of everything here; pads, which the face boxes depend on, are not in it.
        source_box: the part of every frame that was stabilised.
        face_boxes: the lip network's, of every frame that is used.
        landmarks: int32 (frames, 68, 2), of the enhanced stabilised pictures.
        references: reads those, uint8 BGR (256, 256, 3).
    """

    key: str
    source_box: Box
    face_boxes: list[Box]
    landmarks: I32
    references: ReferenceReader


class UpstreamPreparation:
    """Prepares one video, or finds it prepared.

    Args:
        reader: reads the source video.
        info: what the source video is.
        digest: SHA-256 of the video's content.
        artifacts: verified ones by network, `options.networks_for` the video's size.
        expression: float32 (64,), of all references.
        options: of the job, its `upstream` set.
        cache: folder of all preparations.

    Raises:
        UsageError: a source box that is no part of the frames.
    """

    def __init__(
        self,
        reader: VideoReader,
        info: VideoInfo,
        digest: str,
        artifacts: Mapping[str, Artifact],
        expression: F32,
        options: DubOptions,
        cache: Path,
    ) -> None:
        self._reader, self._info, self._artifacts, self._options = reader, info, artifacts, options
        self._expression = expression
        self._detectors = sized = SizedDetectors.of(info.width, info.height)
        box = (options.upstream or UpstreamOptions()).source_box
        self._given = None if box is None else given_source_box(box, info.width, info.height)
        seen: dict[str, Any] = {
            "schema": SCHEMA, "mode": "upstream", "video": digest, "frames": info.frame_count,
            "detector": self._digests(sized.frame_boxes),
        }  # fmt: skip
        measured = {
            **seen, "source_box": None if box is None else list(box),
            "measuring": self._digests(sized.crop_boxes, FAN4.name, RECON.name),
        }  # fmt: skip
        referenced = {
            **measured, "expression": expression.tolist(), "one_shot": options.expression.one_shot,
            "referring": self._digests(*PARTS, sized.crop_points),
        }  # fmt: skip
        self.key = digest_facts(referenced)
        self.folder = cache / "prepared" / digest_facts(seen)[:32]
        self._faces = _units(self.folder, seen)
        self._measured = _units(self.folder / f"measured-{digest_facts(measured)[:16]}", measured)
        self._references = _units(self.folder / f"references-{self.key[:16]}", referenced)

    def run(self, used: int, platform: Platform, timing: Timing, progress: Progress) -> UpstreamPrepared:
        """Bring the preparation to where the first `used` source frames can be dubbed.

        Raises:
            NoFaceError: a frame without a face where the original expects one; names the frame.
            StageError: a network failed, or gave numbers that are not finite.
            DubError: reading or writing failed.
        """
        info, options = self._info, self._options
        work = Work(
            self._reader, info.frame_count, used, self._artifacts, self._detectors, platform, timing, progress
        )
        with folder_lock(self.folder):
            boxes = face_boxes(self._found(work), info.width, info.height, options.pads)
            box = self._source_box(work)
            self._measure(box, work)
            references = UpstreamReferences(
                self._references, self._measured, box, self._expression, one_shot=options.expression.one_shot
            )
            landmarks = references.run(work)
        return UpstreamPrepared(
            self.key, box, boxes, landmarks, ReferenceReader(self._references, CHUNK_FRAMES)
        )

    def _found(self, work: Work) -> list[npt.NDArray[np.float64] | None]:
        """The best face of every used frame."""
        missing = [chunk for chunk in work.chunks if self._faces.finished(_faces_name(chunk)) is None]
        name = self._detectors.frame_boxes
        if missing:
            with work.opened(name) as calls:
                find = BestFace(calls[name])
                for chunk in missing:
                    start, stop = work.span(chunk)
                    with work.making(self._faces, _faces_name(chunk), _TRACK, stop - start, calls) as save:
                        save(boxes=_boxes_of(chunk, find, work))
        rows = np.concatenate(
            [load_arrays(self._faces, _faces_name(chunk))["boxes"] for chunk in work.chunks]
        )
        return [None if np.isnan(row).any() else row for row in rows[: work.used]]

    def _source_box(self, work: Work) -> Box:
        if self._given is not None:
            return self._given
        if self._measured.finished(_BOX) is None:
            names = self._detectors.frame_boxes, FAN4.name
            with (
                work.opened(*names) as calls,
                work.making(self._measured, _BOX, "source-box", 1, calls) as save,
            ):
                landmarks = FaceLandmarks(BestFace(calls[names[0]]), calls[names[1]])
                frames = self._reader.frames(0, searched(self._info.frame_count))
                save(box=np.array(found_source_box(frames, landmarks)))
        return Box(*load_arrays(self._measured, _BOX)["box"].tolist())

    def _measure(self, box: Box, work: Work) -> None:
        """Landmarks and coefficients of all frames that driving windows see."""
        chunks = chunks_of(work.driving)
        missing = [chunk for chunk in chunks if self._measured.finished(table_name(chunk)) is None]
        if not missing:
            return
        names = self._detectors.crop_boxes, FAN4.name, RECON.name
        with work.opened(*names) as calls:
            boxes, fan, recon = (calls[name] for name in names)
            landmarks, coefficients = FaceLandmarks(BestFace(boxes), fan), Coefficients(recon)
            for chunk in missing:
                earlier = (
                    load_arrays(self._measured, table_name(chunk - 1))["landmarks"][-1] if chunk else None
                )
                start, stop = work.span(chunk)
                with work.making(self._measured, table_name(chunk), _MEASURE, stop - start, calls) as save:
                    save(**_table_of(chunk, box, earlier, landmarks, coefficients, work))

    def _digests(self, *names: str) -> dict[str, str]:
        return {name: self._artifacts[name].digest for name in names}


def _boxes_of(chunk: int, find: BestFace, work: Work) -> npt.NDArray[np.float64]:
    """Best faces (n, 4), NaN without one, which only a frame that is not used may be."""
    rows = []
    for index, frame in work.frames(chunk, _TRACK, work.used):
        with at_frame(_TRACK, index):
            face = find(frame)
        if face is None and index < work.used:
            raise no_face(index)
        rows.append(np.full(4, np.nan) if face is None else face)
    return np.stack(rows)


def _table_of(
    chunk: int,
    box: Box,
    before: I32 | None,
    landmarks: FaceLandmarks,
    coefficients: Coefficients,
    work: Work,
) -> dict[str, npt.NDArray[Any]]:
    """Landmarks int32 (n, 68, 2) and coefficients float32 (n, 262); `before` are the landmarks before."""
    points, rows = [], []
    for index, frame in work.frames(chunk, _MEASURE, work.driving):
        picture = source_picture(frame, box)
        with at_frame(_MEASURE, index):
            before = filled_landmarks([before, landmarks(picture)])[-1]
            aligned, numbers = recon_input(picture, before)
            rows.append(frame_coefficients(coefficients(aligned)[None], numbers[None])[0])
        points.append(before)
    return {"landmarks": np.stack(points), "coefficients": np.stack(rows)}


def _faces_name(chunk: int) -> str:
    return f"faces-{chunk:05d}.npz"


def _units(folder: Path, facts: dict[str, Any]) -> UnitFolder:
    units = UnitFolder(folder, digest_facts(facts))
    keep_facts(folder, facts)
    return units
