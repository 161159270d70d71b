"""Which measures hold, against which limits, and why those limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dubstream.engines.errors import VerificationError
from dubstream.runtime.review.compare import Expect, Review
from dubstream.runtime.review.meter import Values


@dataclass(frozen=True)
class Thresholds:
    """Limits; None leaves a measure unjudged, its figures are reported all the same.

    Defaults of the first three are what the project asks of a whole video; a single frame may be worse than
    the mean, but not broken.

    Attributes:
        min_ssim, min_mouth_ssim: mean structural similarity of frames and of mouth windows, up to 1.
        min_lip_correlation: Pearson's, of the mouths' motion energy, -1 to 1.
        min_lip_energy, max_lip_energy: motion energy of B's mouth over A's; 1 is as much movement.
        min_worst_ssim, min_worst_mouth_ssim: the same as above in the worst frame.
        min_psnr: mean, decibels.
        max_sharpness_loss: mean CPBD of A's mouth windows less B's, -1 to 1.
        max_seam: 95th percentile over frames of the step at the window's outline, levels of luma.
        max_flicker: 95th percentile over frames of brightness that jumps, levels of luma.
        max_background_share: pixels outside the window that differ, worst frame, 0 to 1.
        max_av_offset: seconds by which sound may come earlier or later against the picture than in A. One
            frame at 25 frames per second; people notice from 45 ms early (ITU-R BT.1359).
        max_length_gap: seconds by which sound may be longer or shorter; an AAC packet is up to 64 ms.
        max_sound_difference: of the loudness over time, relative, 0 to about 1.
        max_frame_gap: frames that B may have more or fewer.
    """

    min_ssim: float | None = 0.98
    min_mouth_ssim: float | None = 0.97
    min_lip_correlation: float | None = 0.99
    min_lip_energy: float | None = 0.8
    max_lip_energy: float | None = 1.25
    min_worst_ssim: float | None = 0.9
    min_worst_mouth_ssim: float | None = 0.85
    min_psnr: float | None = None
    max_sharpness_loss: float | None = 0.1
    max_seam: float | None = 1.0
    max_flicker: float | None = 1.0
    max_background_share: float | None = 0.001
    max_av_offset: float | None = 0.04
    max_length_gap: float | None = 0.1
    max_sound_difference: float | None = 0.3
    max_frame_gap: int | None = 0

    @classmethod
    def of(cls, expect: Expect, **given: float | None) -> Thresholds:
        """The defaults for what is expected, with the `given` ones (those not None) in their place."""
        chosen = {name: value for name, value in given.items() if value is not None}
        if expect is Expect.DUBBED:
            return cls(**{**_DUBBED, **chosen})  # type: ignore[arg-type]
        return cls(**chosen)  # type: ignore[arg-type]


_DUBBED: Mapping[str, float | None] = {
    "min_ssim": None,
    "min_mouth_ssim": None,
    "min_lip_correlation": None,
    "min_lip_energy": 0.1,  # another speech, but not a mouth that stands still
    "max_lip_energy": None,
    "min_worst_ssim": None,
    "min_worst_mouth_ssim": None,
    "max_sharpness_loss": None,
    "max_seam": 2.0,
    "max_flicker": 2.0,
    "max_sound_difference": None,
    "max_frame_gap": None,
}


@dataclass(frozen=True)
class Measure:
    """One measure and its verdict.

    Attributes:
        name: its key in JSON.
        title: in words.
        value: what was judged; None where nothing could be measured.
        unit: of the value.
        limit: the limit in words, such as "≥ 0.98"; "" where it is not judged.
        holds: whether it does; None where it was not judged.
        note: what there is to say, such as why it was not measured.
        spread: mean, median, p5, p95, min, max over the frames, where it is a series.
    """

    name: str
    title: str
    value: float | None
    unit: str = ""
    limit: str = ""
    holds: bool | None = None
    note: str = ""
    spread: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = {key: getattr(self, key) for key in ("name", "value", "unit", "limit", "holds", "note")}
        return {**plain, "spread": dict(self.spread)}


def judge(review: Review, thresholds: Thresholds) -> list[Measure]:
    """All measures, files first; those whose limit is None, or that have no value, are not judged."""
    return [*_structure(review, thresholds), *_sound(review, thresholds), *_pictures(review, thresholds)]


def failures(measures: list[Measure]) -> list[Measure]:
    """Those that do not hold."""
    return [measure for measure in measures if measure.holds is False]


def check(measures: list[Measure], first: str, second: str) -> None:
    """Raise `VerificationError` for the first measure that does not hold, naming how many more do not."""
    failed = failures(measures)
    if not failed:
        return
    worst, more = failed[0], len(failed) - 1
    received = f": {worst.note}" if worst.value is None else f" is {_figure(worst.value, worst.unit)}"
    raise VerificationError(
        f"{second} against {first}: {worst.title}{received}, expected {worst.limit}"
        + (f"; {more} more: {', '.join(measure.title for measure in failed[1:])}" if more else "")
    )


def _structure(review: Review, limits: Thresholds) -> Iterator[Measure]:
    first, second = review.first, review.second
    seen = f"{second.width}x{second.height}, {float(second.rate):g} frames/s"
    fits = not review.obstacle
    yield Measure("comparable", "size and rate", None, "", "those of A", fits, review.obstacle or seen)
    if review.expect is Expect.SAME:
        counts = [f"{file.frames} of {file.stored_frames} stored" for file in (first, second)]
        note = f"A has {counts[0]}, B {counts[1]}"
        yield _most("frames", "frames apart", float(_frames_apart(review)), limits.max_frame_gap, "", note)


def _frames_apart(review: Review) -> int:
    """Frames more or fewer: at the constant rate; where those agree, in the file."""
    first, second = review.first, review.second
    laid_out = abs(first.frames - second.frames)
    stored = abs(first.stored_frames - second.stored_frames)
    if first.frames == first.stored_frames:
        return laid_out or stored
    # Of an uneven video: a copy may be even, and may not know for how long the last frame is shown.
    return 0 if laid_out == 1 and stored == 0 else laid_out


def _sound(review: Review, limits: Thresholds) -> Iterator[Measure]:
    first, second = review.first, review.second
    if review.expect is Expect.DUBBED:
        gap = None if second.sound_s is None else abs(second.sound_s - second.video_s)
        yield _most("length_gap", "sound - picture", gap, limits.max_length_gap, "s", _no_sound(review))
        offset = second.sound_start_s
        yield _most("av_offset", "A/V offset", _size(offset), limits.max_av_offset, "s", _no_sound(review))
        return
    if (first.sound_s is None) != (second.sound_s is None):
        yield Measure("sound", "sound", None, "", "that of A", False, _no_sound(review))
        return
    if first.sound_s is None or second.sound_s is None:
        yield Measure("sound", "sound", None, note=_no_sound(review))
        return
    yield _most("length_gap", "sound length apart", abs(second.sound_s - first.sound_s),
                limits.max_length_gap, "s", f"A {first.sound_s:.3f} s, B {second.sound_s:.3f} s")  # fmt: skip
    yield _most("sound", "sound apart", review.sound_difference, limits.max_sound_difference)
    starts = (second.sound_start_s or 0.0) - (first.sound_start_s or 0.0)
    late = starts + (review.sound_lag_s or 0.0)
    note = f"B's sound is {1000 * late:+.0f} ms late"
    if review.sound_lag_s is None:
        note += ", by the streams' starts alone: no lag makes the sounds alike"
    yield _most("av_offset", "A/V offset", abs(late), limits.max_av_offset, "s", note)


def _pictures(review: Review, limits: Thresholds) -> Iterator[Measure]:
    if not review.series:
        return
    of = review.series
    for key, title, mean, worst in (
        ("ssim", "SSIM", limits.min_ssim, limits.min_worst_ssim),
        ("mouth_ssim", "mouth SSIM", limits.min_mouth_ssim, limits.min_worst_mouth_ssim),
    ):
        spread = spread_of(of[key])
        if not spread and mean is not None:
            # What was asked for and never measured is no pass.
            yield Measure(key, title, None, "", f"≥ {mean:g}", False, "not measured: no frame shows a mouth")
            continue
        yield _least(key, title, spread.get("mean"), mean, spread=spread)
        yield _least(f"worst_{key}", f"worst {title}", spread.get("min"), worst)
    spread = spread_of(of["psnr"])
    yield _least("psnr", "PSNR", spread.get("mean"), limits.min_psnr, "dB", spread=spread)
    yield _sharper("sharpness", "sharpness (CPBD), A - B", of["sharpness_a"], of["sharpness_b"], None)
    yield _sharper("mouth_sharpness", "mouth sharpness (CPBD), A - B", of["mouth_sharpness_a"],
                   of["mouth_sharpness_b"], limits.max_sharpness_loss)  # fmt: skip
    yield from _lips(review, limits)
    for key, title, most in (
        ("seam", "seam, p95", limits.max_seam), ("flicker", "flicker, p95", limits.max_flicker)
    ):  # fmt: skip
        spread = spread_of(of[key])
        yield _most(key, title, spread.get("p95"), most, "levels", spread=spread)
    spread = spread_of(of["background_share"])
    note = f"largest difference {spread_of(of['background_largest']).get('max', 0):.0f} levels"
    yield _most("background", "background changed, worst", spread.get("max"), limits.max_background_share,
                "", note, spread)  # fmt: skip


def _lips(review: Review, limits: Thresholds) -> Iterator[Measure]:
    lips = review.lips
    note = "" if lips.correlation is not None else "too few frames with a mouth, or neither moves"
    if lips.lag_frames:
        note = f"best {lips.lag_correlation:.3f} with B {lips.lag_frames:+d} frames late"
    yield _least("lip_correlation", "lip-motion correlation", lips.correlation,
                 limits.min_lip_correlation, note=note)  # fmt: skip
    lowest, highest = limits.min_lip_energy, limits.max_lip_energy
    words = [f"≥ {lowest:g}"] if lowest is not None else []
    words += [f"≤ {highest:g}"] if highest is not None else []
    ratio = lips.energy_ratio
    # A series that neither moves nor correlates says nothing about how much it moves.
    holds = None
    if ratio is not None and words and lips.correlation is not None:
        holds = (lowest is None or ratio >= lowest) and (highest is None or ratio <= highest)
    yield Measure("lip_energy", "lip-motion energy, B / A", ratio, "", " and ".join(words), holds)


def _sharper(name: str, title: str, first: Values, second: Values, most: float | None) -> Measure:
    # No edge in one of the two is no sharpness at all: blur may leave none. In both: nothing to judge.
    either = np.isfinite(first) | np.isfinite(second)
    sharp_a, sharp_b = (np.nan_to_num(values[either]) for values in (first, second))
    loss = spread_of(sharp_a - sharp_b)
    note = "no edge to judge in either"
    if loss:
        note = f"A {sharp_a.mean():.3f}, B {sharp_b.mean():.3f}"
    return _most(name, title, loss.get("mean"), most, "", note, loss)


def spread_of(values: Values) -> dict[str, float]:
    """Mean, median, p5, p95, min and max of the finite values; empty when there are none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return {}
    p5, median, p95 = (float(value) for value in np.percentile(known, (5, 50, 95)))
    return {
        "mean": float(known.mean()), "median": median, "p5": p5, "p95": p95,
        "min": float(known.min()), "max": float(known.max()),
    }  # fmt: skip


def _least(
    name: str, title: str, value: float | None, limit: float | None, unit: str = "", note: str = "",
    spread: Mapping[str, float] | None = None,
) -> Measure:  # fmt: skip
    holds = None if value is None or limit is None else value >= limit
    words = "" if limit is None else f"≥ {limit:g}"
    return Measure(name, title, value, unit, words, holds, note, spread or {})


def _most(
    name: str, title: str, value: float | None, limit: float | None, unit: str = "", note: str = "",
    spread: Mapping[str, float] | None = None,
) -> Measure:  # fmt: skip
    holds = None if value is None or limit is None else value <= limit
    words = "" if limit is None else f"≤ {limit:g}"
    return Measure(name, title, value, unit, words, holds, note, spread or {})


def _size(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _no_sound(review: Review) -> str:
    silent = [name for name, file in (("A", review.first), ("B", review.second)) if file.sound_s is None]
    return f"no sound in {' and '.join(silent)}" if silent else ""


def _figure(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()
