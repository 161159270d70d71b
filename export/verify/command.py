"""`dubstream verify`: whether exports and engines still are what the PyTorch networks say.

torch, onnx and Polygraphy are imported only when there is work to do.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dubstream.engines.errors import UsageError
from dubstream.engines.specs import CORE, SPECS
from dubstream.engines.weights import WeightsChoice

if TYPE_CHECKING:
    from dubstream.export.verify.run import Verification

verify_app = typer.Typer(help="Prove that exports, engines and dubbed videos still are what they should be.")
"""Further subjects attach themselves as commands: `dubstream verify video`, `dubstream verify dub`."""


@verify_app.callback(invoke_without_command=True)
def verify(
    context: typer.Context,
    artifacts: Annotated[
        Path | None, typer.Option(help="Folder of exported artifacts.", metavar="DIR")
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Public checkpoints: the artifacts' own, or those of the cache.", metavar="DIR"),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="'seeded': reproducible untrained weights.", metavar="seeded")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(SPECS)}; repeatable. Default: {', '.join(CORE)}."),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16 or bf16; repeatable. Default: all.")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="onnxruntime, onnxruntime-cuda or tensorrt; repeatable. Default: all."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One seeded and one real item, nothing adversarial.")
    ] = False,
    search: Annotated[
        bool,
        typer.Option(
            "--search/--no-search", help="Look for the cause of a failure: minutes for a large network."
        ),
    ] = True,
    clip: Annotated[
        Path | None, typer.Option(help="Also frames of this video, as they are.", metavar="VIDEO")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="A link that has to run, e.g. fp16/tensorrt; repeatable.", metavar="LINK"),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write what PyTorch says as a golden file.", metavar="GOLDEN")
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="Compare with this golden file, too.", metavar="GOLDEN")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a self-contained HTML report.", metavar="FILE.html")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads of every executor.")] = None,
    device: Annotated[int, typer.Option(help="CUDA device of GPU backends.", metavar="N")] = 0,
) -> None:
    """Compare PyTorch, ONNX and engines, link by link; exit 1 when one does not hold.

    A link whose backend or artifact is not here is reported as not run; --require makes that a failure.
    """
    if context.invoked_subcommand is not None:
        return
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}, expected 1 or more")
    names = _networks(network)
    choice = _choice(checkpoints, weights)
    folder = _folder(artifacts, choice)
    for path in (save, report):
        _check_target(path)
    _run(
        names, folder, choice, precision or [], backend or [],
        quick=quick, search=search, clip=clip, require=require or [], save=save, golden=golden, report=report,
        as_json=as_json, threads=threads, device=device,
    )  # fmt: skip


def _run(
    names: list[str],
    folder: Path | None,
    choice: WeightsChoice | None,
    precisions: list[str],
    backends: list[str],
    *,
    quick: bool,
    search: bool,
    clip: Path | None,
    require: list[str],
    save: Path | None,
    golden: Path | None,
    report: Path | None,
    as_json: bool,
    threads: int | None,
    device: int,
) -> None:
    try:
        import_module("skimage.metrics")
        if report is not None:
            import_module("matplotlib.figure")
        from dubstream.export.verify import clip as clips
        from dubstream.export.verify import run as runs
        from dubstream.export.verify.chain import Settings
        from dubstream.export.verify.goldens import load_golden
        from dubstream.export.verify.links import link_named, links_of
        from dubstream.export.verify.page import ReportPage
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, verify needs it", hint='pip install "dubstream[report]"'
        ) from error
    from dubstream.engines.onnxruntime_engine import usable_cpus
    from dubstream.export.verify.show import show

    links = links_of(precisions, backends)
    required = [link_named(text) for text in require]
    links += [link for link in required if link not in links]
    page = None if report is None else ReportPage(report)
    settings = Settings(
        folder,
        links,
        quick,
        threads or usable_cpus(),
        [] if clip is None else clips.clip_frames(clip),
        device,
        choice,
    )
    work: Verification = runs.Verification(
        names, settings,
        None if golden is None else load_golden(golden), [link.name for link in required],
    )  # fmt: skip
    if page is not None:
        work.on_chain = page.add
    if not search:
        work.explain = None
    found = work.run()
    if page is not None:
        page.write(found)
    if save is not None and found.holds:
        work.save(save)
    if as_json:
        print(json.dumps(found.as_json(), allow_nan=False))
    else:
        show(found)
    runs.check(found)


def _networks(names: list[str] | None) -> list[str]:
    for name in names or []:
        if name not in SPECS:
            raise UsageError(f"--network received '{name}', expected one of {', '.join(SPECS)}")
    return list(dict.fromkeys(names or CORE))


def _choice(checkpoints: Path | None, weights: str | None) -> WeightsChoice | None:
    if checkpoints is None and weights is None:
        return None
    return WeightsChoice.from_options(checkpoints, weights)


def _folder(artifacts: Path | None, choice: WeightsChoice | None) -> Path | None:
    if artifacts is None and choice is None:
        raise UsageError(
            "nothing to verify was named", hint="give --artifacts DIR, --checkpoints DIR or --weights seeded"
        )
    if artifacts is not None and not artifacts.is_dir():
        raise UsageError(f"--artifacts {artifacts}: expected a folder, found none")
    return artifacts


def _check_target(path: Path | None) -> None:
    """Say before minutes of work what would fail after them."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise UsageError(f"cannot write {path}: expected a file name in a folder that exists")
