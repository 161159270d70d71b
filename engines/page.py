"""Reports as one HTML file: text, tables and pictures, with the versions and the machine that made them.

The file carries everything it shows: pictures are data URIs, there are no scripts, and its content
security policy forbids every request, so it can be mailed, archived and opened offline. What is put
into it is text until this module makes it HTML: names from files and models cannot become markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dubstream.engines.atomic import atomic_file
from dubstream.engines.errors import InternalError, UsageError
from dubstream.engines.page_template import STYLE, TEMPLATE
from dubstream.engines.storage import storage_errors

if TYPE_CHECKING:
    from jinja2 import Template

_PNG = b"\x89PNG\r\n\x1a\n"
_SVG = re.compile(rb"^\s*(<\?xml|<!DOCTYPE svg|<!--|<svg)")
_NUMBER = re.compile(r"^[<>≤≥±+−-]?\s?\.?\d")


class Verdict(Enum):
    """What became of a check. Shown as a sign and a word as well as a colour."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"
    WARNING = "warning"

    @property
    def sign(self) -> str:
        """A sign that can be told apart without colour."""
        return {"passed": "✓", "failed": "✗", "not run": "–", "warning": "!"}[self.value]


Cell: TypeAlias = str | int | float | Verdict | None
"""Text, a number (shown with four significant digits), a verdict, or nothing."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: headings.
        rows: cells, as many in each row as there are columns. A column of numbers, or of texts that
            begin with one ("12.3 ms"), is aligned to the right.
        caption: a sentence under the table; "" for none.

    Raises:
        InternalError: a row of another length.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InternalError(f"a table of {len(self.columns)} columns got a row of {len(row)} cells")

    def right(self) -> list[bool]:
        """Whether each column is aligned to the right."""
        texts = [[cell_text(row[column]) for row in self.rows] for column in range(len(self.columns))]
        return [any(column) and all(_NUMBER.match(text) for text in column if text) for column in texts]


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        content: a PNG or an SVG file's bytes. Consecutive figures stand side by side where there is room.
        caption: what to see in it; also its text for those who cannot see it.
        pixelated: enlarge without smoothing, for pictures whose pixels matter.

    Raises:
        InternalError: neither PNG nor SVG.
    """

    content: bytes
    caption: str
    pixelated: bool = False

    def __post_init__(self) -> None:
        if not self.content.startswith(_PNG) and not _SVG.match(self.content):
            raise InternalError(f"figure '{self.caption}': expected PNG or SVG, found {self.content[:8]!r}")

    @property
    def uri(self) -> str:
        """The picture as a data URI. A browser runs no script of an SVG that comes as a picture."""
        kind = "image/png" if self.content.startswith(_PNG) else "image/svg+xml"
        return f"data:{kind};base64,{base64.b64encode(self.content).decode('ascii')}"


Part: TypeAlias = str | Table | Figure


@dataclass(frozen=True)
class Section:
    """One chapter of a report.

    Attributes:
        title: heading, also in the list of contents.
        parts: paragraphs of plain text, tables and figures, in their order.
        verdict: shown beside the heading; None for none.
    """

    title: str
    parts: Sequence[Part] = ()
    verdict: Verdict | None = None


def check_page(path: Path) -> None:
    """Raise before hours of work what `write_page` would raise after them.

    Raises:
        UsageError: `path` is a folder, its folder is not there, or Jinja is not installed.
    """
    if path.is_dir():
        raise UsageError(f"received the folder {path}, expected the name of an HTML file to write")
    if not path.parent.is_dir():
        raise UsageError(
            f"cannot write {path}: there is no folder {path.parent}", hint=f"mkdir -p {path.parent}"
        )
    _template()


def write_page(
    path: Path, title: str, sections: Sequence[Section], facts: Mapping[str, Any], *, lead: str = ""
) -> None:
    """Write a report as one HTML file; it appears complete or not at all.

    Args:
        path: the file; its folder must exist.
        title: of the page.
        sections: its chapters; from three on there is a list of contents.
        facts: what made it, versions and machine, as `dubstream.benchmarks.rows.machine` gives them;
            values that are mappings or sequences are listed.
        lead: the result in a sentence, under the title.

    Raises:
        UsageError: Jinja is not installed.
        StorageError: disk full, permission, missing folder.
    """
    content = render_page(title, sections, facts, lead=lead).encode()
    with storage_errors(path, "writing", needed=len(content)), atomic_file(path) as part:
        part.write_bytes(content)


def render_page(title: str, sections: Sequence[Section], facts: Mapping[str, Any], *, lead: str = "") -> str:
    """The HTML text of a report; arguments and `UsageError` as in `write_page`."""
    return _template().render(
        style=STYLE,
        title=title,
        lead=lead,
        chapters=[(section, list(_blocks(section.parts))) for section in sections],
        facts=[(name, _fact(value)) for name, value in facts.items() if value is not None],
    )


def _template() -> Template:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise UsageError(
            "an HTML report was asked for, and jinja2 is not installed here",
            hint='pip install "dubstream[report]"',
        ) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell_text
    environment.tests["verdict"] = lambda value: isinstance(value, Verdict)
    return environment.from_string(TEMPLATE)


def _blocks(parts: Sequence[Part]) -> Iterator[tuple[str, Any]]:
    """Parts by kind; figures that follow each other as one block."""
    for kind, group in groupby(parts, key=type):
        if kind is Figure:
            yield "figures", list(group)
        else:
            yield from (("table" if kind is Table else "text", part) for part in group)


def cell_text(cell: Cell) -> str:
    """A cell as text; a verdict as its sign and its word."""
    if cell is None:
        return ""
    if isinstance(cell, Verdict):
        return f"{cell.sign} {cell.value}"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell)


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_fact(inner) for inner in value)
    return cell_text(value)
