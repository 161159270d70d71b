"""The streamer on the device: what its trace says about overlap, and whether slots stay apart."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from dubstream.benchmarks.gpu_check.journal import CheckFailedError, Journal
from dubstream.benchmarks.gpu_check.setting import Setting, opened
from dubstream.kernels.launchers import DeviceFrames, Launchers
from dubstream.runtime.streaming.report import Span, StreamReport
from dubstream.runtime.streaming.slots import BufferSpec, Slot
from dubstream.runtime.streaming.streamer import Streamer

STAGE = "work"
SLOTS = (1, 2, 3)
WALL_TARGET = 1.1
LEAST_SHARE = 0.8
"""Of the batches between the first and the last two: how many must overlap for "side by side"."""


@dataclass(frozen=True)
class Load:
    """What one run does: batches of `batch` BGR frames, each computed on `passes` times."""

    batches: int
    batch: int
    size: tuple[int, int]
    passes: int


SMALL = Load(batches=16, batch=4, size=(96, 128), passes=8)
LARGE = Load(batches=60, batch=16, size=(1080, 1920), passes=12)


class WaitingStage:
    """A stage of the host that takes its time and then copies: a GPU as the host sees it."""

    name = STAGE

    def __init__(self, passes: int) -> None:
        self._seconds = passes * 1e-3

    def bind(self, slot: Slot) -> None:
        """Nothing to prepare."""

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """Wait, then copy."""

        def work() -> None:
            time.sleep(self._seconds)
            np.copyto(slot.device["result"], slot.device["frames"])

        stream.launch(work, STAGE)


class CopyingStage:
    """A stage of the GPU that resizes every frame to its own size, which changes nothing, many times."""

    name = STAGE

    def __init__(self, device: Any, kernels: Launchers, load: Load) -> None:
        self._kernels, self._load = kernels, load
        height, width = load.size
        staged = device.pinned((load.batch, 5), np.int32)
        staged[...] = [(index, 0, 0, width, height) for index in range(load.batch)]
        self._items = device.empty(staged.shape, staged.dtype)
        queue = device.stream("items")
        device.upload(self._items, staged, queue)
        queue.close()

    def bind(self, slot: Slot) -> None:
        """Nothing to prepare."""

    def enqueue(self, slot: Slot, stream: Any) -> None:
        """All passes."""
        height, width = self._load.size
        frames = DeviceFrames.packed(slot.device["frames"].ptr, height, width)
        where = (self._items.ptr, slot.count, slot.device["result"].ptr, (width, height))

        def work() -> None:
            for _ in range(self._load.passes):
                self._kernels.crop_resize(frames, *where, stream=stream.native)

        stream.launch(work, STAGE)


def check(setting: Setting, journal: Journal) -> None:
    """Rows ``streamer/N-slots``: overlap, pattern, and frames per second."""
    load = SMALL if setting.small else LARGE
    with opened(setting) as device:
        stage = _stage(setting, device, load)
        for slots in SLOTS:
            name = f"streamer/{slots}-slots"
            with journal.guard(name):
                reports = [stream(device, stage, load, slots) for _ in range(1 if setting.small else 5)]
                shares = overlap(reports[-1].spans)
                problem = _judged(shares, slots)
                journal.judged(name, problem, **shares, **stream_facts(reports[-1]), on=str(device.name))
                if problem is None:
                    journal.timed(name + "/fps", "fps", [report.fps for report in reports], **_shape(load))


def _stage(setting: Setting, device: Any, load: Load) -> Any:
    if setting.host:
        return WaitingStage(load.passes)
    from dubstream.benchmarks.gpu_check.kernel_bench import PycudaBench

    return CopyingStage(device, PycudaBench(device).launchers, load)


def stream(device: Any, stage: Any, load: Load, slots: int) -> StreamReport:
    """One run with a pattern of its own in every batch; `CheckFailedError` when one comes out wrong."""
    shape = (*load.size, 3)
    noise = np.random.default_rng(5).integers(0, 256, (load.batch, *shape), dtype=np.uint8)
    buffers = [BufferSpec("frames", shape, "uint8", "input"), BufferSpec("result", shape, "uint8", "output")]
    wrong: list[int] = []
    short = max(load.batch - 1, 1)

    def fill(slot: Slot, number: int) -> None:
        slot.first = number * load.batch
        slot.count = short if number == load.batches - 1 else load.batch
        np.add(noise, np.uint8(number), out=slot.inputs["frames"])

    def drain(slot: Slot) -> None:
        number = slot.first // load.batch
        if not np.array_equal(slot.outputs["result"][: slot.count] - np.uint8(number), noise[: slot.count]):
            wrong.append(number)

    with ExitStack() as stack:
        streamer = stack.enter_context(Streamer(device, buffers, [stage], batch=load.batch, slots=slots))
        report = streamer.run(range(load.batches), fill, drain, trace=True)
    if wrong or report.batches != load.batches:
        raise CheckFailedError(
            f"{report.batches} of {load.batches} batches came out, batches {wrong[:8]} with other pixels"
        )
    return report


def overlap(spans: Sequence[Span], stages: Collection[str] = (STAGE,)) -> dict[str, float]:
    """Shares of inner batches whose upload ran beside the stages of an earlier batch, and whose download
    beside those of a later one."""
    last = max(span.batch for span in spans)
    work = [span for span in spans if span.name in stages]
    inner = [span for span in spans if 1 < span.batch < last - 1]
    uploads = [
        any(other.batch < span.batch and _beside(other, span) for other in work)
        for span in inner
        if span.name == "upload"
    ]
    downloads = [
        any(other.batch > span.batch and _beside(other, span) for other in work)
        for span in inner
        if span.name == "download"
    ]
    return {
        "upload_beside_compute": sum(uploads) / len(uploads),
        "download_beside_compute": sum(downloads) / len(downloads),
    }


def _beside(first: Span, second: Span) -> bool:
    return first.begin_s < second.end_s and second.begin_s < first.end_s


def _judged(shares: dict[str, float], slots: int) -> str | None:
    if slots == 1:  # the control: a trace that shows overlap here would show it everywhere
        return f"one slot overlaps with itself: {shares}" if any(shares.values()) else None
    if min(shares.values()) < LEAST_SHARE:
        return f"received {shares}, expected overlap in {LEAST_SHARE:.0%} of the batches"
    return None


def stream_facts(report: StreamReport) -> dict[str, Any]:
    """Where the time of a run went, for its row."""
    return {
        "wall_over_slowest": report.wall_over_slowest,
        "wall_target": WALL_TARGET,
        "within_target": report.wall_over_slowest <= WALL_TARGET,
        "slowest": report.slowest,
        "ms_per_frame": {name: round(ms, 4) for name, ms in report.ms_per_frame().items()},
    }


def _shape(load: Load) -> dict[str, Any]:
    return {"batch": load.batch, "shape": f"{load.size[0]}x{load.size[1]}", "passes": load.passes}
