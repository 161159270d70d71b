"""The HTML page of reports: complete by itself, safe with foreign text, legible without colour."""

from __future__ import annotations

import base64
import re
import struct
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dubstream.engines.errors import InternalError, StorageError, UsageError
from dubstream.engines.page import Figure, Section, Table, Verdict, check_page, render_page, write_page

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="4" height="4"/></svg>'
FACTS = {"cpu": "Some CPU", "versions": {"numpy": "2", "torch": "3"}, "gpus": ["A", "B"], "driver": None}


def png() -> bytes:
    """A grey pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


class Tree(HTMLParser):
    """Elements with their attributes and the text inside them; complains about tags left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def page() -> str:
    table = Table(
        ("link", "verdict", "max abs", "time", "note"),
        [
            ("fp32", Verdict.PASSED, 0.000123456, "12.3 ms", "as it should be"),
            ("fp16", Verdict.FAILED, 7, "<1 ms", None),
            ("engine", Verdict.NOT_RUN, None, "", "no GPU"),
        ],
        "How far every link is from its predecessor.",
    )
    pictures = [Figure(SVG, "a plot"), Figure(png(), "a face", pixelated=True)]
    sections = [
        Section("Chain", ["In words.", table], Verdict.FAILED),
        Section("Pictures", [*pictures, "Between.", pictures[0]]),
        Section("Nothing"),
    ]
    return render_page("Report", sections, FACTS, lead="One link does not hold.")


def test_everything_given_is_on_the_page_in_order() -> None:
    tree = Tree(page())
    assert tree.of("h1") == ["Report"]
    assert tree.of("h2") == ["Chain", "Pictures", "Nothing"]
    assert tree.of("a") == ["Chain", "Pictures", "Nothing"]
    caption = "How far every link is from its predecessor."
    assert tree.of("p") == ["One link does not hold.", "In words.", caption, "Between."]
    cells = [text for tag, text in tree.texts if tag in ("td", "span")]
    assert cells[2:7] == ["fp32", "✓ passed", "0.0001235", "12.3 ms", "as it should be"]
    assert tree.of("td")[-3:] == ["Some CPU", "numpy 2, torch 3", "A, B"]
    assert "driver" not in tree.of("th")


def test_a_verdict_is_a_word_and_a_sign_not_a_colour_alone() -> None:
    words = Tree(page()).of("span")
    assert words == ["✗ failed", "✗ failed", "✓ passed", "✗ failed", "– not run"]
    assert len({verdict.sign for verdict in Verdict}) == len(Verdict)


def test_columns_of_numbers_are_right_aligned_and_no_others() -> None:
    headings = [attributes.get("class") for tag, attributes in Tree(page()).elements if tag == "th"][:5]
    assert headings == [None, None, "right", "right", None]


def test_the_file_needs_nothing_but_itself() -> None:
    text = page()
    assert text.startswith("<!DOCTYPE html>")
    tree = Tree(text)
    sources = [attributes["src"] for tag, attributes in tree.elements if tag == "img"]
    assert [str(uri).split(";")[0] for uri in sources] == [
        "data:image/svg+xml", "data:image/png", "data:image/svg+xml",
    ]  # fmt: skip
    assert base64.b64decode(str(sources[0]).split(",")[1]) == SVG
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tree.elements}
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == []
    assert "url(" not in text
    policy = [a["content"] for _, a in tree.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_consecutive_figures_stand_side_by_side() -> None:
    assert page().count('<div class="figures">') == 2
    assert page().count('class="pixelated"') == 1


def test_foreign_text_stays_text_everywhere() -> None:
    evil = '<script>alert("x")</script>\'&{{ 7 * 7 }}'
    table = Table((evil,), [(evil,)], evil)
    text = render_page(evil, [Section(evil, [evil, table, Figure(SVG, evil)])], {evil: evil}, lead=evil)
    tree = Tree(text)
    assert "script" not in {tag for tag, _ in tree.elements}
    assert [a["alt"] for tag, a in tree.elements if tag == "img"] == [evil]
    assert set(tree.of("td") + tree.of("h1") + tree.of("h2") + tree.of("p")) == {evil}


def test_it_follows_the_readers_light_dark_paper_and_screen() -> None:
    text = page()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'content="width=device-width, initial-scale=1"' in text
    assert text.count('<div class="wide">') == text.count("<table>")


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(path, "Grüße", [], {})
    assert "<h1>Grüße</h1>" in path.read_text(encoding="utf-8")
    with pytest.raises(StorageError, match="missing"):
        write_page(tmp_path / "missing" / "report.html", "Report", [], {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_what_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_page(tmp_path / "report.html")
    with pytest.raises(UsageError, match="folder"):
        check_page(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        check_page(tmp_path / "missing" / "report.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"dubstream\[report\]"):
        check_page(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_tables_and_figures_refuse_what_they_cannot_show() -> None:
    with pytest.raises(InternalError, match="row of 1"):
        Table(("a", "b"), [("x",)])
    with pytest.raises(InternalError, match="expected PNG or SVG"):
        Figure(b"GIF89a", "a gif")
