"""A verification's result as one HTML page: tables, pictures and their differences, error by depth."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

from dubstream.engines.contract import NetworkSpec, TensorSpec
from dubstream.engines.page import Cell, Figure, Part, Section, Table, Verdict, check_page, write_page
from dubstream.export.fidelity import Array
from dubstream.export.half_check import growth
from dubstream.export.half_graph import half_tensors
from dubstream.export.verify.chain import NetworkChain
from dubstream.export.verify.inputs import ends_of, is_picture
from dubstream.export.verify.links import FP32, ROOT, Link, find_artifact
from dubstream.export.verify.result import ChainReport, LinkResult
from dubstream.export.verify.show import COLUMNS, cells

_log = logging.getLogger("dubstream.verify")
WHITE = 255.0
_STEPS = (1, 2, 5)
_ROWS = ("link", "against", "case", "output", "max abs", "mean abs", "relative L2", "cosine", "PSNR", "SSIM",
         "NaN", "Inf", "share", "judged by", "verdict")  # fmt: skip


class ReportPage:
    """Collects what a page shows while the chains are in memory, and writes it at the end.

    Args:
        path: the file.

    Raises:
        UsageError: it could not be written: no such folder, or what draws it is not installed.
    """

    def __init__(self, path: Path) -> None:
        check_page(path)
        self._path = path
        self._figures: dict[str, list[Part]] = {}

    def add(self, chain: NetworkChain, results: Sequence[LinkResult]) -> None:
        """Take the pictures of one network's finished chain."""
        links = {result.link for result in results if result.verdict != "not run"}
        ran = [link for link in chain.settings.links if link.name in links]
        parts: list[Part] = []
        for precision in dict.fromkeys(link.precision for link in ran):
            last = [link for link in ran if link.precision == precision][-1]
            parts += _pictures(chain, last)
            if precision != FP32:
                parts += _depth(chain, precision)
        self._figures[chain.recipe.spec.name] = parts

    def write(self, report: ChainReport) -> None:
        """Write the page. Raises StorageError."""
        networks = list(dict.fromkeys(link.network for link in report.links))
        sections = [Section("Links", [_overview(report)], _verdict(report.holds))]
        for name in networks:
            links = [link for link in report.links if link.network == name]
            failed = any(link.verdict == "failed" for link in links)
            parts = [*_tables(links), *self._figures.get(name, [])]
            sections.append(Section(name, parts, _verdict(not failed)))
        count = len(report.failures)
        lead = "Every link that was run holds." if report.holds else f"{count} findings: do not ship this."
        write_page(self._path, "dubstream verify", sections, report.facts, lead=lead)


def _overview(report: ChainReport) -> Table:
    rows: list[list[Cell]] = [[*cells(link)[:-1], Verdict(link.verdict)] for link in report.links]
    return Table(COLUMNS, rows, "The worst case of every link; what was not run proves nothing.")


def _tables(links: Sequence[LinkResult]) -> Iterator[Part]:
    rows = [
        (
            link.link, link.against, row.case, row.output, row.max_abs, row.mean_abs, row.relative_l2,
            f"{row.cosine:.9f}", row.psnr, row.ssim, _counts(row.nan), _counts(row.inf),
            f"{row.share:.1%}", row.rule, _verdict(bool(row)),
        )
        for link in links
        for row in link.rows
    ]  # fmt: skip
    yield Table(_ROWS, rows, "NaN and Inf: in the other link, in this one. PSNR in decibels.")
    for link in links:
        if link.verdict == "not run":
            yield f"{link.link} was not run: {link.reason}."
        for explanation in (link.fault, link.proposal):
            if explanation is not None:
                yield f"{link.link} against {link.against}: {explanation}."
    reasons = {link.reason for link in links if link.verdict != "not run"}
    yield from (f"Tolerances: {reason}." for reason in sorted(reasons))


def _pictures(chain: NetworkChain, link: Link) -> Iterator[Figure]:
    """Reference, output and amplified difference of every picture, on the most real probe there is."""
    domain = chain.domain_of(link)
    index = max(range(len(domain.probes)), key=lambda at: domain.probes[at].kind == "real")
    probe = domain.probes[index]
    want, got = domain.outputs(ROOT.name)[index], domain.outputs(link.name)[index]
    for tensor in domain.spec.outputs:
        if is_picture(tensor):
            a, b = (shown_levels(values[tensor.name], tensor, domain.spec) for values in (want, got))
            factor = _factor(float(np.abs(a - b).max(initial=0.0)))
            label = f"{link.name} {tensor.name} on {probe.kind} inputs"
            yield Figure(_png(a), f"{label}: {ROOT.name}", True)
            yield Figure(_png(b), f"{label}: {link.name}", True)
            yield Figure(_png(np.abs(a - b) * factor), f"{label}: difference, {factor} times", True)


def _depth(chain: NetworkChain, precision: str) -> Iterator[Figure]:
    """Relative error of every half-precision tensor along the graph, rounding against float32."""
    link = Link(precision, "onnx")
    spec, domain = chain.spec_of(link), chain.domain_of(link)
    model = onnx.load(str(find_artifact(chain.settings.folder_of(spec), spec, precision).path))
    real = [probe for probe in domain.probes if probe.kind == "real"] or domain.probes
    errors = {
        tensor.name: error
        for tensor, error in growth(model, real[0].first_item().inputs, chain.settings.threads)
    }
    along = [errors[tensor.name] for tensor in half_tensors(model) if tensor.name in errors]
    title = f"{chain.recipe.spec.name} {precision}: relative error by depth, rounding against float32"
    yield Figure(_plot(along, title), title)


def _plot(errors: Sequence[float], title: str) -> bytes:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 3), layout="constrained")
    axes = canvas.add_subplot()
    axes.semilogy(range(len(errors)), np.maximum(errors, 1e-9), ".", markersize=3)
    axes.set(xlabel="tensor, in the order of computation", ylabel="relative L2 error", title=title)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    canvas.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def shown_levels(values: Array, tensor: TensorSpec, spec: NetworkSpec) -> Array:
    """The first item's picture as float BGR levels (H, W, 3) in 0 to 255; NaN is black.

    A picture without a range is shown in that of the network's first picture, as the pipeline clamps it.
    """
    pictures = (one for one in (tensor, *spec.inputs) if is_picture(one) and one.low is not None)
    low, high = ends_of(next(pictures, tensor))
    first = np.nan_to_num(values[0].astype(np.float64), nan=low, posinf=high, neginf=low)
    picture = first if tensor.shape[-1] == 3 else first[:3].transpose(1, 2, 0)
    if "RGB" in tensor.meaning:
        picture = picture[:, :, ::-1]
    return np.asarray((picture - low) / (high - low) * WHITE)


def _factor(largest: float) -> int:
    """The largest of 1, 2, 5, 10, ... that keeps a difference of `largest` levels visible, not clipped."""
    steps = [step * 10**power for power in range(7) for step in _STEPS]
    return max((step for step in steps if step * largest <= WHITE), default=1)


def _png(levels: Array) -> bytes:
    import cv2

    done, content = cv2.imencode(".png", np.clip(np.rint(levels), 0, WHITE).astype(np.uint8))
    assert done
    return bytes(content)


def _verdict(holds: bool) -> Verdict:
    return Verdict.PASSED if holds else Verdict.FAILED


def _counts(pair: tuple[int, int]) -> str:
    return f"{pair[0]}, {pair[1]}"
