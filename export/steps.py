"""Words that export, its progress display and its callers share; needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

STEPS = ("weights", "reference", "convert", "check", "compare", "publish")
"""Steps of one network in float32, in order."""

HALF_STEPS = ("weights", "reference", "convert", "check", "audit", "compare", "publish")
"""Steps of one network in a half precision."""


def steps_of(precision: str) -> tuple[str, ...]:
    """Steps of one network in `precision`."""
    return STEPS if precision == "fp32" else HALF_STEPS


@dataclass(frozen=True)
class ExportEvent:
    """Something happened during an export.

    Attributes:
        event: ``start`` (message: whose weights), ``kept`` and ``done`` (message: the artifact's
            path), ``waiting`` (for another process), ``step`` (a step of a network begins) or
            ``error`` (message: the error's line).
        network: the network's name; empty for ``start`` and ``waiting``.
        step: one of `steps_of` its precision; empty unless ``step``.
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
