"""How far a dubbed frame is finished, and which networks that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dubstream.engines.errors import UsageError
from dubstream.engines.face_specs import GFPGAN, GPEN, PARSENET

BOX, PARSE = "box", "parse"
NONE, BOTH = "none", "both"
STANDARD, FULL = "standard", "full"


@dataclass(frozen=True)
class FinishOptions:
    """The finish.

    Attributes:
        mask: ``box``: the lower face, by the box alone. ``parse``: its outline as ParseNet sees it, and the
            colour matched along it.
        restore: ``gfpgan``: the mouth of every dubbed frame. ``gpen``: the references. ``both``, or ``none``.

    Raises:
        UsageError: an unknown name.
    """

    mask: str = BOX
    restore: str = NONE

    MASKS: ClassVar[tuple[str, ...]] = (BOX, PARSE)
    RESTORERS: ClassVar[tuple[str, ...]] = (NONE, GFPGAN.name, GPEN.name, BOTH)

    def __post_init__(self) -> None:
        _check("--mask", self.mask, self.MASKS)
        _check("--restore", self.restore, self.RESTORERS)

    @property
    def mouth(self) -> bool:
        """Whether mouths are restored."""
        return self.restore in (GFPGAN.name, BOTH)

    @property
    def references(self) -> bool:
        """Whether references are restored."""
        return self.restore in (GPEN.name, BOTH)

    @property
    def parses(self) -> bool:
        """Whether every dubbed frame is parsed: the face's mask needs it, and so does the mouth's."""
        return self.mask == PARSE or self.mouth

    @property
    def frame_networks(self) -> tuple[str, ...]:
        """Networks that run for every dubbed frame, in this order."""
        if not self.parses:
            return ()
        return (PARSENET.name, GFPGAN.name) if self.mouth else (PARSENET.name,)

    @property
    def reference_networks(self) -> tuple[str, ...]:
        """Networks that run for every reference, in this order."""
        return (PARSENET.name, GPEN.name) if self.references else ()

    @property
    def networks(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((*self.frame_networks, *self.reference_networks)))


def _check(option: str, received: str, known: tuple[str, ...]) -> None:
    if received not in known:
        raise UsageError(f"{option} received '{received}', expected one of {', '.join(known)}")
