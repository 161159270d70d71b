"""The artifacts a dub runs on: given, or exported on the way into the cache."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dubstream.engines.artifact import Artifact, open_artifact, remake_hint
from dubstream.engines.errors import ArtifactError, DubError, InternalError, UsageError
from dubstream.engines.specs import CORE, spec_of
from dubstream.engines.weights import WeightsChoice
from dubstream.runtime.progress import Progress, silent

Artifacts = dict[str, Artifact]


def find_artifacts(
    artifacts: Path | None,
    checkpoints: Path | None,
    weights: str | None,
    *,
    networks: Sequence[str] = (),
    precision: str = "fp32",
    threads: int | None = None,
    progress: Progress = silent,
) -> Artifacts:
    """Verified artifacts by network.

    Args:
        artifacts: a folder of finished artifacts; nothing is exported.
        checkpoints: a folder of public checkpoints, or
        weights: ``"seeded"``; what is missing is exported into the cache, in a process of its own, so
            that torch never enters this one. Exactly one of the three is to be given.
        networks: which ones; none means `CORE`, those every dub needs.
        precision: of the artifacts, e.g. ``fp16``.
        threads: CPU threads of the export.

    Raises:
        UsageError: none or several of the three.
        ArtifactError: a given artifact is missing, damaged, or of another version, also of its recipe.
        DubError: the export failed; same exit code, same message.
    """
    given = [value for value in (artifacts, checkpoints, weights) if value is not None]
    if len(given) != 1:
        raise UsageError(
            f"received {len(given)} of --artifacts DIR, --checkpoints DIR and --weights seeded, expected one",
            hint="to try without trained weights: --weights seeded",
        )
    if artifacts is not None:
        return open_all(artifacts, precision, names=networks)
    choice = WeightsChoice.from_options(checkpoints, weights)

    def export(folder: Path, names: Sequence[str]) -> None:
        _export(choice, folder, names, precision, threads, progress)

    return cached_artifacts(choice, precision, names=networks, make=export)


def cached_artifacts(
    choice: WeightsChoice,
    precision: str = "fp32",
    *,
    names: Sequence[str] = (),
    make: Callable[[Path, Sequence[str]], None] | None = None,
) -> Artifacts:
    """As `find_artifacts` for weights the cache has artifacts of.

    Args:
        choice: the weights.
        precision: of the artifacts.
        names: of the networks; none means `CORE`.
        make: puts the named networks' artifacts into a folder where they are missing, damaged or of another
            version; None to raise that as the `ArtifactError` it is.
    """
    found: Artifacts = {}
    for folder, some in _folders(choice, names or CORE).items():
        try:
            found |= open_all(folder, precision, names=some, choice=choice)
        except ArtifactError:
            if make is None:
                raise
            make(folder, some)
            found |= open_all(folder, precision, names=some, choice=choice)
    return {name: found[name] for name in names or CORE}


def _folders(choice: WeightsChoice, names: Sequence[str]) -> dict[Path, list[str]]:
    """The cache's folders, with the networks each one holds."""
    specs = [spec_of(name) for name in names]
    choice.require_files(specs)
    folders: dict[Path, list[str]] = {}
    for spec in specs:
        folders.setdefault(choice.folder_of(spec), []).append(spec.name)
    return folders


def open_all(
    folder: Path,
    precision: str = "fp32",
    *,
    names: Sequence[str] = (),
    choice: WeightsChoice | None = None,
) -> Artifacts:
    """Verify the artifacts in `folder`; errors as in `open_artifact` and `spec_of`.

    Args:
        folder: where they lie.
        precision: theirs.
        names: of the networks; none means `CORE`.
        choice: the weights the user named, for the command in errors.
    """
    remake = remake_hint(folder, names, precision, choice)
    return {
        name: open_artifact(folder, spec_of(name, precision), precision, remake=remake)
        for name in names or CORE
    }


class _ExportError(DubError):
    """What the exporting process said before it ended."""


def _export(
    choice: WeightsChoice,
    folder: Path,
    names: Sequence[str],
    precision: str,
    threads: int | None,
    progress: Progress,
) -> None:
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "artifacts have to be exported first, and torch is not installed here",
            hint='pip install "dubstream[export]", or give --artifacts DIR made on another machine',
        )
    command = [
        sys.executable,
        "-m",
        "dubstream.export",
        *names,
        "--artifacts",
        str(folder),
        "--json-progress",
    ]
    command += [*choice.arguments, "--precision", precision]
    if threads is not None:
        command += ["--threads", str(threads)]
    with _running(command) as process:
        assert process.stdout is not None
        problem = _follow(process.stdout, progress)
        code = process.wait()
    if code != 0:
        raise _failure(problem, code)


def _follow(lines: IO[str], progress: Progress) -> str | None:
    """Report the exporter's events; returns the message of its last error."""
    problem = None
    for line in lines:
        event = json.loads(line)
        if event["event"] == "error":
            problem = event["message"]
        elif event.get("total"):
            progress("export", event["position"], event["total"])
    return problem


def _failure(problem: str | None, code: int) -> DubError:
    if problem is None:
        return InternalError(
            f"the export ended with code {code} and no message", hint="run: dubstream export"
        )
    error = _ExportError(problem)
    error.exit_code = code  # type: ignore[misc]
    return error


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A child process that does not outlive the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
