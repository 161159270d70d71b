"""What `dubstream bench` prints for people about networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dubstream.benchmarks.bench.method.results import FAILED, NOT_RUN, PASSED
from dubstream.benchmarks.bench.method.statistics import MIN_SAMPLES
from dubstream.benchmarks.bench.networks.by_op import Group, NodeTime, by_module, by_node, by_operator
from dubstream.runtime.cli.show import table
from dubstream.runtime.options.backend import HOST

_SPEED = ("network", "batch", "n", "p50 ms", "p95", "p99", "device", "items/s")
_COST = ("network", "batch", "GMAC", "GFLOP/s", "of peak", "of roof", "open", "first", "MiB")


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Timed rows, ratios, peaks, and what was not timed."""
    timed = [row for row in rows if row["status"] == PASSED and row["unit"] == "ms"]
    table("networks: wall time, and the device's own", _SPEED, [_speed(row) for row in timed])
    table(
        "cost against peak and roofline; first call in a process of its own, ms",
        _COST,
        [_cost(row) for row in timed],
    )
    ratios = [
        (_label(row), str(row["batch"]), _short(other),
         f"{ratio['estimate']:.2f}", _interval(row, ratio))
        for row in timed
        for other, ratio in row.get("over", {}).items()
    ]  # fmt: skip
    if ratios:
        columns = ("network", "batch", "against", "times faster", "95 % interval")
        table("ratios of paired samples", columns, ratios)
    peaks = [row for row in rows if row["status"] == PASSED and row["stage"].startswith("peak/")]
    if peaks:
        lines = [
            (row["stage"], str(row["n"]),
             f"{row['median']:.1f} {row['unit']}", f"{row['low']:.1f}-{row['high']:.1f}")
            for row in peaks
        ]  # fmt: skip
        table("measured in the same rounds", ("peak", "n", "median", "5-95 %"), lines)
    rest = [row for row in rows if row["status"] in (FAILED, NOT_RUN)]
    if rest:
        lines_ = [(row["stage"], str(row.get("batch", "")), row["status"], row["reason"]) for row in rest]
        table("not timed", ("what", "batch", "status", "why"), lines_)


def _speed(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _label(row),
        str(row["batch"]),
        str(row["n"]),
        *(f"{row[name]:.1f}" for name in ("p50", "p95", "p99")),
        _optional(row, "device_ms", ".1f"),
        f"{row['items_s']:.2f}",
    )


def _cost(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _label(row),
        str(row["batch"]),
        f"{row['gmacs']:.1f}",
        f"{row['gflops']:.0f}",
        *(_optional(row, name, ".0%") for name in ("of_peak", "of_roofline")),
        *(_optional(row, name, ".0f") for name in ("open_ms", "first_run_ms", "memory_mib")),
    )


def _interval(row: Mapping[str, Any], ratio: Mapping[str, float]) -> str:
    return "too few rounds" if row["n"] < MIN_SAMPLES else f"{ratio['low']:.2f}-{ratio['high']:.2f}"


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['network']} {_short(row['stage'].partition('/')[2])}"


def _short(variant: str) -> str:
    """``engine/onnxruntime/fp32`` without the backend everybody has."""
    return " ".join(part for part in variant.split("/") if part != HOST)


def _optional(row: Mapping[str, Any], name: str, form: str) -> str:
    return format(row[name], form) if name in row else ""


def show_profile(title: str, nodes: Sequence[NodeTime], peak: float, *, limit: int, depth: int) -> None:
    """Where time goes inside a network, `limit` lines a table.

    Args:
        title: the network.
        nodes: of its profile.
        peak: GFLOP/s the machine reached beside it.
        limit: lines per table.
        depth: names of a module's path that are kept.
    """
    columns = ("", "nodes", "ms", "share", "GMAC", "GFLOP/s", f"of {peak:.0f}", "GB/s")
    for what, groups in (
        ("operator", by_operator(nodes)),
        ("module", by_module(nodes, depth)),
        ("node", by_node(nodes)),
    ):
        table(f"{title}: by {what}", columns, [_group(group, peak) for group in groups[:limit]])


def profile_json(nodes: Sequence[NodeTime]) -> dict[str, list[dict[str, Any]]]:
    """The same for programs, all lines."""
    return {
        "operators": [group.as_json() for group in by_operator(nodes)],
        "modules": [group.as_json() for group in by_module(nodes)],
        "nodes": [group.as_json() for group in by_node(nodes)],
    }


def _group(group: Group, peak: float) -> tuple[str, ...]:
    return (
        group.name,
        str(group.nodes),
        f"{group.ms:.2f}",
        f"{group.share:.1%}",
        f"{group.gmacs:.3f}" if group.gmacs else "",
        *(("", "") if group.gflops is None else (f"{group.gflops:.1f}", f"{group.gflops / peak:.0%}")),
        f"{group.gbytes_s:.1f}",
    )
