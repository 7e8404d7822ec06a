"""What fetch has left in ``data/raw``: which sources are there whole, which file to open, where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gravmap.errors import InputError
from gravmap.files import sha256
from gravmap.gravity import sources
from gravmap.gravity.region_rows import ROWS_MARGIN_DEG, Rows, rows_present
from gravmap.gravity.sources import Source
from gravmap.regions import Region
from gravmap.workspace import Workspace


@dataclass(frozen=True)
class Fetched:
    """A source whose files are all in ``data/raw``.

    Attributes
    ----------
    source : Source
        What it is.
    paths : tuple of Path
        Its files, in the order of the source.
    news : tuple of str
        What was done to get them, one sentence each.
    """

    source: Source
    paths: tuple[Path, ...]
    news: tuple[str, ...] = field(default=())

    @property
    def main(self) -> Path:
        """The file to open: the grid, or the map (a shapefile; of a zip, the shapefile unpacked from it)."""
        first = self.paths[0]
        if self.source.files[0].unpack:
            return next(iter(sorted(unpacked(first).rglob("*.shp"))), first)
        return first


def fetched(workspace: Workspace, kind: str | None = None) -> list[Fetched]:
    """What fetch has left in a workspace, in the order of sources.toml.

    Parameters
    ----------
    workspace : Workspace
        Where to look.
    kind : str, optional
        ``gravity`` or ``geology``; both by default.
    """
    return list(present(workspace.raw, kind))


def fetched_maps(raw: Path) -> list[tuple[str, Path]]:
    """The fetched geological maps: (name of the shipped legend, file to open), fsu_geol before geo3al.

    Parameters
    ----------
    raw : Path
        ``data/raw`` of a workspace.
    """
    return [(item.source.legend or item.source.name, item.main) for item in present(raw, "geology")]


def fetched_gravity(raw: Path, region: Region | None = None, margin_deg: float = ROWS_MARGIN_DEG) -> Path:
    """The fetched gravity grid: the whole of it, else those of its rows that serve `region` best.

    Parameters
    ----------
    raw : Path
        ``data/raw`` of a workspace.
    region : Region, optional
        What it is wanted for.
    margin_deg : float
        How much around the region is of use, degrees.

    Raises
    ------
    InputError
        There is none.
    """
    for item in present(raw, "gravity"):
        rows = rows_present(raw / item.source.files[0].name)
        if item.main.name == item.source.files[0].name or not rows:
            return item.main

        def use(part: Rows) -> tuple[bool, bool, float]:
            covers = region is not None and part.covers(region)
            return covers, region is not None and part.covers(region, margin_deg), part.north - part.south

        return max(rows, key=use).path
    raise InputError(
        f"No gravity grid in {raw}.", "`gravmap fetch` gets WGM2012; or name yours: gravmap residual GRID --height 10km"
    )


def provenance(path: Path, raw: Path) -> dict[str, Any]:
    """Where an input file comes from: path, sha256 and, for a fetched one, source, citation and licence.

    Parameters
    ----------
    path : Path
        The file; hashed whole.
    raw : Path
        ``data/raw`` of the workspace.
    """
    entry: dict[str, Any] = {"path": path.name, "sha256": sha256(path), "source": "", "citation": "", "licence": ""}
    for item in present(raw, None):
        if any(path.exists() and other.exists() and path.samefile(other) for other in (*item.paths, item.main)):
            entry |= {
                "source": item.source.files[0].url,
                "citation": item.source.citation,
                "licence": item.source.terms,
            }
    return entry


def present(raw: Path, kind: str | None) -> Iterator[Fetched]:
    """The sources of which every file is there, or rows of a gravity grid."""
    for source in sources.known_sources().values():
        paths = tuple(raw / file.name for file in source.files)
        if kind in (None, source.kind) and all(path.is_file() for path in paths):
            yield Fetched(source, paths)
        elif kind in (None, source.kind) and source.kind == "gravity" and (rows := rows_present(paths[0])):
            yield Fetched(source, tuple(part.path for part in rows))


def unpacked(archive: Path) -> Path:
    """The folder that a zip is unpacked into."""
    return archive.with_suffix("")
