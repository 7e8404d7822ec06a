"""A named source -> verified files on disk.

A file is in ``data/raw`` under its own name only when it is whole and is what was asked for. A source without a hash on
record is trusted on first use: its hash is kept in ``NAME.sha256`` beside it and checked from then on; the same file
holds the hash a user accepted. A file of the right size and another hash is kept as ``NAME.unverified``, what a broken
connection or a kill left as ``NAME.part``.
"""

from __future__ import annotations

import functools
import logging
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gravmap.errors import DownloadError
from gravmap.files import atomic_folder, atomic_path, sha256, write_text
from gravmap.gravity.body import check_body, check_head
from gravmap.gravity.download import Job, check_disk, download, part_of
from gravmap.gravity.lock import only_one
from gravmap.gravity.present import Fetched as Fetched
from gravmap.gravity.present import fetched as fetched
from gravmap.gravity.present import fetched_gravity as fetched_gravity
from gravmap.gravity.present import fetched_maps as fetched_maps
from gravmap.gravity.present import provenance as provenance
from gravmap.gravity.present import unpacked
from gravmap.gravity.region_rows import CannotCut, fetch_rows, rows_present
from gravmap.gravity.sources import Source, SourceFile
from gravmap.progress import Progress, silent
from gravmap.regions import Region

log = logging.getLogger(__name__)


def fetch(
    source: Source,
    raw: Path,
    *,
    origin: str | None = None,
    offline: bool = False,
    accept_hash: bool = False,
    overwrite: bool = False,
    rows: Region | None = None,
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
    rows : Region, optional
        Of a gravity grid only the rows from the south to the north of this box, where the server and the format allow
        it; the whole file otherwise.
    progress : callable
        Told bytes done and bytes in all.

    Returns
    -------
    Fetched

    Raises
    ------
    DownloadError
        A file could not be had, or is not what it should be; nothing half-written has its name.
    """
    with only_one(raw, source.name):
        whole = raw / source.files[0].name
        if rows is not None and source.kind == "gravity" and (overwrite or not whole.exists()):
            got = _fetch_rows(source, whole, rows, origin, offline, overwrite, progress)
            if isinstance(got, Fetched):
                return got
            item = _fetch(source, raw, origin, offline, accept_hash, overwrite, progress)
            return replace(item, news=(got, *item.news))
        return _fetch(source, raw, origin, offline, accept_hash, overwrite, progress)


def _fetch_rows(
    source: Source,
    whole: Path,
    rows: Region,
    origin: str | None,
    offline: bool,
    overwrite: bool,
    progress: Progress,
) -> Fetched | str:
    """The rows of a region; or the reason why they cannot be had alone."""
    for part in rows_present(whole):
        if part.covers(rows) and not overwrite:
            kept = _hash_file(part.path)
            if kept.exists() and kept.read_text(encoding="utf-8").split()[:1] == [sha256(part.path)]:
                return Fetched(source, (part.path,), (f"{part.path.name} is there and as it was fetched",))
            log.warning("%s is not as it was fetched; getting it again.", part.path)
    if offline:
        return "Nothing of this region is there"
    failures, reasons = [], []
    for place in _places(source.files[0], origin):
        if "://" not in place:
            return "Rows are cut on a server; a file at hand is taken whole"
        try:
            path, news = fetch_rows(source.files[0], whole, place, rows, progress)
        except CannotCut as error:
            reasons.append(f"{place}: {error}")
        except DownloadError as error:
            failures.append(f"{place}: {error.message}")
        else:
            return Fetched(source, (path,), (news,))
        log.info("%s", (reasons + failures)[-1])
    if reasons:
        return f"The rows of the region cannot be had alone ({'; '.join(reasons)}): the whole file instead"
    raise DownloadError(
        f"{source.name}: {source.files[0].name} could not be had. {'; '.join(failures)}.",
        f"Try again later, or {source.bring}.",
    )


def _fetch(
    source: Source,
    raw: Path,
    origin: str | None,
    offline: bool,
    accept_hash: bool,
    overwrite: bool,
    progress: Progress,
) -> Fetched:
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
        part = part_of(path)
        check_disk(path.parent, file.bytes - (part.stat().st_size if part.exists() else 0), file.name)
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


def _from_place(file: SourceFile, path: Path, place: str, accept_hash: bool, progress: Progress) -> str:
    """Get a file from one place, check it, and only then give it its name."""
    if "://" not in place:
        if not Path(place).is_file():
            raise DownloadError("no such file")
        with atomic_path(path) as temporary:
            check_disk(path.parent, Path(place).stat().st_size, file.name)
            shutil.copyfile(place, temporary)
            check_body(file, temporary)
            return _judge(file, path, temporary, place, accept_hash)
    job = Job(
        place,
        part_of(path),
        expected=file.bytes,
        hashed=file.sha256 is not None,
        look=functools.partial(check_head, file),
    )
    went_on = download(job, progress)
    try:
        check_body(file, job.part)
        if went_on and not _is_expected(file, path, job.part):
            # The parts may be of two versions of the file: from one piece, it is what the server has.
            log.info("%s was put together from parts and is not right; getting it in one piece.", file.name)
            raise DownloadError("put together wrongly")
    except DownloadError:
        job.forget()
        if not went_on:
            raise
        download(job, progress)
    try:
        check_body(file, job.part)
        news = _judge(file, path, job.part, place, accept_hash)
        if job.part.exists():
            job.part.replace(path)
    finally:
        job.forget()
    return news


def _is_expected(file: SourceFile, path: Path, came: Path) -> bool:
    expected = _expected(file, path)
    return expected is None or sha256(came) in expected


def _judge(file: SourceFile, path: Path, came: Path, place: str, accept_hash: bool) -> str:
    """Compare the hash of what came with what it may be. Returns what was done."""
    size, digest, expected = came.stat().st_size, sha256(came), _expected(file, path)
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
        came.replace(kept)
        raise _Unsure(
            f"{file.name} has the right size but the SHA-256 {digest}, on record is {file.sha256}."
            f" It may be a new edition; it is kept as {kept.name}."
        )
    raise _Unsure(
        f"{file.name} has changed since it was first fetched: its SHA-256 is {digest}, then it was {expected[-1]}."
    )


def _unpack(archive: Path) -> None:
    """Unpack a zip into a folder of its name, flat, whole or not at all."""
    folder = unpacked(archive)
    if folder.is_dir() and folder.stat().st_mtime >= archive.stat().st_mtime:
        return
    with zipfile.ZipFile(archive) as pack, atomic_folder(folder) as temporary:
        for member in pack.infolist():
            # Only the name: a member cannot climb out of the folder.
            name = Path(member.filename).name
            if name and not member.is_dir():
                with pack.open(member) as packed, (temporary / name).open("wb") as stream:
                    shutil.copyfileobj(packed, stream)
