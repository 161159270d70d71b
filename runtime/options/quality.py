"""What `--quality` stands for where an option of its own does not say otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from dubstream.engines.errors import UsageError


@dataclass(frozen=True)
class Quality:
    """One step.

    Attributes:
        finder: see `dubstream.runtime.options.dub.FaceOptions`.
        mask, restore: see `dubstream.runtime.options.finish.FinishOptions`.
    """

    finder: str
    mask: str
    restore: str


QUALITIES: dict[str, Quality] = {
    "standard": Quality("cascade", "box", "none"),
    "full": Quality("networks", "parse", "gfpgan"),
}
"""``standard``: the four networks that every dub needs. ``full``: the complete system save GPEN, whose
licence asks for a decision."""


def quality_of(name: str) -> Quality:
    """The step of that name; `UsageError` for an unknown one."""
    if name not in QUALITIES:
        raise UsageError(f"--quality received '{name}', expected one of {', '.join(QUALITIES)}")
    return QUALITIES[name]
