"""`dubstream bench cost`, and the table that `bench dub` prints of what really ran."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from dubstream.benchmarks.bench.frame_cost.cost import (
    MODES,
    FrameCost,
    Mode,
    SteadyClip,
    mode_rows,
    steady_cost,
)
from dubstream.benchmarks.bench.frame_cost.original import SIZES, OriginalCost, original_cost
from dubstream.engines.errors import UsageError
from dubstream.runtime.cli.show import table
from dubstream.runtime.emotion import parse_emotion
from dubstream.runtime.options.backend import TENSORRT, Backend
from dubstream.runtime.options.dub import FINDERS, DubOptions, FaceOptions, StreamOptions
from dubstream.runtime.options.finish import FinishOptions

_default = DubOptions()
_clip = SteadyClip()


def bench_cost_command(
    width: Annotated[int | None, typer.Option(help="Of a frame; 720p and 1080p without.")] = None,
    height: Annotated[int | None, typer.Option(help="Of a frame.")] = None,
    faces: Annotated[str | None, typer.Option(help=f"{', '.join(FINDERS)}.")] = None,
    mask: Annotated[str | None, typer.Option(help=f"{', '.join(FinishOptions.MASKS)}.")] = None,
    restore: Annotated[str | None, typer.Option(help=f"{', '.join(FinishOptions.RESTORERS)}.")] = None,
    emotion: Annotated[str | None, typer.Option(help="Of the upper face, as in dub.")] = None,
    prepared: Annotated[bool, typer.Option("--prepared", help="The first pass was done earlier.")] = False,
    detect_every: Annotated[
        int, typer.Option(help="Detect in every n-th frame, track between.")
    ] = _default.face.detect_every,
    steady_share: Annotated[
        float, typer.Option(help="Share of the frames in which tracking holds.")
    ] = _clip.steady_share,
    frames: Annotated[int, typer.Option(help="Of the clip.")] = _clip.frames,
    batch: Annotated[int, typer.Option(help="Frames per network call.")] = Backend(TENSORRT).batch,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """What an output frame costs on paper, in calls and multiply-accumulates; nothing runs.

    Without --faces, --mask, --restore, --emotion and --prepared: all modes. The cost does not depend on the
    frames' size, the original program's does.
    """
    clip, stream = SteadyClip(frames, steady_share=steady_share), StreamOptions(batch)
    originals = [original_cost(*size) for size in _sizes(width, height)]
    asked = {
        "--faces": faces, "--mask": mask, "--restore": restore, "--emotion": emotion,
        "--prepared": "" if prepared else None,
    }  # fmt: skip
    words = " ".join(f"{name} {value}".strip() for name, value in asked.items() if value is not None)
    chosen = DubOptions(
        face=FaceOptions(finder=_default.face.finder if faces is None else faces),
        finish=FinishOptions(
            _default.finish.mask if mask is None else mask,
            _default.finish.restore if restore is None else restore,
        ),
        emotion=_default.emotion if emotion is None else parse_emotion(emotion),
    )
    modes = [Mode(words, chosen, prepared)] if words else list(MODES)
    costs = [(mode, _cost(clip, mode, stream, detect_every)) for mode in modes]
    if as_json:
        print(json.dumps(_json(clip, costs, originals)))
    else:
        _show(costs, originals)


def ran_rows(cost: FrameCost) -> list[tuple[str, ...]]:
    """Rows of a table: a line per network, and all of them."""
    rows = [
        (name, str(cost.work[name].items), str(cost.work[name].calls), *_figures(cost, name))
        for name in cost.work
    ]
    items, calls = (sum(one[part] for one in cost.work.values()) for part in (0, 1))
    return [*rows, ("all", str(items), str(calls), *_figures(cost, None))]


def show_ran(cost: FrameCost) -> None:
    """Print what the networks of a dub were given, beside the original program."""
    table(
        "networks, as counted",
        ("network", "items", "calls", "calls/frame", "GMAC/frame"),
        [*ran_rows(cost), *(_original_cells(original_cost(*size)) for size in SIZES)],
    )


def _sizes(width: int | None, height: int | None) -> Sequence[tuple[int, int]]:
    if width is None and height is None:
        return SIZES
    if width is None or height is None:
        raise UsageError("received one of --width and --height, expected both or neither")
    return [(width, height)]


def _cost(clip: SteadyClip, mode: Mode, stream: StreamOptions, detect_every: int) -> FrameCost:
    face = replace(mode.options.face, detect_every=detect_every)
    options = replace(mode.options, face=face, stream=stream)
    return steady_cost(clip, options, prepared=mode.prepared)


def _json(
    clip: SteadyClip, costs: Sequence[tuple[Mode, FrameCost]], originals: Sequence[OriginalCost]
) -> dict[str, Any]:
    return {
        "frames": clip.frames,
        "steady_share": clip.steady_share,
        "modes": [
            {
                "mode": mode.name, "most_gmacs": mode.most_gmacs, **cost.as_json(),
                "original_over_ours": {one.size: round(one.gmacs / cost.gmacs(), 3) for one in originals},
            }
            for mode, cost in costs
        ],
        "original": [
            {
                "width": one.width, "height": one.height, "measured": one.measured,
                "calls": round(one.calls, 6), "gmacs": round(one.gmacs, 3),
                "stages": {stage.stage: {"items": stage.items, "gmacs": stage.gmacs} for stage in one.stages},
            }
            for one in originals
        ],
    }  # fmt: skip


def _show(costs: Sequence[tuple[Mode, FrameCost]], originals: Sequence[OriginalCost]) -> None:
    rows = [*mode_rows(costs, originals), *_original_rows(originals)]
    columns = (
        "mode",
        "calls/frame",
        "GMAC/frame",
        "target",
        *(f"original {one.size} / ours" for one in originals),
    )
    table("an output frame, a steady face", columns, rows)
    names = list(dict.fromkeys(name for _, cost in costs for name in cost.work))
    table(
        "GMAC per output frame, by network",
        ("network", *(mode.name for mode, _ in costs)),
        [
            (name, *(f"{cost.gmacs(name):.1f}" if name in cost.work else "" for _, cost in costs))
            for name in names
        ],
    )


def _original_rows(originals: Sequence[OriginalCost]) -> Iterator[tuple[str, ...]]:
    for one in originals:
        yield one.title, f"{one.calls:.2f}", f"{one.gmacs:.0f}", "", *("" for _ in originals)


def _original_cells(original: OriginalCost) -> tuple[str, ...]:
    return original.title, "", "", f"{original.calls:.2f}", f"{original.gmacs:.0f}"


def _figures(cost: FrameCost, network: str | None) -> tuple[str, str]:
    return f"{cost.calls(network):.3f}", f"{cost.gmacs(network):.1f}"
