"""Checks of vector files against what they state themselves, before and after GDAL reads them.

GDAL leaves out what it cannot read, often without a word: a record of zeros in a Shapefile is a feature without
geometry, a feature of an unknown type is not there. Here the number of features, which of them have a geometry, and
its bounds are read from the file independently: from the index of a Shapefile, from the tables of a GeoPackage, from
the text of a GeoJSON file.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = (".shp", ".gpkg", ".geojson", ".fgb", ".gdb")
_SIDECARS = (".shx", ".dbf", ".prj", ".cpg")
# Parsing a GeoJSON file takes about eight times its size in memory.
_LARGEST_GEOJSON_BYTES = 150_000_000
_DEFLATE64 = 9  # GDAL unpacks it, Python does not
_WITH_BOUNDS = (3, 13, 23, 5, 15, 25, 31)  # shape types of lines, polygons and multipatches
DAMAGED = "The file is damaged or incomplete: copy or download it again, or save it again with GIS software."


def features(count: int) -> str:
    """A number of features, for messages."""
    return f"{count} feature{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class Contents:
    """What a file states about the features of a layer.

    Attributes
    ----------
    missing : ndarray, shape (features,), bool
        Features without a geometry, in the order of the file.
    bounds : ndarray, shape (features, 4), float64, or None
        Minimum x, minimum y, maximum x, maximum y; NaN where not stated.
    """

    missing: NDArray[np.bool_]
    bounds: NDArray[np.float64] | None = None

    def check(self, path: Path, read_missing: NDArray[np.bool_], read_bounds: NDArray[np.float64]) -> None:
        """Raise InputError unless the features read are those stated.

        Parameters
        ----------
        path : Path
            The file, for messages.
        read_missing : ndarray, shape (n,), bool
            Features read without a geometry.
        read_bounds : ndarray, shape (n, 4), float64
            Bounds of the geometries read; NaN without one, or where they are not to be compared.
        """
        if len(read_missing) != len(self.missing):
            raise InputError(f"{path} states {features(len(self.missing))}; {len(read_missing)} can be read.", DAMAGED)
        lost = np.flatnonzero(read_missing & ~self.missing)
        if lost.size:
            raise InputError(
                f"{path} has {lost.size} of {len(self.missing)} features whose geometry cannot be read; the first is "
                f"number {lost[0] + 1}.",
                DAMAGED,
            )
        if self.bounds is None:
            return
        stated = np.isfinite(self.bounds).all(axis=1) & np.isfinite(read_bounds).all(axis=1)
        size = np.ptp(self.bounds.reshape(-1, 2, 2), axis=1).max(axis=1)
        # Some programs round the bounds to float32.
        tolerance = 1e-3 * size + 1e-6 * np.abs(self.bounds).max(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(read_bounds - self.bounds).max(axis=1)
        differ = stated & ~(apart <= tolerance)
        first = np.flatnonzero(differ)
        # A program that writes wrong bounds does so for every feature.
        if first.size and (first.size < np.count_nonzero(stated) or first.size == 1):
            raise InputError(
                f"{path} states bounds for {first.size} of {len(self.missing)} features that their coordinates do not "
                f"have; the first is number {first[0] + 1}.",
                DAMAGED,
            )


def zip_member(path: Path) -> str:
    """Name of the one map in a zip archive, after a test of the checksums of its files.

    Raises
    ------
    InputError
        The archive is damaged or encrypted, or does not contain exactly one map.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if "__MACOSX" not in name]
            inside = [name for name in names if name.lower().endswith(SUFFIXES) and ".gdb/" not in name.lower()]
            # A file geodatabase is a folder, which need not have an entry of its own.
            folders = [name[: name.lower().index(".gdb/") + 4] for name in names if ".gdb/" in name.lower()]
            inside = list(dict.fromkeys(inside + folders))
            if not inside:
                raise InputError(f"{path} contains no map ({', '.join(SUFFIXES)}).", "Unpack it and give the file.")
            if len(inside) > 1:
                raise InputError(
                    f"{path} contains several maps: {', '.join(inside[:8])}.", "Unpack it and give one file."
                )
            stem = inside[0].rpartition(".")[0]
            for member in archive.infolist():
                if not member.filename.startswith(stem) or member.compress_type == _DEFLATE64:
                    continue
                with archive.open(member) as stream:  # reading to the end checks the CRC
                    while stream.read(1 << 20):
                        pass
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a valid zip archive, or is damaged: {error}.",
            "It may be a truncated download or a web page saved under that name: download it again.",
        ) from None
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or compressed in another way
        raise InputError(f"{path} cannot be unpacked: {error}.", "Unpack it and give the file.") from None
    return inside[0]


