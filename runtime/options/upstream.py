"""`--mode upstream`: the original program's numbers, for regression. What it may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import FAN4, GFPGAN, GPEN, PARSENET, retinaface_spec, s3fd_spec
from dubstream.engines.specs import DNET, ENET, LNET, RECON
from dubstream.runtime.faces.geometry import CANONICAL, Box
from dubstream.runtime.upstream.five_points import enhancement_size

NATIVE, UPSTREAM = "native", "upstream"
MODES = (NATIVE, UPSTREAM)


@dataclass(frozen=True)
class UpstreamOptions:
    """What the original's way of dubbing has of its own.

    Attributes:
        source_box: x1, y1, x2, y2 of the part of every frame that is stabilised, in pixels, ends exclusive;
            None to find it. The original takes it from dlib's landmarks, which no dependency of ours gives:
            a comparison frame by frame has to hand in the box that the original computed (its `ox1`, `oy1`,
            `ox2`, `oy2`).
    """

    source_box: Box | None = None


@dataclass(frozen=True)
class SizedDetectors:
    """Names of the detectors for a clip of one size: the original looks at whole pictures.

    Attributes:
        frame_boxes: S3FD for frames.
        crop_boxes: S3FD for the 256 x 256 pictures of the face.
        frame_points: RetinaFace for frames, in front of GFPGAN.
        mask_points: the same in front of the face mask, reduced where a side is longer than 1500.
        crop_points: RetinaFace for the 256 x 256 pictures of the face.
    """

    frame_boxes: str
    crop_boxes: str
    frame_points: str
    mask_points: str
    crop_points: str

    @classmethod
    def of(cls, width: int, height: int) -> SizedDetectors:
        """For frames of that size in pixels; `UsageError` for frames too small for a detector."""
        reduced_width, reduced_height = enhancement_size(width, height)
        return cls(
            s3fd_spec(height, width).name,
            s3fd_spec(CANONICAL, CANONICAL).name,
            retinaface_spec(height, width).name,
            retinaface_spec(reduced_height, reduced_width).name,
            retinaface_spec(CANONICAL, CANONICAL).name,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(
            dict.fromkeys(
                (self.frame_boxes, self.crop_boxes, self.frame_points, self.mask_points, self.crop_points)
            )
        )


ANY_SIZE = tuple(spec.name for spec in (RECON, DNET, LNET, ENET, FAN4, PARSENET, GPEN, GFPGAN))
"""The networks of this mode that frames of every size share; an emotion adds its own."""


def refuse_native(given: Mapping[str, bool]) -> None:
    """Raise `UsageError` for the options with a true value, which this mode does not have."""
    named = [option for option, is_given in given.items() if is_given]
    if named:
        raise UsageError(
            f"received {', '.join(named)} beside --mode {UPSTREAM}, which does as the original program does",
            hint=f"leave it out, or --mode {NATIVE}",
        )


def parse_mode(mode: str, source_box: str | None) -> UpstreamOptions | None:
    """What ``--mode`` and ``--source-box`` say together; None for the native mode.

    Raises:
        UsageError: an unknown mode, no box, or a box beside the native mode.
    """
    if mode not in MODES:
        raise UsageError(f"--mode received '{mode}', expected one of {', '.join(MODES)}")
    if mode == UPSTREAM:
        return UpstreamOptions(None if source_box is None else parse_source_box(source_box))
    if source_box is not None:
        raise UsageError(f"--source-box {source_box} makes no sense without --mode {UPSTREAM}")
    return None


def parse_source_box(text: str) -> Box:
    """``x1,y1,x2,y2`` in whole pixels, ends exclusive; `UsageError` for anything else."""
    parts = text.split(",")
    if len(parts) == 4 and all(part.strip().isdecimal() and len(part) < 8 for part in parts):
        box = Box(*(int(part) for part in parts))
        if box.x1 < box.x2 and box.y1 < box.y2:
            return box
    raise UsageError(f"--source-box received '{text}', expected x1,y1,x2,y2 in pixels, e.g. 129,96,571,538")
