"""A document of headings, text, tables and pictures, rendered as a self-contained HTML page and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gravmap import __version__
from gravmap.mapping.page.words import render


@dataclass(frozen=True)
class Text:
    """A paragraph; `manner` is empty, ``soft`` (a remark), ``strong`` (a key statement) or ``missing``."""

    kind: ClassVar[str] = "text"
    words: str
    manner: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first column has the row titles, the others are aligned right."""

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG file and its caption."""

    kind: ClassVar[str] = "picture"
    path: Path
    caption: str

    @property
    def data_uri(self) -> str:
        """The picture as a data URI, for a self-contained page."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    words: str


Part = Text | Bullets | Table | Picture | Heading


@dataclass(frozen=True)
class Section:
    """A section: its title and its parts."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Document:
    """A document.

    Attributes
    ----------
    over, title, lead : str
        A line above the title, the title, and an introduction.
    warning : str
        Text of a box below the introduction.
    sections : tuple of Section
        Its sections, in order.
    """

    over: str
    title: str
    lead: str
    warning: str
    sections: tuple[Section, ...]


def to_markdown(document: Document, folder: Path) -> str:
    """The document as Markdown, with links to pictures relative to `folder`."""
    lines = [document.lead, "", f"# {document.title}", "", f"**{document.warning}**"]
    for section in document.sections:
        lines += ["", f"## {section.title}"]
        for part in section.parts:
            lines += ["", *_markdown(part, folder)]
    return "\n".join(lines) + f"\n\nWritten by gravmap {__version__}.\n"


def _markdown(part: Part, folder: Path) -> list[str]:
    if isinstance(part, Heading):
        return [f"### {part.words}"]
    if isinstance(part, Text):
        return [f"**{part.words}**" if part.manner == "strong" else part.words]
    if isinstance(part, Bullets):
        return [f"- {item}" for item in part.items]
    if isinstance(part, Picture):
        return [f"![{part.caption}]({part.path.relative_to(folder).as_posix()})", "", part.caption]
    rule = "|" + "|".join(["---"] + ["---:"] * (len(part.head) - 1)) + "|"
    return [part.caption, "", _row(part.head), rule, *(_row(row) for row in part.rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_html(document: Document) -> str:
    """The document as one HTML page with embedded pictures, in the style of a map's report."""
    return render("document.html.j2", package="gravmap.reproduce", document=document)
