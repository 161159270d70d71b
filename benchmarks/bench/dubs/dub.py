"""Whole dubs, timed stage by stage.

Every run starts from an empty cache of its own, so that no preparation or finished segment hides work,
and what it wrote is looked at before a figure of it is reported. With a finished preparation given, what is
timed is another language of a video: the second pass alone.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from dubstream.benchmarks.bench.dubs.stages import PassCost, StageCost, pass_costs, rest_s, stage_costs
from dubstream.benchmarks.bench.frame_cost.cost import FrameCost
from dubstream.engines.errors import InternalError, UsageError
from dubstream.engines.onnxruntime_engine import usable_cpus
from dubstream.runtime.artifacts import Artifacts
from dubstream.runtime.job.dub import dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.probe import probe_video
from dubstream.runtime.options.dub import DubOptions, DubRequest
from dubstream.runtime.progress import Progress, silent
from dubstream.runtime.timing import NetworkWork

Row = dict[str, Any]


@dataclass(frozen=True)
class DubRun:
    """One dub: what it said, and the SHA-256 of what it wrote."""

    summary: DubSummary
    sha256: str


@dataclass(frozen=True)
class DubBench:
    """Several dubs of the same files.

    Attributes:
        name: of the clip, in rows.
        runs: in their order.
        setting: options and clip, part of every row.
    """

    name: str
    runs: tuple[DubRun, ...]
    setting: Mapping[str, Any]

    @property
    def stages(self) -> list[StageCost]:
        """Every stage over all runs."""
        return stage_costs([run.summary.timing for run in self.runs])

    @property
    def passes(self) -> list[PassCost]:
        """Every pass over all runs."""
        return pass_costs([run.summary.timing for run in self.runs])

    @property
    def frames(self) -> int:
        """Output frames of all runs."""
        return sum(run.summary.frames for run in self.runs)

    @property
    def cost(self) -> FrameCost:
        """What the networks were given, as counted, over all runs."""
        total: dict[str, NetworkWork] = {}
        for run in self.runs:
            for name, work in run.summary.networks.items():
                items, calls = total.get(name, NetworkWork(0, 0))
                total[name] = NetworkWork(items + work.items, calls + work.calls)
        return FrameCost(self.frames, total)

    @property
    def same_bytes(self) -> bool:
        """Whether all runs wrote the same file."""
        return len({run.sha256 for run in self.runs}) == 1

    def rows(self, machine: Mapping[str, Any]) -> list[Row]:
        """A row per run, ``dub/NAME``, and one per stage over all runs, ``dub/NAME/STAGE``."""
        facts = {**self.setting, **machine}
        whole = [{**self._run_row(number), **facts} for number in range(len(self.runs))]
        stages = self.stages
        busy = sum(one.busy_s for one in stages) or 1.0
        return whole + [{**self._stage_row(stage, busy), **facts} for stage in stages]

    def _run_row(self, number: int) -> Row:
        run = self.runs[number]
        plain = run.summary.as_json()
        # The path says something about the machine and nothing about the dub.
        del plain["output"]
        plain["computed_by"] = plain.pop("backend")
        passes = pass_costs([run.summary.timing])
        return {
            "stage": f"dub/{self.name}", "n": 1, "run": number, **plain,
            "wall_over_slowest": {one.part: finite(one.wall_over_slowest) for one in passes},
            "slowest": {one.part: one.slowest for one in passes},
            "resources_s": {one.part: dict(one.resources_s) for one in passes},
            "wait_s": {one.part: dict(one.waits_s) for one in passes},
            "rest_s": rest_s(run.summary.timing, run.summary.wall_s),
            "cost": FrameCost(run.summary.frames, run.summary.networks).as_json(),
            "sha256": run.sha256,
        }  # fmt: skip

    def _stage_row(self, stage: StageCost, whole_s: float) -> Row:
        row: Row = {
            "stage": f"dub/{self.name}/{stage.stage}",
            "unit": "ms",
            "n": len(stage.batches_s),
            **{name: round(figure, 4) for name, figure in stage.percentiles_ms().items()},
            "ms_per_frame": round(1e3 * stage.busy_s / max(self.frames, 1), 4),
            "share": round(stage.busy_s / whole_s, 6),
            "busy_s": stage.busy_s,
            "frames": stage.frames,
            "runs": len(self.runs),
        }
        if stage.queue_s:
            row["queue_s"] = sum(stage.queue_s)
        if stage.copied_bytes is not None:
            row["bytes"] = stage.copied_bytes
        return row


def bench_dub(
    video: Path,
    audio: Path,
    networks: Artifacts,
    options: DubOptions,
    *,
    repeats: int = 1,
    name: str | None = None,
    plans: Path | None = None,
    plans_key: Path | None = None,
    prepared: Path | None = None,
    before_each: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> DubBench:
    """Dub the same files several times, each time from nothing.

    Args:
        video, audio: input files.
        networks: verified artifacts of all networks.
        options: of the dub; spans are kept whatever `trace` says.
        repeats: dubs, at least 1.
        name: of the clip in rows; without it the video file's name without its ending.
        plans, plans_key: as in `DubRequest`; plans that are missing are built before anything is timed
            as a stage, but within the first run's wall time.
        prepared: a finished preparation of the video, as in `DubRequest`; None to prepare in every run.
        before_each: called before every run, and once more behind the last.
        progress: told about the stages.

    Raises:
        UsageError: `repeats` below 1, or a name that cannot be part of a row's.
        InternalError: a dub that wrote another number of frames than it says, or whose sound and
            picture are further apart than a frame: nothing is worth timing then.
        DubError: what the dub raises.
    """
    label = video.stem if name is None else name
    if repeats < 1 or not label or "/" in label:
        raise UsageError(
            f"received --repeats {repeats} and --name '{label}', expected at least 1 and a name without '/'"
        )
    traced = replace(options, trace=True)
    info = probe_video(video, options.limits, allow_truncated=options.allow_truncated)
    runs = []
    for _ in range(repeats):
        before_each()
        with tempfile.TemporaryDirectory(prefix="dubstream-bench-") as folder:
            home = Path(folder)
            output = home / "dubbed.mp4"
            request = DubRequest(video, audio, output, networks, home, traced, plans, plans_key, prepared)
            runs.append(_run(request, progress))
    before_each()
    setting = {
        "width": info.width,
        "height": info.height,
        **_stream_facts(options),
        "prepared": prepared is not None,
    }
    return DubBench(label, tuple(runs), setting)


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


def check_written(summary: DubSummary, path: Path, options: DubOptions) -> None:
    """Raise `InternalError` unless the file holds what the summary says."""
    written = probe_video(path, options.limits).frame_count
    if written != summary.frames:
        raise InternalError(f"the dub says it wrote {summary.frames} frames, the file holds {written}")
    frame_s = float(1 / Fraction(summary.rate))
    if not summary.av_gap_s < frame_s:
        raise InternalError(
            f"sound and picture of the dub end {summary.av_gap_s:.3f} s apart, "
            f"expected less than a frame ({frame_s:.3f} s)"
        )


def _run(request: DubRequest, progress: Progress) -> DubRun:
    summary = dub(request, progress)
    check_written(summary, request.output, request.options)
    return DubRun(summary, hashlib.sha256(request.output.read_bytes()).hexdigest())


def _stream_facts(options: DubOptions) -> Row:
    facts = asdict(options.stream)
    facts["threads"] = options.stream.threads or usable_cpus()
    backend = options.backend
    return {
        **facts, "backend": backend.name, "precision": backend.precision, "preset": options.encode.preset,
        **_network_facts(options),
    }  # fmt: skip


def _network_facts(options: DubOptions) -> Row:
    """What decides which networks run, and how often."""
    return {
        "faces": options.face.finder,
        "detect_every": options.face.detect_every,
        "mask": options.finish.mask,
        "restore": options.finish.restore,
        "emotion": options.emotion.name,
    }


STANDARD: Mapping[str, Any] = {**_network_facts(DubOptions()), "prepared": False}
"""The part of a setting that decides which networks run, where no option says otherwise."""
