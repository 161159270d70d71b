"""A review as JSON, as table rows, and as one HTML page with pictures and plots."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dubstream.engines.errors import UsageError
from dubstream.engines.page import Figure, Section, Table, Verdict, check_page, write_page
from dubstream.runtime.review.compare import FileFacts, Review
from dubstream.runtime.review.meter import Values, Worst
from dubstream.runtime.review.verdict import Measure, failures

FORMAT = 1
_AMPLIFIED = 8
"""How much larger than life a difference is shown, around grey."""

_WIDEST = 960  # pixels of a picture in the report
_TALLEST_MOUTH = 192
_POINTS = 1500  # of a plotted line; more are gathered, each point the worst of its frames

Picture = npt.NDArray[np.uint8]


def as_json(review: Review, measures: Sequence[Measure], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON types: files, verdict of every measure, seconds per frame of each, what made it."""
    frames = max(review.frames, 1)
    lips = asdict(review.lips)
    return {
        "format": FORMAT,
        "holds": not failures(list(measures)),
        "expect": review.expect.value,
        "files": {"a": _file_json(review.first), "b": _file_json(review.second)},
        "frames": review.frames,
        "obstacle": review.obstacle,
        "measures": [measure.as_json() for measure in measures],
        "lip_motion": lips,
        "worst_frame": None if review.worst is None else review.worst.frame,
        "worst_mouth": None if review.worst_mouth is None else review.worst_mouth.frame,
        "seconds_per_frame": {name: seconds / frames for name, seconds in review.seconds.items()},
        "made_by": dict(facts),
    }


def rows(measures: Sequence[Measure]) -> list[tuple[str, ...]]:
    """Title, value, limit, verdict, median, p5 to p95, note."""
    return [
        (
            measure.title,
            "" if measure.value is None else f"{measure.value:.4g} {measure.unit}".rstrip(),
            measure.limit,
            verdict_of(measure.holds).value if measure.limit else "",
            f"{measure.spread['median']:.4g}" if measure.spread else "",
            f"{measure.spread['p5']:.4g} - {measure.spread['p95']:.4g}" if measure.spread else "",
            measure.note,
        )
        for measure in measures
    ]


COLUMNS = ("measure", "value", "limit", "verdict", "median", "p5 - p95", "note")
"""Headings of `rows`."""


def verdict_of(holds: bool | None) -> Verdict:
    """The sign of a measure; what has no value was not run."""
    return {True: Verdict.PASSED, False: Verdict.FAILED, None: Verdict.NOT_RUN}[holds]


def check_report(path: Path) -> None:
    """Raise before minutes of work what `write_report` would raise after them.

    Raises:
        UsageError: no such folder, or what draws it is not installed.
    """
    check_page(path)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "a report was asked for, and matplotlib is not installed here",
            hint='pip install "dubstream[report]"',
        ) from error


def write_report(path: Path, review: Review, measures: Sequence[Measure], facts: Mapping[str, Any]) -> None:
    """Write the HTML page; errors as `dubstream.engines.page.write_page`."""
    failed = failures(list(measures))
    lead = "Every measure that was judged holds."
    if failed:
        lead = f"{len(failed)} of {len(measures)} measures do not hold: " + ", ".join(
            measure.title for measure in failed
        )
    sections = [
        Section("Measures", [_measures(measures)], verdict_of(not failed)),
        Section("Files", [_files(review)]),
    ]
    for title, worst, tall in (
        ("Least similar frame", review.worst, 0),
        ("Least similar mouth", review.worst_mouth, _TALLEST_MOUTH),
    ):
        if worst is not None:
            sections.append(Section(title, _pictures(worst, tall)))
    if review.series:
        sections.append(Section("Over time", _plots(review)))
    write_page(path, "Two videos compared", sections, facts, lead=lead)


def _measures(measures: Sequence[Measure]) -> Table:
    return Table(
        COLUMNS,
        [
            (*row[:3], verdict_of(measure.holds) if measure.limit else "not judged", *row[4:])
            for row, measure in zip(rows(measures), measures, strict=True)
        ],
        "SSIM, PSNR, seam and flicker on luma, 0 to 255. Median and percentiles over frames.",
    )


def _files(review: Review) -> Table:
    names = ("path", "size", "frames/s", "frames", "stored frames", "picture s", "sound s", "sound starts s")
    columns = [
        (
            file.path, f"{file.width}x{file.height}", str(file.rate), file.frames, file.stored_frames,
            file.video_s, file.sound_s, file.sound_start_s,
        )
        for file in (review.first, review.second)
    ]  # fmt: skip
    return Table(("", "A", "B"), list(zip(names, *columns, strict=True)), f"B was to be: {review.expect}.")


def _file_json(file: FileFacts) -> dict[str, Any]:
    return {**asdict(file), "rate": str(file.rate)}


def _pictures(worst: Worst, tall: int) -> list[str | Table | Figure]:
    difference = worst.second.astype(np.int16) - worst.first
    shown = np.clip(128 + _AMPLIFIED * difference, 0, 255).astype(np.uint8)
    small = bool(tall)
    return [
        f"Frame {worst.frame}, SSIM {worst.similarity:.4f}.",
        Figure(_png(worst.first, tall), "A", pixelated=small),
        Figure(_png(worst.second, tall), "B", pixelated=small),
        Figure(_png(shown, tall), f"B - A, {_AMPLIFIED} times amplified around grey", pixelated=small),
    ]


def _png(picture: Picture, tall: int) -> bytes:
    height, width = picture.shape[:2]
    scale = min(1.0, _WIDEST / width)
    if tall:
        scale = max(1.0, tall // height)
    if scale != 1.0:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        picture = np.asarray(cv2.resize(picture, size, interpolation=how), dtype=np.uint8)
    return bytes(cv2.imencode(".png", picture)[1])


def _plots(review: Review) -> list[str | Table | Figure]:
    of = review.series
    return [
        Figure(_plot({"frame": of["ssim"], "mouth": of["mouth_ssim"]}, "SSIM", np.fmin), "Similarity"),
        Figure(
            _plot({"A": of["motion_a"], "B": of["motion_b"]}, "levels", np.fmax), "Motion energy of the mouth"
        ),
        Figure(_plot({"seam": of["seam"], "flicker": of["flicker"]}, "levels", np.fmax), "Seam and flicker"),
        Figure(
            _plot({"A": of["mouth_sharpness_a"], "B": of["mouth_sharpness_b"]}, "CPBD", np.fmin),
            "Sharpness of the mouth",
        ),
        Figure(_plot({"share": of["background_share"]}, "share of pixels", np.fmax), "Background changed"),
    ]


def _plot(lines: Mapping[str, Values], unit: str, worst: np.ufunc) -> bytes:
    """Lines over frame numbers, as SVG; equal lines give equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({"svg.hashsalt": "dubstream", "font.size": 9}):
        canvas = Canvas(figsize=(6.4, 2.4), layout="constrained")
        axes = canvas.add_subplot()
        for name, values in lines.items():
            axes.plot(*_gathered(values, worst), label=name, linewidth=1)
        axes.set(xlabel="frame", ylabel=unit)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(loc="best", frameon=False)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _gathered(values: Values, worst: np.ufunc) -> tuple[Values, Values]:
    """Frame numbers and values, at most `_POINTS`; each the worst of its stretch."""
    stretch = -(-len(values) // _POINTS)
    starts = np.arange(0, len(values), stretch)
    return starts.astype(np.float64), worst.reduceat(values, starts)
