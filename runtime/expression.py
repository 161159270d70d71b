"""Which expression the references get: what `--expression` names, before any network has run.

neutral              the template of a resting face; zero (the mean face) without a file of templates
smile                the template of a smiling mouth
neutral:0.4:smile    the way from one template to the other, 0 to 1 (paper, table 4)
PATH.png             the expression of the face in a picture
PATH.mp4             the expression of every frame of another video, at the same moment
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dubstream.engines.errors import UsageError
from dubstream.runtime.coefficients import ExpressionName, expression_template

TEMPLATES_FILE = "expression.mat"
"""Name of the public file of templates, also inside a folder of checkpoints."""

PICTURES = (".png", ".jpg", ".jpeg")
CLIPS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")

_NEUTRAL = "neutral"
_TEMPLATES: dict[str, ExpressionName] = {_NEUTRAL: "center", "smile": "mouth"}


@dataclass(frozen=True)
class TemplateMix:
    """A point on the line between two templates.

    Attributes:
        first, second: names of templates.
        share: of the second one, 0 to 1.
    """

    first: str
    share: float
    second: str

    @property
    def needs_file(self) -> bool:
        """Whether more than the neutral template is asked for."""
        return {self.first, self.second} != {_NEUTRAL}

    def values(self, templates: Path | None) -> NDArray[np.float32]:
        """The expression, float32 (64,); reads the file of templates.

        Raises:
            CheckpointError: a file that holds no such template.
        """
        first = expression_template(templates, _TEMPLATES[self.first]).astype(np.float64)
        second = expression_template(templates, _TEMPLATES[self.second])
        return np.asarray((1.0 - self.share) * first + self.share * second, dtype=np.float32)


@dataclass(frozen=True)
class FaceSource:
    """A picture or a video whose face shows the expression.

    Attributes:
        path: the file.
        is_picture: a still picture; else a video.
    """

    path: Path
    is_picture: bool


@dataclass(frozen=True)
class ExpressionOptions:
    """The expression of the references, and what D-Net makes them from; part of their identity.

    Attributes:
        source: as `parse_expression` reads it.
        templates: the public `expression.mat`; None if there is none.
        one_shot: D-Net moves the first frame that shows the face, for the whole clip, instead of every
            frame by itself: steadier lips, a little less of the person (paper, appendix B).

    Raises:
        UsageError: no expression, or one that needs the file of templates without it.
    """

    source: str = _NEUTRAL
    templates: Path | None = None
    one_shot: bool = False

    def __post_init__(self) -> None:
        parsed = self.parsed
        if isinstance(parsed, TemplateMix) and parsed.needs_file and self.templates is None:
            raise UsageError(
                f"--expression {self.source} needs the file of templates, received none",
                hint=f"--expression-templates {TEMPLATES_FILE} from the public release, or "
                "--expression PICTURE.png, which needs no templates",
            )

    @property
    def parsed(self) -> TemplateMix | FaceSource:
        """What `source` means."""
        return parse_expression(self.source)


def parse_expression(text: str) -> TemplateMix | FaceSource:
    """Read a template's name, ``FIRST:SHARE:SECOND``, or the path of a picture or video.

    Raises:
        UsageError: anything else.
    """
    if text in _TEMPLATES:
        return TemplateMix(text, 0.0, text)
    mix = _parse_mix(text)
    if mix is not None:
        return mix
    suffix = Path(text).suffix.lower()
    if suffix in PICTURES or suffix in CLIPS:
        return FaceSource(Path(text), suffix in PICTURES)
    hint = f"a file of templates is given by --expression-templates {text}" if suffix == ".mat" else None
    raise UsageError(
        f"--expression received '{text}', expected {', '.join(_TEMPLATES)}, a mix such as neutral:0.4:smile "
        f"with a share from 0 to 1, a picture ({', '.join(PICTURES)}) or a video ({', '.join(CLIPS)})",
        hint=hint,
    )


def find_templates(given: Path | None, checkpoints: Path | None) -> Path | None:
    """The file of templates: the one that was named, or the one among the checkpoints, if there is one."""
    if given is not None or checkpoints is None:
        return given
    beside = checkpoints / TEMPLATES_FILE
    return beside if beside.is_file() else None


def _parse_mix(text: str) -> TemplateMix | None:
    parts = text.split(":")
    if len(parts) != 3 or parts[0] not in _TEMPLATES or parts[2] not in _TEMPLATES:
        return None
    try:
        share = float(parts[1])
    except ValueError:
        return None
    return TemplateMix(parts[0], share, parts[2]) if math.isfinite(share) and 0 <= share <= 1 else None