class Bytes:
    """The bytes of the files that make up a map, in a folder or in a zip archive."""

    def __init__(self, path: Path, member: str = "") -> None:
        self._path = path
        self._member = member
        self.suffix = Path(member).suffix.lower() if member else path.suffix.lower()

    def read(self, suffix: str | None = None) -> NDArray[np.uint8] | None:
        """The file, or the one beside it with another suffix; None if it is missing.

        A file that is not in an archive is mapped rather than read.
        """
        if not self._member:
            path = self._path if suffix is None else _beside(self._path, suffix)
            if path is None or not path.is_file():
                return None
            return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        with zipfile.ZipFile(self._path) as archive:
            wanted = self._member if suffix is None else str(Path(self._member).with_suffix(suffix))
            for name in archive.namelist():
                if name.lower() == wanted.lower():
                    return np.frombuffer(archive.read(name), np.uint8)
        return None

    @property
    def path(self) -> Path | None:
        """The file itself; None in an archive."""
        return None if self._member else self._path


def _beside(path: Path, suffix: str) -> Path | None:
    for each in (suffix, suffix.upper()):
        if path.with_suffix(each).is_file():
            return path.with_suffix(each)
    return None


def open_sqlite(source: Bytes, path: Path) -> sqlite3.Connection | None:
    """A read-only connection to a GeoPackage or another SQLite file; None if the file is something else.

    Raises
    ------
    InputError
        The database is damaged, or its tables of contents are views.
    """
    if source.path is not None and not source.path.is_file():
        return None
    data = source.read() if source.suffix in (".gpkg", ".sqlite", ".db") or source.path is not None else None
    if data is None or bytes(data[:16]) != b"SQLite format 3\0":
        return None
    connection = None
    try:
        if source.path is None:
            whole = bytearray(data.tobytes())
            whole[18:20] = b"\1\1"  # a database in memory has no write-ahead log
            connection = sqlite3.connect(":memory:")
            connection.deserialize(bytes(whole))
        else:
            connection = _connect(source.path)
        if connection is not None:
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            views = _views(connection)
            if any(name.lower().startswith(("gpkg_", "rtree_", "geometry_columns")) for name in views):
                raise InputError(f"{path} has views in place of its tables of contents.", "Save its layers again.")
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the second from damaged SQL
        raise InputError(f"{path} is a damaged SQLite database: {error}.", DAMAGED) from None
    return connection


def _connect(path: Path) -> sqlite3.Connection | None:
    for mode in ("mode=ro", "mode=ro&immutable=1"):  # the second where the folder is read-only
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?{mode}", uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            log.debug("%s cannot be opened with %s: %s", path, mode, error)
    return None


def _views(connection: sqlite3.Connection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}


def sqlite_views(connection: sqlite3.Connection | None) -> set[str]:
    """Names of the views of a database; a query without end may hide behind one."""
    return set() if connection is None else _views(connection)


def sqlite_contents(connection: sqlite3.Connection, layer: str, path: Path) -> Contents | None:
    """What the table of a layer of a GeoPackage contains, after a check of its pages.

    Raises
    ------
    InputError
        The table is damaged.
    """
    table = '"' + layer.replace('"', '""') + '"'
    try:
        verdict = connection.execute(f"PRAGMA quick_check({table})").fetchone()
        if verdict is not None and verdict[0] != "ok":
            raise InputError(f"The table {layer} of {path} is damaged: {str(verdict[0]).splitlines()[-1]}.", DAMAGED)
        columns = connection.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE lower(table_name) = lower(?)", (layer,)
        ).fetchall()
        if len(columns) != 1:
            return None
        column = '"' + str(columns[0][0]).replace('"', '""') + '"'
        heads = [row[0] for row in connection.execute(f"SELECT substr({column}, 1, 40) FROM {table} ORDER BY rowid")]
    except sqlite3.OperationalError as error:  # not a GeoPackage
        log.debug("%s is not checked: %s", path, error)
        return None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise InputError(f"The table {layer} of {path} is damaged: {error}.", DAMAGED) from None
    missing = np.zeros(len(heads), dtype=bool)
    bounds = np.full((len(heads), 4), np.nan)
    for k, head in enumerate(heads):
        if not isinstance(head, bytes) or len(head) < 8:
            missing[k] = head is None
            continue
        flags = head[3]
        missing[k] = bool(flags & 16)
        if (flags >> 1) & 7 in (1, 2, 3, 4) and len(head) == 40:
            bounds[k] = np.frombuffer(head, "<f8" if flags & 1 else ">f8", 4, 8)[[0, 2, 1, 3]]
    return Contents(missing, bounds)


