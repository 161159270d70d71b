"""`dubstream batch`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dubstream.engines.facts import digest_facts
from dubstream.runtime.artifacts import Artifacts
from dubstream.runtime.cli.batch_lines import FILES, JobLine, read_lines
from dubstream.runtime.cli.dub_command import announce, dub_order
from dubstream.runtime.cli.orders import DubOrder, WeightsOptions
from dubstream.runtime.cli.show import log, log_to_stderr, progress, table
from dubstream.runtime.job.batch import (
    BatchJob,
    BatchState,
    JobResult,
    failed,
    run_batch,
    worst_exit_code,
)
from dubstream.runtime.job.dub import dub as run_dub
from dubstream.runtime.job.summary import DubSummary
from dubstream.runtime.media.opening import content_digest
from dubstream.runtime.progress import Progress

_OF_ONE_JOB = (*FILES, "speaker", "prepared", "trace")
_WHEREABOUTS = (
    "artifacts",
    "checkpoints",
    "weights",
    "engines",
    "hmac_key",
    "cache",
    "trace",
    "as_json",
    "verbose",
)
"""Options that decide where things lie, not what comes out; the first are known by the networks' digests."""


def batch(jobs: Path, **defaults: Any) -> None:
    """Do the dubs listed in JOBS, one after another.

    JOBS holds one JSON object a line, with video, audio, output and any option of `dub`, e.g.
    {"video": "talk.mp4", "audio": "french.wav", "output": "french.mp4", "crf": 20}. Options given here hold
    where a line says nothing else; paths are relative to where the command runs.

    A job that fails does not stop the others. JOBS.done remembers what is done: run the command again, and
    only what is missing, or what changed, is done. Exit code 0 when every job is done, else the worst one.
    """
    log_to_stderr(int(defaults["verbose"]))
    lines = read_lines(jobs)
    with progress(quiet=bool(defaults["as_json"])) as report:
        desk = _Desk(defaults, report)
        state = BatchState(jobs.with_name(f"{jobs.name}.done"))
        state.open()
        results = list(_results(lines, desk, state))
    code = worst_exit_code(results)
    if defaults["as_json"]:
        print(json.dumps({"jobs": [result.as_json() for result in results], "exit_code": code}))
    else:
        _show(results)
    if code:
        raise typer.Exit(code)


def _signature() -> inspect.Signature:
    argument = inspect.Parameter(
        "jobs",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=Annotated[Path, typer.Argument(help="One JSON object a line: a .jsonl file.")],
    )
    whole = inspect.signature(dub_order, eval_str=True)
    kept = [one for name, one in whole.parameters.items() if name not in _OF_ONE_JOB]
    return whole.replace(parameters=[argument, *kept], return_annotation=None)


batch.__signature__ = _signature()  # type: ignore[attr-defined]


class _Desk:
    """What the jobs of a batch share: defaults, progress, and artifacts, which are verified once."""

    def __init__(self, defaults: Mapping[str, Any], report: Progress) -> None:
        self._defaults, self._report = defaults, report
        self._found: dict[tuple[WeightsOptions, str, tuple[str, ...]], Artifacts] = {}

    def job(self, line: JobLine) -> BatchJob:
        """A job that reads and checks everything when it is its turn."""
        values: dict[str, Any] = {**self._defaults, **line.values}
        order: list[DubOrder] = []

        def parsed() -> DubOrder:
            if not order:
                order.append(dub_order(**values))
            return order[0]

        def key() -> str:
            return _key(values, parsed(), self._networks(parsed()))

        def run() -> DubSummary:
            self._announce(line)
            summary = run_dub(parsed().request(self._networks(parsed())), self._report)
            parsed().write_trace(summary)
            return summary

        return BatchJob(line.number, *line.files, key, run)

    def _networks(self, order: DubOrder) -> Artifacts:
        wanted = (order.weights, order.options.backend.precision, order.networks)
        if wanted not in self._found:
            # A missing driver or library shows before the minutes an export may take.
            with order.checked_platform():
                pass
            self._found[wanted] = order.find_networks(self._report)
            announce(self._found[wanted])
        return self._found[wanted]

    def _announce(self, line: JobLine) -> None:
        if not self._defaults["as_json"]:
            video, audio, output = line.files
            log.print(f"line {line.number}: {video} + {audio} -> {output}", markup=False, soft_wrap=True)


def _results(lines: Sequence[JobLine], desk: _Desk, state: BatchState) -> Iterator[JobResult]:
    for line in lines:
        if line.error is not None:
            yield failed(line.number, line.files, line.error)
        else:
            yield from run_batch([desk.job(line)], state)


def _key(values: Mapping[str, Any], order: DubOrder, networks: Artifacts) -> str:
    """The digest of what decides a job's output: options, the content of every file they name, networks."""
    named = {name: str(value) for name, value in values.items() if name not in _WHEREABOUTS}
    # Options may be names of files, too: the picture of a person.
    others = [Path(value) for name, value in named.items() if name != "output" and _is_file(value)]
    files = {str(path): content_digest(path) for path in (*order.inputs, *others)}
    return digest_facts({"options": named, "files": files, "networks": _digests(networks)})


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):
        return False


def _digests(networks: Artifacts) -> dict[str, str]:
    return {name: one.digest for name, one in networks.items()}


def _show(results: Sequence[JobResult]) -> None:
    rows = [
        (
            str(result.line),
            result.output or "-",
            result.status,
            str(result.frames or "-"),
            f"{result.wall_s:.1f}" if result.wall_s else "-",
            str(result.exit_code or "-"),
        )
        for result in results
    ]
    table("jobs", ("line", "output", "status", "frames", "s", "exit code"), rows)
    for result in results:
        if result.error:
            typer.echo(f"error: line {result.line}: {result.error}", err=True)
