"""The file of jobs of `dubstream batch`: one JSON object a line, its keys the options of `dubstream dub`."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dubstream.engines.errors import DubError, UsageError
from dubstream.engines.storage import storage_errors
from dubstream.runtime.cli.dub_command import dub_order
from dubstream.runtime.media.opening import check_regular_file

FILES = ("video", "audio", "output")
"""What a job names first; several people have `speaker` in place of the audio."""

OF_THE_BATCH = ("as_json", "verbose")
"""Options that concern what is shown."""

_LARGEST = 64 << 20  # bytes


@dataclass(frozen=True)
class JobLine:
    """One line.

    Attributes:
        number: from 1.
        values: arguments of `dub_order` by name, of the right types; what could be read where `error` is set.
        error: why it is no job; None for a good one.
    """

    number: int
    values: dict[str, Any]
    error: DubError | None = None

    @property
    def files(self) -> tuple[str, str, str]:
        """Video, audio and output as text; empty where the line does not name them."""
        video, audio, output = (str(self.values.get(name, "")) for name in FILES)
        return video, audio, output


def read_lines(path: Path) -> list[JobLine]:
    """All jobs of a file; blank lines count but are no jobs.

    Raises:
        MediaError: no such file.
        UsageError: an oversized file, or one without a job.
    """
    absolute = check_regular_file(path)
    with storage_errors(path, "reading"):
        if absolute.stat().st_size > _LARGEST:
            raise UsageError(f"{path} has more than {_LARGEST} bytes, expected one JSON object a line")
        rows = absolute.read_bytes().split(b"\n")
    jobs = [_read(number, row) for number, row in enumerate(rows, 1) if row.strip()]
    if not jobs:
        raise UsageError(f"{path} holds no job, expected one JSON object a line", hint=_EXAMPLE)
    return _with_outputs_of_their_own(jobs)


def option_types() -> dict[str, Any]:
    """The type of every option of `dub`, by the name it has in a job."""
    parameters = inspect.signature(dub_order, eval_str=True).parameters
    return {
        name: typing.get_args(parameter.annotation)[0]
        for name, parameter in parameters.items()
        if typing.get_origin(parameter.annotation) is typing.Annotated and name not in OF_THE_BATCH
    }


def _read(number: int, row: bytes) -> JobLine:
    values: dict[str, Any] = {}
    try:
        found = json.loads(row)
        if not isinstance(found, dict):
            raise UsageError(
                f"line {number} is {type(found).__name__}, expected a JSON object", hint=_EXAMPLE
            )
        _convert(number, found, values)
    except DubError as error:
        return JobLine(number, values, error)
    except (ValueError, RecursionError) as error:
        problem = UsageError(f"line {number} is no JSON: {str(error)[:120]}", hint=_EXAMPLE)
        return JobLine(number, values, problem)
    return JobLine(number, values)


def _convert(number: int, found: Mapping[str, Any], values: dict[str, Any]) -> None:
    types_ = option_types()
    # Files first: the table shows them also where something else is wrong.
    for name in sorted(found, key=lambda name: name not in FILES):
        option = name.replace("-", "_")
        if option not in types_:
            raise UsageError(
                f"line {number}: unknown '{name[:40]}', expected an option of `dubstream dub`",
                hint="dubstream dub --help",
            )
        values[option] = _typed(number, option, found[name], types_[option])
    named = {name for name, value in values.items() if value is not None}
    missing = [name for name in FILES if name not in named and (name != "audio" or "speaker" not in named)]
    if missing:
        raise UsageError(f"line {number} lacks {', '.join(missing)}", hint=_EXAMPLE)


def _typed(number: int, name: str, value: Any, wanted: Any) -> Any:
    kinds = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    if value is None and types.NoneType in kinds:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    for kind in kinds:
        if typing.get_origin(kind) is list and isinstance(value, list):
            return [_typed(number, name, one, typing.get_args(kind)[0]) for one in value]
        if kind is bool and isinstance(value, bool):
            return value
        if kind is float and is_number:
            return float(value)
        if kind is int and is_number and isinstance(value, int):
            return value
        if kind is str and (isinstance(value, str) or is_number):
            return str(value)
        if kind is Path and isinstance(value, str) and value:
            return Path(value)
    expected = ", ".join(_WORDS.get(typing.get_origin(kind) or kind, "null") for kind in kinds)
    raise UsageError(f"line {number}: {name} is {json.dumps(value)[:60]}, expected {expected}")


def _with_outputs_of_their_own(jobs: list[JobLine]) -> list[JobLine]:
    """Two jobs that would write one file: the second is no job."""
    first: dict[Path, int] = {}
    checked = []
    for job in jobs:
        target = Path(job.values["output"]).absolute() if job.error is None else None
        if target is not None and first.setdefault(target, job.number) != job.number:
            problem = UsageError(
                f"line {job.number}: output {target.name} is also that of line {first[target]}",
                hint="give every job an output of its own",
            )
            job = JobLine(job.number, job.values, problem)
        checked.append(job)
    return checked


_WORDS = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "text",
    Path: "a path as text",
    list: "a list",
}
_EXAMPLE = 'for example {"video": "talk.mp4", "audio": "speech.wav", "output": "dubbed.mp4", "crf": 18}'
