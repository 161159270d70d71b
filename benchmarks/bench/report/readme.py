"""The README's tables of measurements, from the committed rows.

`python -m dubstream.benchmarks.bench.report.readme` in the repository's root rewrites what stands between
``<!-- rows:NAME -->`` and ``<!-- /rows:NAME -->`` from ``benchmarks/results/*.jsonl``; with ``--check``
it only says whether that would change anything (exit 1). Text outside the marks is nobody's but ours.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dubstream.benchmarks.bench.frame_cost.cost import MODES, SteadyClip, mode_rows, steady_cost
from dubstream.benchmarks.bench.frame_cost.original import SIZES, original_cost
from dubstream.benchmarks.bench.method.row_files import exit_with, read_rows, write_text
from dubstream.benchmarks.bench.report.data import find
from dubstream.benchmarks.bench.report.points import (
    Dub,
    FidelityPoint,
    Findings,
    Machine,
    NetworkPoint,
    PeakPoint,
)
from dubstream.benchmarks.bench.report.report import Ratio, ratios
from dubstream.engines.errors import UsageError, VerificationError

NAMES = {
    "dnet": "D-Net",
    "lnet": "L-Net",
    "enet": "E-Net",
    "recon": "ReconNet",
    "s3fd": "S3FD",
    "retinaface": "RetinaFace",
    "fan4": "FAN-4",
    "gfpgan": "GFPGAN",
    "gpen": "GPEN",
    "parsenet": "ParseNet",
    "ganimation": "GANimation",
}
"""Of all networks, for people."""

TARGETS = {
    ("dnet", "eager"): 1.5,
    ("lnet", "eager"): 1.9,
    ("enet", "eager"): 1.6,
    ("lnet", "naive"): 6.0,
}
"""How many times faster than a baseline an artifact is to be on the CPU."""

UNSTEADY = 2.0
"""From this 95th over 5th percentile on, a median is called unsteady."""

_LEAST_SHARE = 0.001
_MARK = re.compile(r"(<!-- rows:([a-z]+) -->\n).*?(<!-- /rows:\2 -->)", re.DOTALL)


def rewritten(text: str, rows: Sequence[dict[str, Any]]) -> str:
    """A README with its marked blocks made anew.

    Raises:
        UsageError: no block, a block nobody knows, or a block for which there is no row.
    """
    findings = find(rows)

    def block(match: re.Match[str]) -> str:
        before, name, after = match.groups()
        if name not in BLOCKS:
            raise UsageError(f"README: received the block 'rows:{name}', expected one of {', '.join(BLOCKS)}")
        lines = list(BLOCKS[name](findings))[:-1]
        if not lines:
            raise UsageError(f"README: no rows for the block 'rows:{name}'")
        return f"{before}{chr(10).join(lines)}\n{after}"

    found, count = _MARK.subn(block, text)
    if not count:
        raise UsageError(
            "README: expected blocks between <!-- rows:NAME --> and <!-- /rows:NAME -->, found none"
        )
    return found


def networks_block(findings: Findings) -> Iterator[str]:
    """Every network against its baselines, the machine under it."""
    for machine in findings.machines:
        points = findings.of(machine, NetworkPoint)
        compared = sorted(ratios(points), key=_place)
        if compared:
            yield from _table(
                ("network", "batch", "against", "n", "baseline", "ours", "ratio", "target"),
                [_ratio_cells(ratio) for ratio in compared],
            )
            yield ""
            yield from _under(machine, [point.row for point in points], findings.of(machine, PeakPoint))
            yield ""


def fidelity_block(findings: Findings) -> Iterator[str]:
    """Every artifact against PyTorch."""
    points = findings.all(FidelityPoint)
    cells = [
        (
            NAMES[point.network],
            point.precision,
            str(point.cases),
            f"{point.max_abs:.2g}",
            f"{100 * point.tolerance_share:.0f} %",
            f"{1 - point.cosine:.1e}",
            "no noise" if point.psnr is None else f"{point.psnr:.1f} dB",
        )
        for point in points
    ]
    if cells:
        columns = (
            "artifact",
            "precision",
            "cases",
            "largest error",
            "of its tolerance",
            "1 - cosine",
            "PSNR",
        )
        yield from _table(columns, cells)
        yield ""
        yield f"{_versions([point.row for point in points])}. Weights: {_listed(points, 'source')}."
        yield ""


def dub_block(findings: Findings) -> Iterator[str]:
    """Whole dubs, and where the time of the longest one went."""
    for machine in findings.machines:
        dubs = findings.of(machine, Dub)
        if not dubs:
            continue
        yield from _table(
            ("clip", "frames", "frames/s", "wall over slowest resource", "audio - video", "peak memory"),
            [_dub_cells(dub) for dub in dubs],
        )
        longest = max(dubs, key=lambda dub: dub.frames)
        yield ""
        yield from _table((f"stage of {longest.clip}", "ms per frame", "share"), list(_stage_cells(longest)))
        yield ""
        yield from _under(machine, [dub.row for dub in dubs], [])
        yield ""


def cost_block(_: Findings) -> Iterator[str]:
    """What an output frame costs in every mode; counted on paper, so from no row."""
    originals = [original_cost(*size) for size in SIZES]
    costs = [(mode, steady_cost(SteadyClip(), mode.options, prepared=mode.prepared)) for mode in MODES]
    ratios = [f"original {one.size} / ours" for one in originals]
    rows = list(mode_rows(costs, originals))
    yield from _table(("mode", "calls per frame", "GMAC per frame", "target", *ratios), rows)
    yield ""


BLOCKS: dict[str, Callable[[Findings], Iterator[str]]] = {
    "networks": networks_block,
    "fidelity": fidelity_block,
    "dub": dub_block,
    "cost": cost_block,
}


def _place(ratio: Ratio) -> tuple[Any, ...]:
    return ratio.ours.batch, list(NAMES).index(ratio.ours.network), ratio.baseline.variant, ratio.ours.label


def _ratio_cells(ratio: Ratio) -> tuple[str, ...]:
    ours, baseline = ratio.ours, ratio.baseline
    value = f"{ratio.value:.2f}"
    if ratio.interval is not None:
        value += f" ({ratio.interval[0]:.2f}-{ratio.interval[1]:.2f})"
    if max(ours.high_ms / ours.low_ms, baseline.high_ms / baseline.low_ms) >= UNSTEADY:
        value += ", unsteady"
    target = TARGETS.get((ours.network, baseline.variant))
    verdict = "" if target is None else f"{target:g}" if ratio.value >= target else f"{target:g}, missed"
    samples = str(ours.n) if ours.n == baseline.n else f"{baseline.n}, {ours.n}"
    return (
        NAMES[ours.network],
        str(ours.batch),
        baseline.label,
        samples,
        _milliseconds(baseline),
        _milliseconds(ours),
        value,
        verdict,
    )


def _milliseconds(point: NetworkPoint) -> str:
    digits = 0 if point.low_ms >= 10 else 2
    low, median, high = (f"{figure:.{digits}f}" for figure in (point.low_ms, point.ms, point.high_ms))
    return f"{median} ms ({low}-{high})"


def _dub_cells(dub: Dub) -> tuple[str, ...]:
    passes = ", ".join(
        f"{part} {ratio:.3f}" for part, ratio in dub.wall_over_slowest.items() if ratio is not None
    )
    gap_ms = 1e3 * float(dub.row["av_gap_s"])
    memory = f"{dub.row['peak_rss_mib']:.0f} MiB"
    return dub.clip, str(dub.frames), f"{dub.fps:.2f}", passes, f"{gap_ms:.1f} ms", memory


def _stage_cells(dub: Dub) -> Iterator[tuple[str, ...]]:
    shown = [stage for stage in dub.stages if stage.share >= _LEAST_SHARE]
    for stage in shown:
        yield stage.stage, _figure(stage.ms_per_frame), f"{100 * stage.share:.1f} %"
    rest = [stage for stage in dub.stages if stage not in shown]
    if rest:
        total, share = sum(stage.ms_per_frame for stage in rest), sum(stage.share for stage in rest)
        yield f"{len(rest)} others", _figure(total), f"{100 * share:.1f} %"


def _figure(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"


def _under(machine: Machine, rows: Sequence[Any], peaks: Sequence[PeakPoint]) -> Iterator[str]:
    """The machine a table was measured on, and with what."""
    threads = sorted({str(row["threads"]) for row in rows if row.get("threads") is not None})
    facts = [machine.title, *([f"{' or '.join(threads)} threads"] if threads else []), _versions(rows)]
    commits = sorted({str(row["commit"]) for row in rows if row.get("commit")})
    yield "; ".join([*facts, f"commit {', '.join(commits)}"]) + "."
    for peak in peaks:
        yield f"The machine's measured peak, {peak.name}: {peak.median:.0f} {peak.unit} (n = {peak.n})."


def _versions(rows: Sequence[Any]) -> str:
    found: dict[str, list[str]] = {}
    for row in rows:
        for name, number in (row.get("versions") or {}).items():
            plain = str(number).partition("+")[0]
            if name in ("torch", "onnxruntime", "tensorrt") and plain not in found.setdefault(name, []):
                found[name].append(plain)
    return ", ".join(f"{name} {' and '.join(numbers)}" for name, numbers in found.items())


def _listed(points: Sequence[FidelityPoint], key: str) -> str:
    return ", ".join(sorted({str(point.row.get(key)) for point in points}))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module.

    Raises:
        VerificationError: with ``--check``, when the README is not what the rows say.
    """
    parser = argparse.ArgumentParser(description="Write the README's tables from the committed rows.")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the repository; the current folder without"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when something would change"
    )
    chosen = parser.parse_args(arguments)
    readme = chosen.root / "README.md"
    if not readme.is_file():
        raise UsageError(f"expected a README.md in {chosen.root.absolute()}, found none")
    before = readme.read_text(encoding="utf-8")
    after = rewritten(before, read_rows(sorted((chosen.root / "benchmarks" / "results").glob("*.jsonl"))))
    if chosen.check and after != before:
        raise VerificationError(
            "README.md is not what benchmarks/results says",
            hint="python -m dubstream.benchmarks.bench.report.readme",
        )
    if after != before:
        write_text(readme, after)


if __name__ == "__main__":
    exit_with(main)
