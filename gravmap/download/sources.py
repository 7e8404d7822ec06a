"""The sources that `gravmap fetch` knows by name, read from sources.toml, and what their files must be."""

from __future__ import annotations

import difflib
import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gravmap.errors import DownloadError, OptionError
from gravmap.records import parse_record

# How much of a file shows whether it can be the right one.
HEAD_BYTES = 512
# No file is received, and no archive unpacked, beyond this where the size is not on record: the parts of a shapefile
# cannot be larger.
MOST_BYTES = 2 << 30
# The longest name that common file systems take.
_LONGEST_NAME_BYTES = 255
# What zipfile raises: RuntimeError of encrypted members, NotImplementedError of unknown compressions, else of damage.
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error)
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes
    ----------
    name : str
        Its name in ``data/raw``.
    url : str
        Its address.
    mirrors : tuple of str
        Other addresses, in the order in which they are tried.
    bytes, sha256
        Its size and hash; None where nobody has recorded it.
    magic : tuple of str
        The first bytes it may have, hexadecimal; any when empty.
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

    @property
    def most_bytes(self) -> int:
        """The size beyond which a download of it is given up."""
        return self.bytes if self.bytes is not None else MOST_BYTES

    def addresses(self, origin: str | None = None) -> tuple[str, ...]:
        """The addresses to try, in order.

        Parameters
        ----------
        origin : str, optional
            A file, a folder or a URL (of the file, or of a folder that mirrors it) to take instead of its own.
        """
        if origin is None:
            return (self.url, *self.mirrors)
        folder, _, last = origin.rpartition("/")
        if "." not in last if "://" in origin else Path(origin).is_dir():
            return (f"{origin.rstrip('/')}/{self.name}",)
        own, given = Path(self.name), Path(last.partition("?")[0])
        # The address of fsu_geol.shp is also that of its .dbf and .shx.
        if given.stem == own.stem and given.suffix not in ("", own.suffix):
            return (f"{folder or '.'}/{self.name}",)
        return (origin,)


@dataclass(frozen=True)
class Source:
    """A data set that can be fetched by name.

    Attributes
    ----------
    name, title, layout : str
        Its name, its title, and the format of its files.
    kind : str
        ``gravity`` or ``geology``.
    terms, citation : str
        The terms of use, and how to cite it.
    bring : str
        What to do when it cannot be downloaded.
    files : tuple of SourceFile
        All of them are needed.
    legend : str or None
        The shipped legend of a geological map.
    crs : str or None
        Its reference system, where the files do not name it.
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


def public_address(address: str) -> str:
    """An address without the user name and password that it may hold, for messages and records.

    Examples
    --------
    >>> public_address("https://me:secret@host.example/grid.grd")
    'https://host.example/grid.grd'
    """
    return re.sub(r"(?<=://)[^/?#]*@", "", address)


def check_start(file: SourceFile, head: bytes, size: int | None) -> None:
    """Refuse a web page, and other first bytes or another size than those on record.

    Parameters
    ----------
    file : SourceFile
        What should come.
    head : bytes
        The first HEAD_BYTES of what came, or all of it.
    size : int or None
        Its size, where it is known.

    Raises
    ------
    DownloadError
        Names what came instead.
    """
    if head.lstrip().lower().startswith(_WEB_PAGE):
        raise DownloadError("a web page came instead of the file")
    if file.magic and not any(head.startswith(bytes.fromhex(magic)) for magic in file.magic):
        shown = head[:40].decode("ascii", "replace").replace("\n", " ")
        raise DownloadError(f"the format is wrong; the file begins with {shown!r}" if head else "an empty file came")
    if file.bytes is not None and size is not None and size < file.bytes:
        raise DownloadError(f"the file was cut short: {size} bytes instead of {file.bytes}")
    if size is not None and size > file.most_bytes:
        raise too_large(file, size)


def too_large(file: SourceFile, size: int) -> DownloadError:
    """The error for a file that is larger than it can be."""
    limit = f"instead of {file.bytes}" if file.bytes is not None else f"and at most {MOST_BYTES} are taken"
    return DownloadError(f"too much came: {size} bytes {limit}")


def members_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip archive by the names under which they are unpacked, without folders.

    Raises
    ------
    DownloadError
        A name is not valid or occurs twice, or the files are too large together.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        # Only the last part of its path: a member cannot leave the folder.
        name = Path(member.filename).name
        if member.is_dir() or (name.startswith(".") and name != ".."):  # hidden: what a desktop keeps beside files
            continue
        if name in ("", "..") or len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME_BYTES:
            raise DownloadError(f"the zip archive has a member whose name is not valid: {member.filename[:60]!r}")
        if name in members:
            raise DownloadError(f"the zip archive has two members called {name!r}")
        members[name] = member
    size = sum(member.file_size for member in members.values())
    if size > MOST_BYTES:
        raise DownloadError(f"the zip archive would unpack to {size / 1e9:.1f} GB, which is too much")
    return members


def check_content(file: SourceFile, path: Path) -> None:
    """Refuse wrong first bytes, a wrong size, and a zip archive that is broken or cannot be unpacked.

    Raises
    ------
    DownloadError
        Names what came instead.
    """
    with path.open("rb") as stream:
        check_start(file, stream.read(HEAD_BYTES), path.stat().st_size)
    if file.unpack:
        try:
            with zipfile.ZipFile(path) as archive:
                members_of(archive)
                broken = archive.testzip()
        except ZIP_ERRORS as error:
            raise DownloadError(f"what came is not a valid zip archive: {error}") from None
        if broken is not None:
            raise DownloadError(f"what came is a broken zip archive: the checksum of its member {broken} is wrong")


def _file(table: dict[str, Any]) -> SourceFile:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return SourceFile(**plain)


@cache
def known_sources() -> dict[str, Source]:
    """Every source by its name, in the order in which they are fetched by default."""
    text = resources.files("gravmap.download").joinpath("sources.toml").read_text(encoding="utf-8")
    sources = {}
    for name, table in parse_record(text, dict[str, dict[str, Any]], "sources.toml", toml=True).items():
        files = tuple(_file(file) for file in table.pop("files"))
        sources[name] = Source(name=name, files=files, **table)
    return sources


def find_source(name: str) -> Source:
    """The source called `name`.

    Raises
    ------
    OptionError
        No source has this name; the message names the nearest one, the hint all.

    Examples
    --------
    >>> find_source("wgm2012").files[0].name
    'WGM2012_Bouguer_ponc_2min.grd'
    """
    sources = known_sources()
    if name in sources:
        return sources[name]
    near = difflib.get_close_matches(name.lower(), sources, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise OptionError(f"No source is called {name!r}.{meant}", f"Known: {', '.join(sources)}.")
