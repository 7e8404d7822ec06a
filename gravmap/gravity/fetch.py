"""A named source -> verified files on disk; and what of it is there already.

A file is in ``data/raw`` under its own name only when it is whole and is what was asked for. A source without a hash on
record is trusted on first use: its hash is kept in ``NAME.sha256`` beside it and checked from then on; the same file
holds the hash a user accepted. A file of the right size and another hash is kept as ``NAME.unverified``.
"""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gravmap.errors import DownloadError, InputError
from gravmap.files import atomic_folder, atomic_path, sha256, write_text
from gravmap.gravity import sources
from gravmap.gravity.download import check_body, download
from gravmap.gravity.sources import Source, SourceFile
from gravmap.progress import Progress, silent
from gravmap.workspace import Workspace

log = logging.getLogger(__name__)

_SPARE_BYTES = 64 << 20


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
            return next(iter(sorted(_unpacked(first).rglob("*.shp"))), first)
        return first


def fetch(
    source: Source,
    raw: Path,
    *,
    origin: str | None = None,
    offline: bool = False,
    accept_hash: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Fetched:
    """Bring all files of a source into `raw`, verified.

    Parameters
    ----------
    source : Source
        What to get.
    raw : Path
        The folder, ``data/raw`` of a workspace.
    origin : str, optional
        A file, a folder or a URL (of the file, or of a folder that mirrors it) to take them from instead.
    offline : bool
        Only check what is there.
    accept_hash : bool
        Take a file of the right size whose hash is not the one on record.
    overwrite : bool
        Get them again although they are there.
    progress : callable
        Told bytes done and bytes in all.

    Returns
    -------
    Fetched

    Raises
    ------
    DownloadError
        A file could not be had, or is not what it should be; nothing half-written is left.
    """
    paths, news = [], []
    for file in source.files:
        path = raw / file.name
        try:
            news.append(_fetch_file(source.name, file, path, origin, offline, accept_hash, overwrite, progress))
        except DownloadError as error:
            raise DownloadError(
                f"{source.name}: {error.message}", error.hint or f"Try again later, or {source.bring}."
            ) from None
        paths.append(path)
        if file.unpack:
            _unpack(path)
    if source.crs is not None and paths[0].suffix == ".shp" and not (prj := paths[0].with_suffix(".prj")).exists():
        from pyproj import CRS

        write_text(prj, CRS.from_user_input(source.crs).to_wkt("WKT1_ESRI"))
        news.append(f"{prj.name} written: the source has none; its coordinates are {source.crs}")
    return Fetched(source, tuple(paths), tuple(news))


def fetched(workspace: Workspace, kind: str | None = None) -> list[Fetched]:
    """What fetch has left in a workspace, in the order of sources.toml.

    Parameters
    ----------
    workspace : Workspace
        Where to look.
    kind : str, optional
        ``gravity`` or ``geology``; both by default.
    """
    return list(_present(workspace.raw, kind))


def fetched_maps(raw: Path) -> list[tuple[str, Path]]:
    """The fetched geological maps: (name of the shipped legend, file to open), fsu_geol before geo3al.

    Parameters
    ----------
    raw : Path
        ``data/raw`` of a workspace.
    """
    return [(item.source.legend or item.source.name, item.main) for item in _present(raw, "geology")]


def fetched_gravity(raw: Path) -> Path:
    """The fetched gravity grid.

    Raises
    ------
    InputError
        There is none.
    """
    for item in _present(raw, "gravity"):
        return item.main
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
    for item in _present(raw, None):
        if any(path.exists() and other.exists() and path.samefile(other) for other in (*item.paths, item.main)):
            entry |= {
                "source": item.source.files[0].url,
                "citation": item.source.citation,
                "licence": item.source.terms,
            }
    return entry


def _present(raw: Path, kind: str | None) -> Iterator[Fetched]:
    for source in sources.known_sources().values():
        paths = tuple(raw / file.name for file in source.files)
        if kind in (None, source.kind) and all(path.is_file() for path in paths):
            yield Fetched(source, paths)


def _fetch_file(
    owner: str,
    file: SourceFile,
    path: Path,
    origin: str | None,
    offline: bool,
    accept_hash: bool,
    overwrite: bool,
    progress: Progress,
) -> str:
    """Get one file, or find it there and right. Returns what was done."""
    if path.exists() and not overwrite:
        return _check_present(owner, file, path, accept_hash)
    unverified = path.with_name(path.name + ".unverified")
    if accept_hash and unverified.exists() and unverified.stat().st_size == file.bytes:
        digest = sha256(unverified)
        unverified.replace(path)
        _keep_hash(path, digest)
        return f"{path.name} accepted with SHA-256 {digest}"
    if offline:
        raise DownloadError(
            f"{path} is missing, and --offline forbids to get it.", "Run again without --offline, or give --from PATH."
        )
    if file.bytes is not None:
        _check_disk(path, file.bytes)
    failures = []
    for place in _places(file, origin):
        try:
            return _from_place(file, path, place, accept_hash, progress)
        except _Unsure as unsure:
            # Another mirror would bring the same bytes; the user decides.
            raise DownloadError(str(unsure), f"To take it as it is: gravmap fetch {owner} --accept-hash") from None
        except DownloadError as error:
            failures.append(f"{place}: {error.message}")
            log.info("%s", failures[-1])
    raise DownloadError(f"{file.name} could not be had. " + "; ".join(failures) + ".")


class _Unsure(Exception):
    """The file has the right size and another hash than the one on record."""


def _check_present(owner: str, file: SourceFile, path: Path, accept_hash: bool) -> str:
    digest, expected = sha256(path), _expected(file, path)
    if expected is None:
        _keep_hash(path, digest)
        return f"{path.name} is there; no hash is on record, its own {digest} is kept and checked from now on"
    if digest in expected:
        return f"{path.name} is there and verified"
    if accept_hash and file.bytes in (None, path.stat().st_size):
        _keep_hash(path, digest)
        return f"{path.name} accepted with SHA-256 {digest}"
    raise DownloadError(
        f"{path} has the SHA-256 {digest}, on record is {expected[-1]}.",
        f"Fetch it again: gravmap fetch {owner} --overwrite; or take it as it is with --accept-hash.",
    )


def _hash_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _expected(file: SourceFile, path: Path) -> list[str] | None:
    """The hashes a file may have: the one on record and the one kept; None when there is neither."""
    known = [file.sha256] if file.sha256 else []
    if _hash_file(path).exists():
        known.append(_hash_file(path).read_text(encoding="utf-8").split()[0])
    return known or None


def _keep_hash(path: Path, digest: str) -> None:
    # The format of sha256sum, so that `sha256sum -c` reads it.
    write_text(_hash_file(path), f"{digest}  {path.name}\n")


def _places(file: SourceFile, origin: str | None) -> Sequence[str]:
    """Where to look, in order."""
    if origin is None:
        return (file.url, *file.mirrors)
    if "://" in origin:
        last = origin.rstrip("/").rpartition("/")[2].partition("?")[0]
        sibling = Path(last).stem == Path(file.name).stem and Path(last).suffix != ""
        if origin.endswith("/") or ("." not in last):
            return (origin.rstrip("/") + "/" + file.name,)
        # A URL of fsu_geol.shp also says where its .dbf and .shx are.
        return (origin.rpartition("/")[0] + "/" + file.name,) if sibling else (origin,)
    path = Path(origin)
    if path.is_dir():
        return (str(path / file.name),)
    sibling = path.stem == Path(file.name).stem and path.suffix != Path(file.name).suffix
    return (str(path.with_name(file.name)) if sibling else str(path),)


def _check_disk(path: Path, needed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < needed + _SPARE_BYTES:
        raise DownloadError(
            f"{path.name} needs {needed / 1e6:.0f} MB and {path.parent} has {free / 1e6:.0f} MB left.",
            "Free some space, or choose another --workspace.",
        )


def _from_place(file: SourceFile, path: Path, place: str, accept_hash: bool, progress: Progress) -> str:
    """Get a file from one place, check it, and only then give it its name."""
    with atomic_path(path) as temporary:
        if "://" in place:
            download(place, temporary, progress)
        elif not Path(place).is_file():
            raise DownloadError("no such file")
        else:
            shutil.copyfile(place, temporary)
        size = temporary.stat().st_size
        check_body(file, temporary)
        digest, expected = sha256(temporary), _expected(file, path)
        note = f"{path.name} fetched from {place} ({size / 1e6:.1f} MB"
        if expected is None:
            _keep_hash(path, digest)
            return f"{note}); no hash is on record, its own {digest} is kept and checked from now on"
        if digest in expected:
            return f"{note}, SHA-256 verified)"
        if accept_hash:
            _keep_hash(path, digest)
            return f"{note}); accepted with SHA-256 {digest}, on record is {expected[-1]}"
        if file.sha256:
            kept = path.with_name(path.name + ".unverified")
            temporary.replace(kept)
            raise _Unsure(
                f"{file.name} has the right size but the SHA-256 {digest}, on record is {file.sha256}."
                f" It may be a new edition; it is kept as {kept.name}."
            )
        raise _Unsure(
            f"{file.name} has changed since it was first fetched: its SHA-256 is {digest}, then it was {expected[-1]}."
        )


def _unpacked(archive: Path) -> Path:
    return archive.with_suffix("")


def _unpack(archive: Path) -> None:
    """Unpack a zip into a folder of its name, flat, whole or not at all."""
    folder = _unpacked(archive)
    if folder.is_dir() and folder.stat().st_mtime >= archive.stat().st_mtime:
        return
    with zipfile.ZipFile(archive) as pack, atomic_folder(folder) as temporary:
        for member in pack.infolist():
            # Only the name: a member cannot climb out of the folder.
            name = Path(member.filename).name
            if name and not member.is_dir():
                with pack.open(member) as packed, (temporary / name).open("wb") as stream:
                    shutil.copyfileobj(packed, stream)
