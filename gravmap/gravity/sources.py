"""What `gravmap fetch` knows by name, read from sources.toml."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from gravmap.errors import OptionError


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes
    ----------
    name : str
        Its name in ``data/raw``.
    url : str
        Where it is.
    mirrors : tuple of str
        Where else.
    bytes, sha256
        What it must be; None where nobody has recorded it.
    magic : tuple of str
        How it may begin, hexadecimal.
    unpack : bool
        Whether it is an archive to unpack beside itself.
    """

    name: str
    url: str
    mirrors: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    magic: tuple[str, ...] = ()
    unpack: bool = False


@dataclass(frozen=True)
class Source:
    """A data set that can be fetched by name.

    Attributes
    ----------
    name, title, layout : str
        What it is called and what it is.
    kind : str
        ``gravity`` or ``geology``.
    terms, citation : str
        On what terms it may be used, and how to cite it.
    bring : str
        What to do when it cannot be had.
    files : tuple of SourceFile
        All are needed.
    legend : str or None
        The shipped legend of a geological map.
    crs : str or None
        Its reference system, where the files do not say it themselves.
    """

    name: str
    kind: str
    title: str
    layout: str
    terms: str
    citation: str
    bring: str
    files: tuple[SourceFile, ...]
    legend: str | None = None
    crs: str | None = None

    @property
    def bytes(self) -> int | None:
        """Size of all files together, where it is on record."""
        sizes = [file.bytes for file in self.files]
        return sum(size for size in sizes if size is not None) if None not in sizes else None


def _file(table: dict[str, Any]) -> SourceFile:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return SourceFile(**plain)


@cache
def known_sources() -> dict[str, Source]:
    """Every source by its name, in the order in which they are fetched by default."""
    text = resources.files("gravmap.gravity").joinpath("sources.toml").read_text(encoding="utf-8")
    sources = {}
    for name, table in tomllib.loads(text).items():
        files = tuple(_file(file) for file in table.pop("files"))
        sources[name] = Source(name=name, files=files, **table)
    return sources


def find_source(name: str) -> Source:
    """The source called `name`.

    Raises
    ------
    OptionError
        No source has this name; the message lists the nearest and all names.
    """
    sources = known_sources()
    if name in sources:
        return sources[name]
    near = difflib.get_close_matches(name.lower(), sources, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise OptionError(f"No source is called {name!r}.{meant}", f"Known: {', '.join(sources)}.")
