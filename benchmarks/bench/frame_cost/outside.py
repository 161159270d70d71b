"""What a frame costs outside the networks, in both modes, measured in turn.

Milliseconds are the processor's, of all threads together, with OpenCV on one: what else runs on the machine
does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import cv2
import numpy as np

from dubstream.benchmarks.bench.frame_cost.free_networks import FilmedFace
from dubstream.benchmarks.bench.frame_cost.outside_first import native_first, upstream_first
from dubstream.benchmarks.bench.frame_cost.outside_second import native_second, upstream_second
from dubstream.benchmarks.rows import Row
from dubstream.engines.errors import UsageError

LEAST = 20
"""Samples of each."""

_WARM_UP = 2

NATIVE, UPSTREAM = "native", "upstream"
FIRST, SECOND, BOTH = "first pass, a source frame", "second pass, an output frame", "both passes"


def outside_rows(face: FilmedFace, samples: int) -> list[Row]:
    """For each pass, and both together: milliseconds of both modes, and their ratio.

    Args:
        face: the frame.
        samples: of each, `LEAST` or more; some before them are not counted.

    Raises:
        UsageError: fewer samples.
    """
    if samples < LEAST:
        raise UsageError(f"--samples {samples}, expected {LEAST} or more")
    rows = []
    for part, times in outside_ms(face, samples).items():
        facts: dict[str, Any] = {"part": part, "width": face.width, "height": face.height}
        rows += [Row.of(mode, "ms", taken, **facts) for mode, taken in times.items()]
        ratio = np.array(times[UPSTREAM]) / np.array(times[NATIVE])
        rows.append(Row.of(f"{UPSTREAM} / {NATIVE}", "times", ratio.tolist(), **facts))
    return rows


def median_ms(rows: Sequence[Row], part: str, mode: str) -> float:
    """Of those rows, the median of one mode in one pass."""
    return next(row.median for row in rows if (row.facts["part"], row.stage) == (part, mode))


def outside_ms(face: FilmedFace, samples: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of a frame by pass and mode, `samples` of each, all in turn; both passes are sums."""
    passes = {FIRST: (native_first, upstream_first), SECOND: (native_second, upstream_second)}
    times: dict[str, dict[str, list[float]]] = {part: {NATIVE: [], UPSTREAM: []} for part in passes}
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        runs = [
            (times[part][mode], stack.enter_context(opened(face)))
            for part, modes in passes.items()
            for mode, opened in zip((NATIVE, UPSTREAM), modes, strict=True)
        ]
        for _ in range(_WARM_UP):
            for _, run in runs:
                run()
        for _ in range(samples):
            for taken, run in runs:
                taken.append(run())
    sums = {
        mode: [a + b for a, b in zip(times[FIRST][mode], times[SECOND][mode], strict=True)]
        for mode in (NATIVE, UPSTREAM)
    }
    return {**times, BOTH: sums}


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
