"""How large, long or strange a media file may be before it is refused.

Every limit is an option of the command line; the `LimitError` that enforces it names the option.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from fractions import Fraction

from dubstream.engines.errors import LimitError, UsageError


@dataclass(frozen=True)
class MediaLimits:
    """Limits on input media. All are inclusive and must be positive (`UsageError` otherwise).

    Attributes:
        max_pixels: width x height of a video, in pixels. The default admits 4096 x 2304.
        max_frames: frames a video may hold, and frames an output may be planned to hold.
        max_duration_s: length of a video, in seconds.
        max_gap_s: longest pause between two frames, in seconds.
        max_frame_ratio: planned output frames per source frame.
        max_audio_channels: channels of an audio stream.
        max_audio_s: length of an audio stream, in seconds.
        min_audio_s: shortest audio that can drive a mouth, in seconds.
    """

    max_pixels: int = field(default=4096 * 2304, metadata={"option": "--max-pixels"})
    max_frames: int = field(default=500_000, metadata={"option": "--max-frames"})
    max_duration_s: float = field(default=4 * 3600.0, metadata={"option": "--max-duration"})
    max_gap_s: float = field(default=10.0, metadata={"option": "--max-gap"})
    max_frame_ratio: float = field(default=10.0, metadata={"option": "--max-frame-ratio"})
    max_audio_channels: int = field(default=16, metadata={"option": "--max-audio-channels"})
    max_audio_s: float = field(default=4 * 3600.0, metadata={"option": "--max-audio"})
    min_audio_s: float = field(default=0.2, metadata={"option": "--min-audio"})

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if not value > 0:  # also refuses NaN
                raise UsageError(f"{option_of(name)} is {value}, expected a positive number")

    def check_most(self, name: str, value: float | Fraction, what: str) -> None:
        """Raise `LimitError` when `value` exceeds the limit `name`; `what` describes the value."""
        limit = getattr(self, name)
        if float(value) > limit:
            raise LimitError(
                f"{what}: {_plain(value)}, more than the {_plain(limit)} of {option_of(name)}",
                hint=f"raise {option_of(name)} if the file is what you expect",
            )

    def check_least(self, name: str, value: float | Fraction, what: str) -> None:
        """Raise `LimitError` when `value` is below the limit `name`; `what` describes the value."""
        limit = getattr(self, name)
        if float(value) < limit:
            raise LimitError(
                f"{what}: {_plain(value)}, less than the {_plain(limit)} of {option_of(name)}",
                hint=f"lower {option_of(name)} if the file is what you expect",
            )


def option_of(name: str) -> str:
    """Command-line option of the `MediaLimits` attribute `name`."""
    return str(MediaLimits.__dataclass_fields__[name].metadata["option"])


def _plain(value: float | Fraction) -> str:
    return str(value) if isinstance(value, int) else f"{float(value):.3f}".rstrip("0").rstrip(".")
