"""One document, written twice: as a page that stands alone (HTML), and as Markdown beside its pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from gravmap import __version__
from gravmap.mapping.page.shell import html_page


@dataclass(frozen=True)
class Text:
    """A paragraph; `soft` ones are remarks, `strong` ones what a reader must see first."""

    words: str
    manner: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers; the first column names a row, the others stand to the right."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Heading:
    """Of a part within a section."""

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


_STYLE = """
figure.whole { margin: 1.6rem 0; } figure.whole img { display: block; width: 100%; height: auto; max-width: 60rem; }
table { margin-bottom: 1.4rem; } li { max-width: 44rem; margin-bottom: .35em; }
"""


def to_html(document: Document) -> str:
    """The document as one HTML page with its pictures inside, in the style of a map's report."""
    body = "\n".join(
        f"<section><h2>{escape(section.title)}</h2>\n{''.join(map(_html, section.parts))}</section>"
        for section in document.sections
    )
    title = escape(document.title)
    return html_page(
        title=title,
        over=escape(document.over),
        heading=title,
        lead=f'<p class="lead">{escape(document.lead)}</p>\n<div class="say"><p>{escape(document.warning)}</p></div>',
        body=body,
        footer=".",
        style=_STYLE,
    )


def _html(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h3>{escape(part.words)}</h3>"
    if isinstance(part, Text):
        if part.manner == "strong":
            return f'<div class="say"><p>{escape(part.words)}</p></div>'
        return f"<p{f' class={part.manner}' if part.manner else ''}>{escape(part.words)}</p>"
    if isinstance(part, Bullets):
        return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in part.items) + "</ul>"
    if isinstance(part, Picture):
        data = base64.b64encode(part.path.read_bytes()).decode()
        caption = escape(part.caption)
        return (
            f'<figure class="whole"><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    head = "".join(f'<th scope="col"{"" if n == 0 else " class=n"}>{escape(c)}</th>' for n, c in enumerate(part.head))
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f'<td class="n">{escape(c)}</td>' for c in row[1:])
        + "</tr>"
        for row in part.rows
    )
    return (
        f'<p class="told">{escape(part.caption)}</p><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
