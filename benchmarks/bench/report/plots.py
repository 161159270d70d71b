"""Plots of what rows say. Every series has a colour and a marker of its own; nothing is measured here."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dubstream.benchmarks.bench.report.points import Dub, NetworkPoint, PeakPoint
from dubstream.engines.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]

BASELINES = ("eager", "naive", "compile")
"""Variants that are not ours."""

# Okabe and Ito's eight colours, which readers with any colour vision can tell apart, without yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_BASELINE = "#999999"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SMALL_SHARE = 0.005


def require_matplotlib() -> None:
    """Raise `UsageError` where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "plots were asked for, and matplotlib is not installed here",
            hint='pip install "dubstream[report]"',
        ) from error


def render(figure: Figure, kind: Format) -> bytes:
    """A figure as the bytes of a PNG or SVG file; equal figures give equal bytes."""
    import matplotlib

    buffer = io.BytesIO()
    # An SVG's element ids are random, and its date the present, unless told otherwise.
    with matplotlib.rc_context({"svg.hashsalt": "dubstream", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def is_ours(point: NetworkPoint) -> bool:
    """Whether a variant is an engine of this project, driven as the dub drives it."""
    kinds = point.variant.split("/")
    return kinds[0] not in BASELINES and "driver" not in kinds


def plot_latency(points: Sequence[NetworkPoint], title: str) -> Figure:
    """Milliseconds a call by batch: median, 5th to 95th percentile as bars. One panel a network."""

    def draw(axes: Any, series: list[NetworkPoint], style: dict[str, Any]) -> None:
        below = [point.ms - point.low_ms for point in series]
        above = [point.high_ms - point.ms for point in series]
        places, medians = [point.batch for point in series], [point.ms for point in series]
        axes.errorbar(places, medians, yerr=[below, above], capsize=3, **style)

    return _by_batch(points, title, "ms a call", draw)


def plot_throughput(points: Sequence[NetworkPoint], title: str) -> Figure:
    """Items per second by batch. One panel a network."""

    def draw(axes: Any, series: list[NetworkPoint], style: dict[str, Any]) -> None:
        axes.plot([point.batch for point in series], [point.items_per_s for point in series], **style)

    return _by_batch(points, title, "items/s", draw)


def plot_flops(points: Sequence[NetworkPoint], peaks: Sequence[PeakPoint], title: str) -> Figure:
    """Achieved GFLOP/s of every variant and batch, baselines in grey; measured peaks as lines."""
    figure, axes = _bars(
        [f"{point.network} {point.label}, batch {point.batch}" for point in points],
        [point.gflops for point in points],
        "GFLOP/s the network needs",
        title,
        "{:.0f}",
        [_COLOURS[0] if is_ours(point) else _BASELINE for point in points],
    )
    compute = [peak for peak in peaks if peak.unit == "GFLOP/s"]
    for colour, peak in zip(_COLOURS[1:], compute, strict=False):
        axes.axvline(peak.median, color=colour, linestyle="--", label=f"peak, {peak.name}: {peak.median:.0f}")
    if compute:
        figure.legend(loc="outside lower center", frameon=False)
    return figure


def plot_ratios(ratios: Sequence[tuple[str, float]], title: str) -> Figure:
    """How many times faster ours is than a baseline measured in the same run; 1 is as fast."""
    names, values = [name for name, _ in ratios], [ratio for _, ratio in ratios]
    figure, axes = _bars(names, values, "times as fast", title, "{:.2f}")
    axes.axvline(1.0, color="#000000", linewidth=1)
    return figure


def plot_shares(dub: Dub, title: str) -> Figure:
    """Milliseconds per output frame of every stage above half a per cent of the busy time."""
    shown = [stage for stage in dub.stages if stage.share >= _SMALL_SHARE]
    names = [f"{stage.stage}  {100 * stage.share:.1f} %" for stage in shown]
    return _bars(names, [stage.ms_per_frame for stage in shown], "ms per frame", title, "{:.1f}")[0]


_Draw = Callable[[Any, list[NetworkPoint], dict[str, Any]], None]


def _by_batch(points: Sequence[NetworkPoint], title: str, unit: str, draw: _Draw) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    networks = list(dict.fromkeys(point.network for point in points))
    labels = list(dict.fromkeys(point.label for point in points))
    batches = sorted({point.batch for point in points})
    figure = Figure(figsize=(3.2 * len(networks) + 0.6, 3.6), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        for place, label in enumerate(labels):
            series = [point for point in points if (point.network, point.label) == (network, label)]
            if series:
                series.sort(key=lambda point: point.batch)
                draw(axes, series, {"label": label, **_style(place)})
        axes.set_title(network)
        axes.set_xlabel("batch")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(batches)
        axes.set_xlim(min(batches) / 1.3, max(batches) * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(unit)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _style(place: int) -> dict[str, Any]:
    return {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}


def _bars(
    names: Sequence[str],
    values: Sequence[float],
    unit: str,
    title: str,
    text: str,
    colours: Sequence[str] | str = _COLOURS[0],
) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.32 * max(len(names), 1)), layout="constrained")
    axes = figure.subplots()
    places = range(len(names))
    bars = axes.barh(places, values, color=colours)
    axes.bar_label(bars, [text.format(value) for value in values], padding=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    axes.set_title(title)
    return figure, axes
