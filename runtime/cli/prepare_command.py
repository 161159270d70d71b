"""`dubstream prepare`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from dubstream.engines.cache import cache_root
from dubstream.runtime.cli.dub_command import announce, dub_order
from dubstream.runtime.cli.show import progress, stage_rows, table
from dubstream.runtime.preparation.prepare_video import PrepareRequest, PrepareSummary
from dubstream.runtime.preparation.prepare_video import prepare as run_prepare

_OF_A_DUB_ALONE = (
    "audio", "speaker", "output", "prepared", "pads", "audio_mode", "crf", "preset", "segment_seconds",
    "max_frame_ratio", "max_audio_channels", "max_audio", "min_audio", "trace", "mask", "emotion",
    "mode", "source_box",
)  # fmt: skip
"""What a preparation does not depend on. Every other option of `dub` is one of `prepare`, so that the two
cannot come to mean different things."""


def prepare(**values: Any) -> None:
    """Do the first pass over VIDEO, for any number of dubs: any language, with these options.

    Prints the preparation's key and folder; `dub --prepared FOLDER` uses that one and no other. Without
    --prepared a dub finds it in the cache by itself. Another expression of the same video goes into the same
    folder and costs its references alone.
    """
    order = dub_order(output=Path(), **values)
    with order.checked_platform():
        pass
    with progress(quiet=order.as_json) as report:
        networks = order.weights.find(order.options.preparation_networks, order.options, report)
        announce(networks)
        request = PrepareRequest(
            order.video, networks, order.cache or cache_root(), order.options, order.plans, order.plans_key
        )
        summary = run_prepare(request, report)
    if order.as_json:
        print(json.dumps(summary.as_json()))
    else:
        _show(summary)


def _signature() -> inspect.Signature:
    whole = inspect.signature(dub_order, eval_str=True)
    kept = [one for name, one in whole.parameters.items() if name not in _OF_A_DUB_ALONE]
    return whole.replace(parameters=kept, return_annotation=None)


prepare.__signature__ = _signature()  # type: ignore[attr-defined]


def _show(summary: PrepareSummary) -> None:
    if summary.busy_s:
        table("time by stage", ("stage", "ms/frame", "share"), stage_rows(summary.busy_s, summary.frames))
    # Plain lines: a table would break the path to fit the terminal.
    print(f"key     {summary.key}")
    print(f"folder  {summary.folder}")
    print(f"frames  {summary.frames}, {summary.present} with the face; {summary.wall_s:.1f} s")
    for note in summary.notes:
        print(f"note    {note}")
