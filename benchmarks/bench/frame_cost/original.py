"""What the original program spends on an output frame, to compare with.

OpenTalker/video-retalking, `inference.py` at commit d32e8e5 with its default options: float32, as executed,
dead branches included, one source frame per output frame. It looks for faces in full frames three times a
frame, so its cost grows with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import SMALLEST_SIDE, retinaface_spec, s3fd_spec

HD, FULL_HD = (1280, 720), (1920, 1080)
"""Width and height."""

SIZES = (HD, FULL_HD)

LARGEST_SIDE = 16384
"""Pixels; nobody films larger frames."""


@dataclass(frozen=True)
class OriginalStage:
    """One network at one place.

    Attributes:
        stage: network and place.
        items: per output frame.
        gmacs: 1e9 multiply-accumulates of them.
        batch: items per call.
    """

    stage: str
    items: int
    gmacs: float
    batch: int = 1


@dataclass(frozen=True)
class OriginalCost:
    """All of them for frames of one size.

    Attributes:
        width, height: of a frame in pixels.
        stages: in no order of time.
        measured: whether its detectors were counted at this size; else they are estimated from the specs,
            within 3 %.
    """

    width: int
    height: int
    stages: tuple[OriginalStage, ...]
    measured: bool

    @property
    def title(self) -> str:
        """How it is cited."""
        return f"the original program, {self.size}"

    @property
    def size(self) -> str:
        """``720p`` where everybody calls it so, else width x height."""
        return f"{self.height}p" if self.measured else f"{self.width}x{self.height}"

    @property
    def gmacs(self) -> float:
        """1e9 multiply-accumulates per output frame."""
        return sum(stage.gmacs for stage in self.stages)

    @property
    def calls(self) -> float:
        """Calls per output frame."""
        return sum(stage.items / stage.batch for stage in self.stages)


_ANY_SIZE = (
    OriginalStage("ParseNet: reference, mouth, face", 3, 703.5),
    OriginalStage("L-Net and E-Net", 2, 203.7, 16),
    OriginalStage("GFPGAN", 1, 197.8),
    OriginalStage("GPEN", 1, 138.1),
    OriginalStage("D-Net", 1, 61.6),
    OriginalStage("FAN-4: source, reference", 2, 50.5),
    OriginalStage("S3FD, 256x256: source, reference", 2, 42.2),
    OriginalStage("RetinaFace, 256x256", 1, 7.1),
    OriginalStage("ReconNet", 1, 4.1),
)

_MEASURED = {HD: (290.8, 99.9, 99.9), FULL_HD: (652.5, 224.9, 62.1)}
"""S3FD, RetinaFace for GFPGAN, RetinaFace for GPEN on full frames."""

_REDUCED_ABOVE, _REDUCED_TO = 1500, 1000  # pixels of the longer side, of RetinaFace for GPEN


def original_cost(width: int, height: int) -> OriginalCost:
    """The original's cost for frames of that size.

    Raises:
        UsageError: a size that no frame has.
    """
    if min(width, height) < SMALLEST_SIDE or max(width, height) > LARGEST_SIDE:
        raise UsageError(
            f"--width {width} --height {height}: expected sides of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels"
        )
    measured = _MEASURED.get((width, height))
    s3fd, mouth, face = measured or _estimated(width, height)
    detectors = (
        OriginalStage("S3FD, full frame", 1, s3fd, 4),
        OriginalStage("RetinaFace for GFPGAN, full frame", 1, mouth),
        OriginalStage("RetinaFace for GPEN, full frame", 1, face),
    )
    return OriginalCost(width, height, (*_ANY_SIZE, *detectors), measured is not None)


def _estimated(width: int, height: int) -> tuple[float, float, float]:
    scale = _REDUCED_TO / max(width, height) if max(width, height) > _REDUCED_ABOVE else 1.0
    reduced = [max(round(scale * side), SMALLEST_SIDE) for side in (height, width)]
    return (
        s3fd_spec(height, width).gmacs,
        retinaface_spec(height, width).gmacs,
        retinaface_spec(*reduced).gmacs,
    )
