"""Words that export, its progress display and its callers share; needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

STEPS = ("weights", "reference", "convert", "check", "compare", "publish")
"""Steps of one network, in order."""

FP32 = "fp32"
RECIPE_NAME = "as-trained"
RECIPE_VERSION = 1
"""Raised when a network's deployable form or the conversion changes, so that old artifacts are remade."""


@dataclass(frozen=True)
class ExportEvent:
    """Something happened during an export.

    Attributes:
        event: ``start`` (message: whose weights), ``kept`` and ``done`` (message: the artifact's
            path), ``waiting`` (for another process), ``step`` (a step of a network begins) or
            ``error`` (message: the error's line).
        network: the network's name; empty for ``start`` and ``waiting``.
        step: one of `STEPS`; empty unless ``step``.
        position: steps finished so far, of all networks to be made.
        total: steps in all.
        message: for people.
        exit_code: of an ``error``, else 0.
    """

    event: str
    network: str = ""
    step: str = ""
    position: int = 0
    total: int = 0
    message: str = ""
    exit_code: int = 0

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))