def shapefile_contents(source: Bytes, path: Path) -> Contents | None:
    """What the index of a Shapefile states; None if there is no index, which GDAL reports itself.

    Raises
    ------
    InputError
        The files do not fit each other, or one is truncated.
    """
    index, shapes, table = source.read(".shx"), source.read(), source.read(".dbf")
    if index is None or shapes is None or len(index) < 100 or len(shapes) < 100:
        return None
    words = int(index[24:28].view(">i4")[0])
    count = (words * 2 - 100) // 8
    if words * 2 > len(index) or count < 0:
        raise InputError(f"The .shx of {path} has {len(index)} bytes and states {words * 2}.", DAMAGED)
    entries = np.frombuffer(index[100 : 100 + 8 * count].tobytes(), ">i4").reshape(count, 2).astype(np.int64) * 2
    offset, length = entries.T
    blank = (offset == 0) & (length == 0)
    outside = ~blank & ((offset < 100) | (length < 4) | (offset + 8 + length > len(shapes)))
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{path} has {len(shapes)} bytes; its .shx places {np.count_nonzero(outside)} of {count} records outside "
            f"of it, the first is number {first + 1}.",
            "The .shp is truncated, or the .shx belongs to another file: copy or download both again.",
        )
    offset = np.where(blank, 0, offset)
    kind = _gather(shapes, offset + 8, "<i4", 1)[:, 0]
    missing = blank | ((kind == 0) & (length <= 12))
    bounds = np.full((count, 4), np.nan)
    whole = np.isin(kind, _WITH_BOUNDS) & ~blank & (length >= 36)
    bounds[whole] = _gather(shapes, offset[whole] + 12, "<f8", 4)
    if table is not None and len(table) >= 32:
        rows = int(table[4:8].view("<u4")[0])
        first, width = (int(size) for size in table[8:12].view("<u2"))
        if rows != count:
            raise InputError(
                f"{path} has {count} shapes, but its .dbf has {rows} rows.",
                "The two files do not belong together, or one is damaged: copy or download both again.",
            )
        if first + rows * width > len(table):
            raise InputError(f"The .dbf of {path} is truncated: it has {len(table)} bytes for {rows} rows.", DAMAGED)
        kept = table[first + np.arange(rows) * width] != ord("*")  # GDAL leaves deleted rows out
        missing, bounds = missing[kept], bounds[kept]
    return Contents(missing, bounds)


def _gather(data: NDArray[np.uint8], at: NDArray[np.int64], dtype: str, count: int) -> NDArray[Any]:
    """Numbers at given bytes of a file, shape (len(at), count)."""
    size = np.dtype(dtype).itemsize * count
    return np.ascontiguousarray(data[at[:, None] + np.arange(size)]).view(dtype)


def states_encoding(source: Bytes) -> bool:
    """Whether a Shapefile states the encoding of its text: by a .cpg, or by the language byte of its .dbf.

    The language byte 0x57 stands for whatever encoding the computer had.
    """
    if source.suffix != ".shp" or source.read(".cpg") is not None:
        return True
    table = source.read(".dbf")
    return table is None or len(table) < 32 or int(table[29]) not in (0, 0x57)


def geojson_contents(source: Bytes, path: Path, same_crs: Callable[[str], bool]) -> Contents | None:
    """What the text of a GeoJSON file contains; None for a file too large to parse twice.

    Parameters
    ----------
    source : Bytes
        The file.
    path : Path
        For messages.
    same_crs : callable
        Whether a name of a coordinate reference system means the one that GDAL found.

    Raises
    ------
    InputError
        The file is not valid JSON, or has features that are none.
    """
    data = source.read()
    if data is None or len(data) > _LARGEST_GEOJSON_BYTES:
        return None
    text = data.tobytes().decode("utf-8-sig", "replace")
    try:
        document = json.loads(text, object_pairs_hook=_without_repeated_members)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.", DAMAGED) from None
    if not isinstance(document, dict):
        return None
    crs = document.get("crs")
    name = None
    if isinstance(crs, dict) and crs.get("type") == "name" and isinstance(crs.get("properties"), dict):
        name = crs["properties"].get("name")
    # GDAL takes what it does not understand for WGS 84.
    understood = isinstance(crs, dict) and (crs.get("type") in ("EPSG", "OGC") if name is None else same_crs(str(name)))
    if crs is not None and not understood:
        raise InputError(
            f'{path} has a member "crs" that is not understood: {json.dumps(crs)[:80]}.',
            'Remove it if the coordinates are degrees on WGS 84, else write "name": "urn:ogc:def:crs:EPSG::NUMBER".',
        )
    if "\\u0000" in text:
        raise InputError(f"{path} has text with the character U+0000.", "Remove it.")
    if document.get("type") == "FeatureCollection":
        features = document.get("features")
        features = features if isinstance(features, list) else []
        for number, feature in enumerate(features, start=1):
            if not isinstance(feature, dict) or feature.get("type") != "Feature":
                raise InputError(f"Item {number} of the features of {path} is not a feature.", DAMAGED)
        geometries = [feature.get("geometry") for feature in features]
    elif document.get("type") == "Feature":
        geometries = [document.get("geometry")]
    elif "coordinates" in document or "geometries" in document:
        geometries = [document]
    else:
        return None
    return Contents(np.array([_is_blank(geometry) for geometry in geometries], dtype=bool))


def _without_repeated_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a member that it has twice is what is left of two features that were cut."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        for name in ("type", "features", "geometry", "properties", "coordinates"):
            if names.count(name) > 1:
                raise ValueError(f'an object has the member "{name}" twice')
    return made


def _is_blank(geometry: Any) -> bool:
    """Whether a geometry is null or has no coordinates."""
    if geometry is None:
        return True
    if not isinstance(geometry, dict):
        return False
    inside = geometry.get("geometries") if "geometries" in geometry else geometry.get("coordinates", 0)
    while isinstance(inside, list) and inside:
        inside = inside[0]
    return inside == []
