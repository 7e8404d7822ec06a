"""One document, written twice: as a page that stands alone (HTML), and as Markdown beside its pictures."""

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
    """A paragraph; `soft` ones are remarks, `strong` ones what a reader must see first."""

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
    """Rows of words and numbers; the first column names a row, the others stand to the right."""

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    kind: ClassVar[str] = "picture"
    path: Path
    caption: str

    @property
    def data_uri(self) -> str:
        """The picture itself, for a page that stands alone."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Heading:
    """Of a part within a section."""

    kind: ClassVar[str] = "heading"
    words: str


Part = Text | Bullets | Table | Picture | Heading


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Document:
    """What is written.

    Attributes
    ----------
    over, title, lead : str
        A line above the title, the title, and the first sentences.
    warning : str
        Shown in a box under them.
    sections : tuple of Section
        In order.
    """

    over: str
    title: str
    lead: str
    warning: str
    sections: tuple[Section, ...]


def to_markdown(document: Document, folder: Path) -> str:
    """The document as Markdown; pictures are linked as seen from `folder`."""
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
    """The document as one HTML page with its pictures inside, in the style of a map's report."""
    return render("document.html.j2", package="gravmap.reproduce", document=document)
