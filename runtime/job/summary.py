"""What a dub did, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from dubstream.runtime.timing import NetworkWork, Timing

_NOT_JSON = ("trace", "timing")


@dataclass(frozen=True)
class DubSummary:
    """The result of one dub.

    Attributes:
        output: the file written.
        frames, dubbed: output frames, and those among them with a synthesised mouth.
        rate: frames per second, exact, as text.
        wall_s: seconds from start to finished file, exports not included.
        fps: frames per second of `wall_s`.
        video_s, audio_s: lengths of the streams written.
        av_gap_s: absolute difference of the two.
        absent: ranges of output frames (first, last + 1) that passed through without a face.
        busy_s: busy seconds by stage.
        wall_over_slowest: by pass, wall time of its streams over their slowest resource's busy time.
        reused: units found finished, by kind.
        peak_rss_mib: largest resident memory of the process.
        backend: what computed it, with precision and device.
        weights: where the networks' weights came from.
        notes: what the user should know (neutral expression, lost frames, ...).
        trace: Chrome trace of the job, empty unless asked for.
        timing: what `busy_s` and `wall_over_slowest` were summed from.
    """

    output: str
    frames: int
    dubbed: int
    rate: str
    wall_s: float
    fps: float
    video_s: float
    audio_s: float
    av_gap_s: float
    absent: list[tuple[int, int]]
    busy_s: dict[str, float]
    wall_over_slowest: dict[str, float]
    reused: dict[str, int]
    peak_rss_mib: float
    backend: str
    weights: str
    notes: list[str] = field(default_factory=list)
    trace: dict[str, Any] = field(default_factory=dict, repr=False)
    timing: Timing = field(default_factory=Timing, repr=False)

    @property
    def networks(self) -> dict[str, NetworkWork]:
        """By network, what it was given; what was found finished is not among it."""
        return self.timing.networks()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types; the trace is left out, it has a file of its own, and so are the timings."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _NOT_JSON}
        return {**plain, "networks": {name: work._asdict() for name, work in self.networks.items()}}

    def absent_text(self) -> str:
        """The absent ranges in words."""
        if not self.absent:
            return "none"
        ranges = ", ".join(f"{first}-{stop - 1}" for first, stop in self.absent[:8])
        more = len(self.absent) - 8
        return f"frames {ranges}" + (f" and {more} more ranges" if more > 0 else "")
