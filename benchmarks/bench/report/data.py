"""Rows of measurements as what they are about: networks, dubs, fidelity, peaks.

Rows are written by several commands and outlive their versions, so a row is read by what is in it, and
one that says nothing known is counted, not guessed at.

| rows of | stage | read by |
|---|---|---|
| a network | ``NET/VARIANT`` or ``networks/NET/VARIANT`` | unit (``ms`` a call, or ``fps``), ``batch`` |
| a dub | ``dub/CLIP`` | ``busy_s``, ``frames`` |
| a stage of a dub | ``dub/CLIP/STAGE`` | ``ms_per_frame`` |
| fidelity | ``fidelity/NET/PRECISION`` | ``max_abs``, ``tolerance_share`` |
| a peak of the machine | ``peak/WHAT`` | unit ``GFLOP/s`` or ``GB/s`` |
| something not measured | any | ``status``, ``reason`` |
| a comparison with a base | none | ``against``, ``outcome``, ``slowdown`` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dubstream.benchmarks.bench.report.points import (
    Comparison,
    Dub,
    FidelityPoint,
    Findings,
    Machine,
    NetworkPoint,
    NotMeasured,
    PeakPoint,
    Point,
    Row,
    StagePoint,
)
from dubstream.engines.specs import SPECS


def find(rows: Iterable[Row]) -> Findings:
    """Read rows; what is unknown, incomplete or of a dry run is counted in `Findings.skipped`."""
    findings = Findings()
    stages: dict[tuple[Machine | None, str], list[StagePoint]] = {}
    dubs: dict[tuple[Machine | None, str], Dub] = {}
    for row in rows:
        problem = _problem(row)
        if problem is not None:
            findings.skipped[problem] += 1
            continue
        try:
            point = _READERS[_kind(row)](row)
            placeless = isinstance(point, FidelityPoint | NotMeasured | Comparison)
            machine = None if placeless else machine_of(row)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            findings.skipped["fields missing or of another type"] += 1
            continue
        if isinstance(point, NotMeasured):
            findings.not_measured.append(point)
        elif isinstance(point, Comparison):
            findings.comparisons.append(point)
        elif isinstance(point, StagePoint):
            stages.setdefault((machine, _clip(row)), []).append(point)
        elif isinstance(point, Dub):
            # Stages that follow belong to this dub; those of an earlier one are out of date.
            stages.pop((machine, point.clip), None)
            dubs[machine, point.clip] = point
        else:
            findings.points[machine, _case(point)] = point
    for (machine, clip), dub in dubs.items():
        measured = sorted(stages.pop((machine, clip), ()), key=lambda stage: -stage.ms_per_frame)
        whole = Dub(
            dub.clip, dub.frames, dub.fps, dub.wall_over_slowest, tuple(measured) or dub.stages, dub.row
        )
        findings.points[machine, ("dub", clip)] = whole
    orphans = sum(len(points) for points in stages.values())
    if orphans:
        findings.skipped["a stage without its dub"] += orphans
    return findings


def machine_of(row: Row) -> Machine:
    """The machine a row was measured on; KeyError where it does not say."""
    gpu = row.get("gpu")
    name = gpu.get("name") if isinstance(gpu, Mapping) else gpu
    return Machine(str(row["cpu"]), int(row["cores"]), None if name is None else str(name))


def _problem(row: Row) -> str | None:
    if "against" not in row and not isinstance(row.get("stage"), str):
        return "no stage"
    if row.get("dry_run"):
        return "dry run"
    return None if _kind(row) in _READERS else "unknown"


def _kind(row: Row) -> str:
    if "against" in row:
        return "against"
    if row.get("status", "passed") != "passed":
        return "absent"
    parts = str(row["stage"]).split("/")
    if parts[0] == "networks":
        parts = parts[1:]
    if parts[0] in SPECS and len(parts) > 1 and "batch" in row:
        return "network"
    if parts[0] == "dub" and "busy_s" in row and isinstance(row["busy_s"], Mapping):
        return "dub"
    if parts[0] == "dub" and "ms_per_frame" in row:
        return "stage"
    return parts[0] if parts[0] in ("fidelity", "peak") else "unknown"


def _network(row: Row) -> NetworkPoint:
    name, variant = str(row["stage"]).removeprefix("networks/").split("/", 1)
    precision = str(row.get("precision", ""))
    batch = int(row["batch"])
    median, low, high = _figures(row)
    if row["unit"] == "fps":
        median, low, high = (1e3 * batch / rate for rate in (median, high, low))
    elif row["unit"] != "ms":
        raise ValueError(f"unit {row['unit']}")
    gflops = row.get("gflops")
    if gflops is None:
        gflops = 2 * SPECS[name].gmacs * batch / (1e-3 * median)
    return NetworkPoint(
        network=name,
        variant=variant.removesuffix(f"/{precision}"),
        precision=precision,
        batch=batch,
        threads=row.get("threads"),
        n=int(row["n"]),
        ms=median,
        low_ms=low,
        high_ms=high,
        gflops=float(gflops),
        row=row,
    )


def _figures(row: Row) -> tuple[float, float, float]:
    """Median, low and high. Rows name them so, or by percentile."""
    median = float(row["median"] if "median" in row else row["p50"])
    low, high = (_first(row, names, median) for names in (("low", "p5"), ("high", "p95")))
    if not 0 < low <= median <= high:
        raise ValueError("figures out of order")
    return median, low, high


def _first(row: Row, names: tuple[str, ...], otherwise: float) -> float:
    return next((float(row[name]) for name in names if row.get(name) is not None), otherwise)


def _dub(row: Row) -> Dub:
    frames = int(row["frames"])
    busy = {str(stage): float(seconds) for stage, seconds in row["busy_s"].items()}
    whole = sum(busy.values())
    ordered = sorted(busy.items(), key=lambda item: -item[1])
    stages = [StagePoint(stage, 1e3 * seconds / frames, seconds / whole) for stage, seconds in ordered]
    clip = str(row["stage"]).partition("/")[2]
    return Dub(clip, frames, float(row["fps"]), dict(row["wall_over_slowest"]), tuple(stages), row)


def _stage(row: Row) -> StagePoint:
    figures = {name: float(row[name]) for name in ("p50", "p95", "p99") if name in row}
    stage = str(row["stage"]).split("/", 2)[2]
    return StagePoint(stage, float(row["ms_per_frame"]), float(row["share"]), figures)


def _fidelity(row: Row) -> FidelityPoint:
    _, network, precision = str(row["stage"]).split("/")
    psnr = row["psnr"]
    return FidelityPoint(
        network=network,
        precision=precision,
        cases=int(row["n"]),
        max_abs=float(row["max_abs"]),
        tolerance_share=float(row["tolerance_share"]),
        cosine=float(row["cosine"]),
        relative_l2=float(row["relative_l2"]),
        psnr=None if psnr is None else float(psnr),
        row=row,
    )


def _peak(row: Row) -> PeakPoint:
    name = str(row["stage"]).partition("/")[2]
    return PeakPoint(name, str(row["unit"]), _figures(row)[0], int(row["n"]), row)


def _absent(row: Row) -> NotMeasured:
    batch = str(row.get("batch", ""))
    return NotMeasured(str(row["stage"]), batch, row["status"] == "failed", str(row["reason"]))


def _against(row: Row) -> Comparison:
    found = row["slowdown"]
    slowdown = (
        None if found is None else (float(found["estimate"]), float(found["low"]), float(found["high"]))
    )
    return Comparison(str(row["against"]), str(row["outcome"]), slowdown)


def _clip(row: Row) -> str:
    return str(row["stage"]).split("/", 2)[1]


def _case(point: NetworkPoint | FidelityPoint | PeakPoint) -> tuple[Any, ...]:
    if isinstance(point, NetworkPoint):
        return ("network", point.network, point.variant, point.precision, point.batch, point.threads)
    if isinstance(point, FidelityPoint):
        return ("fidelity", point.network, point.precision)
    return ("peak", point.name, point.row.get("threads"))


_READERS: dict[str, Callable[[Row], Point | StagePoint | NotMeasured | Comparison]] = {
    "network": _network,
    "dub": _dub,
    "stage": _stage,
    "fidelity": _fidelity,
    "peak": _peak,
    "absent": _absent,
    "against": _against,
}
