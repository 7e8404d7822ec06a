"""What lies in ``data/raw``: which sources are complete, which file of them to open, where a file comes from."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravmap.download import sources
from gravmap.download.sources import ZIP_ERRORS, Source, members_of
from gravmap.errors import DownloadError, InputError
from gravmap.files import atomic_folder, check_disk_space, sha256, write_text


@dataclass(frozen=True)
class Fetched:
    """A source whose files are all in ``data/raw``.

    Attributes
    ----------
    source : Source
        What it is.
    paths : tuple of Path
        Its files, in the order of the source.
    messages : tuple of str
        What was done to get them, one sentence each.
    """

    source: Source
    paths: tuple[Path, ...]
    messages: tuple[str, ...] = ()

    @property
    def main(self) -> Path:
        """The file to open: the grid, or the map (a shapefile; of a zip archive, the shapefile unpacked from it)."""
        first = self.paths[0]
        if self.source.files[0].unpack:
            return next(iter(sorted(_folder_of(first).rglob("*.shp"))), first)
        return first


def fetched(raw: Path, kind: str | None = None) -> list[Fetched]:
    """The sources of which every file is present, in the order of sources.toml.

    Parameters
    ----------
    raw : Path
        ``data/raw`` of a workspace.
    kind : str, optional
        ``gravity`` or ``geology``; both by default.
    """
    known = [source for source in sources.known_sources().values() if kind in (None, source.kind)]
    items = [Fetched(source, tuple(raw / file.name for file in source.files)) for source in known]
    return [item for item in items if all(path.is_file() for path in item.paths)]


def fetched_maps(raw: Path) -> list[tuple[str, Path]]:
    """The downloaded geological maps: (name of the shipped legend, file to open), fsu_geol before geo3al.

    Parameters
    ----------
    raw : Path
        ``data/raw`` of a workspace.
    """
    return [(item.source.legend or item.source.name, item.main) for item in fetched(raw, "geology")]


def fetched_gravity(raw: Path) -> Path:
    """The downloaded gravity grid.

    Parameters
    ----------
    raw : Path
        ``data/raw`` of a workspace.

    Raises
    ------
    InputError
        There is none.
    """
    for item in fetched(raw, "gravity"):
        return item.main
    raise InputError(
        f"No gravity grid in {raw}.",
        "`gravmap fetch` downloads WGM2012; or name your own: gravmap residual GRID --height 10km",
    )


def provenance(path: Path, raw: Path) -> dict[str, Any]:
    """Where an input file comes from: path, sha256 and, of a fetched one, source, citation and licence.

    Parameters
    ----------
    path : Path
        The file; all of it is hashed.
    raw : Path
        ``data/raw`` of the workspace.
    """
    entry: dict[str, Any] = {"path": path.name, "sha256": sha256(path), "source": "", "citation": "", "licence": ""}
    source = fetched_source(path, raw)
    if source is not None:
        entry |= {"source": source.files[0].url, "citation": source.citation, "licence": source.terms}
    return entry


def fetched_source(path: Path, raw: Path) -> Source | None:
    """The source that a file in ``data/raw`` is of; None for a file of the user's own.

    Parameters
    ----------
    path : Path
        The file.
    raw : Path
        ``data/raw`` of the workspace.
    """
    for item in fetched(raw):
        if any(path.exists() and other.exists() and path.samefile(other) for other in (*item.paths, item.main)):
            return item.source
    return None


def _folder_of(archive: Path) -> Path:
    """The folder that a zip archive is unpacked into."""
    return archive.with_suffix("")


def unpack(archive: Path) -> None:
    """Unpack a zip archive into a folder of its name, flat, all of it or nothing.

    Raises
    ------
    DownloadError
        The archive cannot be unpacked, or a file stands where the folder belongs.
    """
    folder = _folder_of(archive)
    if folder.is_dir() and folder.stat().st_mtime >= archive.stat().st_mtime:
        return
    if folder.exists() and not folder.is_dir():
        raise DownloadError(f"{folder} is a file, and a folder of this name is to be unpacked.", "Move it away.")
    hint = "Free some space, or choose another --workspace."
    try:
        with zipfile.ZipFile(archive) as pack:
            members = members_of(pack)
            size = sum(member.file_size for member in members.values())
            check_disk_space(folder, size, f"{archive.name} unpacked takes", hint)
            with atomic_folder(folder) as temporary:
                for name, member in members.items():
                    with pack.open(member) as packed, (temporary / name).open("wb") as stream:
                        shutil.copyfileobj(packed, stream)
    except (DownloadError, *ZIP_ERRORS) as error:
        reason = error.message if isinstance(error, DownloadError) else error
        raise DownloadError(f"{archive} cannot be unpacked: {reason}.", "Download it again with --overwrite.") from None


def write_prj(source: Source, path: Path) -> list[str]:
    """Write the reference system of a shapefile that comes without. Returns what was done."""
    prj = path.with_suffix(".prj")
    if source.crs is None or path.suffix != ".shp" or prj.exists():
        return []
    from pyproj import CRS

    write_text(prj, CRS.from_user_input(source.crs).to_wkt("WKT1_ESRI"))
    return [f"{prj.name} written: the source has none; its coordinates are {source.crs}"]
