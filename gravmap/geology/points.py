"""Reading points with a class or a depth, such as boreholes that reached bedrock, from a vector file or a table.

pyogrio is slow to import, so this module is imported only where points are read.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.legend import Legend, normalize_code
from gravmap.geology.vector import code_text, crs_transformers, geometry_types, open_vector
from gravmap.geology.wkb import take_parts

log = logging.getLogger(__name__)

LON_NAMES = ("lon", "longitude", "long")
LAT_NAMES = ("lat", "latitude")
_UNITS_M = {"m": 1.0, "km": 1000.0, "ft": 0.3048}
"""Units with which the name of a column of depths may end; without one it holds metres."""
DEPTH_NAMES = tuple(
    f"{what}_{unit}"
    for unit in _UNITS_M
    for what in ("depth", "cover", "basement", "depth_to_basement", "basement_depth", "cover_thickness")
)
"""Columns that are read as depths of the basement without being named; their names say the unit."""
_SHALLOW_M = 20.0
TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Points:
    """Points, their class and their depth.

    Attributes
    ----------
    path : Path
        The file.
    field : str
        Name of the field with the class, as spelled in the file; empty if none is read.
    lon, lat : ndarray, shape (n,), float64
        Degrees on WGS 84.
    values : list of str
        Values of the field; empty if blank.
    crs : str
        Coordinate reference system of the file.
    unplaced : int
        Number of rows without a valid position, which are left out.
    depth_m : ndarray, shape (n,), float64, optional
        Depth of the basement below the surface, metres; NaN if blank. None without such a column.
    depth_field : str
        Name of its column.
    legend : Legend, optional
        The legend whose codes the values are.
    """

    path: Path
    field: str
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    values: list[str]
    crs: str
    unplaced: int
    depth_m: NDArray[np.float64] | None = None
    depth_field: str = ""
    legend: Legend | None = None


def read_points(path: Path, field: str | None, depth_column: str | None = None) -> Points:
    r"""Read points with their class and the depth of the basement.

    Parameters
    ----------
    path : Path
        A table (comma, semicolon or tab) with columns lon and lat in degrees, with decimal points or commas, or a
        vector file of GDAL in any CRS, with points or multipoints.
    field : str, optional
        The column with the class.
    depth_column : str, optional
        The column with the depth from the surface, blank where the basement was not reached; by default the first of
        `DEPTH_NAMES` that the file has, if any. In metres, but where the name of the column ends with km or ft.

    Returns
    -------
    Points
        In the order of the file; transformed to WGS 84, datum shift included.

    Raises
    ------
    InputError
        The file is missing, or has no such field, no coordinates in degrees, no CRS, or no points; or a depth is
        negative or not a number.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gravmap.geology.points import read_points
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "wells.csv"
    ...     _ = path.write_text("lon,lat,rock\n82.5,44.1,Devonian\n83.0,44.7,Granite\n")
    ...     wells = read_points(path, "rock")
    >>> wells.values, wells.lon.tolist()
    (['Devonian', 'Granite'], [82.5, 83.0])
    """
    if not path.exists():
        raise InputError(f"The file of points {path} is missing.", "Check the path given with --points.")
    read = _from_table if path.suffix.lower() in TABLES else _from_vector
    points = read(path, field, depth_column)
    if not len(points.values):
        raise InputError(
            f"{path} has no point with a position.", "Each row needs a longitude and a latitude, or a geometry."
        )
    return points


def _from_table(path: Path, field: str | None, depth_column: str | None) -> Points:
    if not path.is_file():
        raise InputError(f"{path} is not a file.", "Give a table, or a vector file such as a GeoPackage.")
    try:
        # read_text would turn line breaks inside quotes into others.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}.", "Save it as UTF-8.") from None
    first = text.lstrip().partition("\n")[0].partition("\r")[0]
    delimiter = max(",;\t", key=first.count)
    if not text.strip():
        raise InputError(
            f"{path} is empty.", "A table needs a header line with lon and lat, then one line for each point."
        )
    header, *rows = _rows(text, delimiter, path)
    names = [name.strip() for name in header]
    if rows and len(rows[-1]) < len(names) and text[-1] not in "\r\n":
        raise InputError(
            f"{path} ends inside a row: {delimiter.join(rows[-1])[:80]}.",
            "The file is incomplete: copy it again, or end the row with a line break.",
        )
    for number, row in enumerate(rows, 1):
        if any(value.strip() for value in row[len(names) :]):
            raise InputError(
                f"Row {number} of {path} has {len(row)} values; its header has {len(names)}: "
                f"{delimiter.join(row)[:80]}.",
                "Write numbers with decimal points, and texts that contain the separator in quotes.",
            )
    lon_name, lat_name = _one_of(LON_NAMES, names), _one_of(LAT_NAMES, names)
    if lon_name is None or lat_name is None:
        raise InputError(
            f"{path} has no columns lon and lat; its columns are {', '.join(names)}.",
            "Name them lon and lat (degrees), or give a vector file.",
        )
    column, depth = _field(field, names, path), _depth_field(depth_column, names, path)

    def column_of(name: str) -> list[str]:
        at = names.index(name)
        return [row[at] if at < len(row) else "" for row in rows]

    lon, lat = (np.array([_number(value) for value in column_of(name)]) for name in (lon_name, lat_name))
    classes = column_of(column) if column else [""] * len(rows)
    for number, value in enumerate(classes, 1):
        if delimiter in value and len(value.splitlines()) > 1:
            raise InputError(
                f"{path}: the {column} of row {number} is several lines, {value[:40]!r}: a quote is not closed.",
                "Close the quote, or delete it.",
            )
    depths = _depths(column_of(depth), range(1, len(rows) + 1), path, depth) if depth else None
    values = [normalize_code(value) for value in classes]
    return _with_position(Points(path, column, lon, lat, values, "EPSG:4326", 0, depths, depth))


def _rows(text: str, delimiter: str, path: Path) -> list[list[str]]:
    """Rows of a table that are not blank.

    Raises
    ------
    InputError
        A quote is not closed, so that it would take in the rows after it; or a value is too long.
    """
    for strict in (True, False):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
        rows, line = [], 1
        try:
            for row in reader:
                broken = [value for value in row if "\n" in value or "\r" in value]
                if not strict and any(delimiter in value or '"' in value for value in broken):
                    break  # a quote that takes in rows up to the next one
                if any(value.strip() for value in row):
                    rows.append(row)
                line = reader.line_num + 1
            else:
                return rows
        except csv.Error as error:
            if strict and "expected after" in str(error):  # text after a closing quote, which only matters across lines
                continue
        raise InputError(
            f"{path}, line {line}: a quote is not closed, or a value has more than {csv.field_size_limit()} letters.",
            "Close the quote, or delete it.",
        )
    raise AssertionError


def _from_vector(path: Path, field: str | None, depth_column: str | None) -> Points:
    file = open_vector(path)
    layers = [name for name, kind in file.layers if "Point" in kind] or [name for name, _ in file.layers]
    if len(layers) != 1:
        raise InputError(
            f"{path} has {len(layers)} layers that may be the points: {', '.join(layers) or 'none'}.",
            f"Save the layer of the points as a file: ogr2ogr OUT.gpkg {path} LAYER",
        )
    info = file.info(layers[0])
    names = [str(name) for name in info["fields"]]
    column, depth = _field(field, names, path), _depth_field(depth_column, names, path)
    crs, _, to_degrees = crs_transformers(info["crs"], path, "Add its .prj, or give a CSV with lon and lat in degrees.")
    shapes, table = file.read(layers[0], columns=list(dict.fromkeys(name for name in (column, depth) if name)))
    points = take_parts(shapes, 0)
    if len(shapes) and not np.isin(shapely.get_type_id(points), (0, 4)).any():
        raise InputError(
            f"{path} has {', '.join(geometry_types(shapes))}, no points.", "Boreholes are points, one for each row."
        )
    # The points of a multipoint have the class of its row; a row without points stays, without a position.
    parts, owner = shapely.get_parts(points, return_index=True)
    bare = np.setdiff1d(np.arange(len(points)), owner)
    if len(parts) + len(bare) > len(points):
        log.info("%s has multipoints: %d points in %d rows.", path, len(parts), len(points) - len(bare))
    parts, owner = np.append(parts, points[bare]), np.append(owner, bare)
    order = np.argsort(owner, kind="stable")
    parts, owner = parts[order], owner[order]
    parts[shapely.is_empty(parts)] = None
    x, y = shapely.get_x(parts), shapely.get_y(parts)  # NaN for other geometries
    if to_degrees is not None and len(parts):
        x, y = to_degrees.transform(x, y, errcheck=False)
    values = [code_text(value) for value in table[column][owner]] if column else [""] * len(owner)
    depths = _depths([code_text(value) for value in table[depth][owner]], owner + 1, path, depth) if depth else None
    return _with_position(Points(path, column, np.asarray(x), np.asarray(y), values, crs, 0, depths, depth))


def _with_position(points: Points) -> Points:
    """The points with a valid position; longitudes from -180 to 180."""
    lon, lat, path = points.lon, points.lat, points.path
    given = np.isfinite(lon) & np.isfinite(lat)
    valid = given & (np.abs(lat) <= 90) & (np.abs(lon) <= 360)
    if given.any() and not valid.any():
        first = int(np.flatnonzero(given)[0])
        raise InputError(
            f"The positions of {path} are not degrees: the first is lon {lon[first]:g}, lat {lat[first]:g}.",
            "Coordinates in metres need a coordinate reference system: give a GeoPackage or Shapefile that has one.",
        )
    return replace(
        points,
        lon=(lon[valid] + 180) % 360 - 180,
        lat=lat[valid],
        values=[value for value, kept in zip(points.values, valid, strict=True) if kept],
        unplaced=int(np.count_nonzero(~valid)),
        depth_m=None if points.depth_m is None else points.depth_m[valid],
    )


def _depth_field(wanted: str | None, names: Sequence[str], path: Path) -> str:
    """The column of depths: the one named, else one whose name is known; empty without one."""
    if wanted is not None:
        return _field(wanted, names, path, "depth", "--depth-column")
    return _one_of(DEPTH_NAMES, names) or ""


def _depths(values: Sequence[str], rows: Iterable[int], path: Path, column: str) -> NDArray[np.float64]:
    """Depths in metres, from the unit with which the name of the column ends; NaN where blank.

    Raises
    ------
    InputError
        One is negative, infinite, no number, or has a comma that may separate thousands or decimals.
    """
    found = np.full(len(values), np.nan)
    for number, (value, row) in enumerate(zip(values, rows, strict=True)):
        if not value.strip():
            continue
        found[number] = _number(value)
        wrong = (
            "may have a decimal comma or separate thousands"
            if re.fullmatch(r"\s*[+-]?\d{1,3},\d{3}\s*", value)
            else "is not a finite number"
            if not np.isfinite(found[number])
            else "is negative"
            if found[number] < 0
            else ""
        )
        if wrong:
            raise InputError(
                f"Row {row} of {path}: the {column} {value.strip()[:40]!r} {wrong}.",
                "Give metres from the surface down to the basement, without a unit, or leave it empty where the hole "
                "did not reach it.",
            )
    ending = re.search(r"(?:^|[^a-z])([a-z]+)[)\]]?\s*$", column.lower())
    unit = ending[1] if ending else ""
    found *= _UNITS_M.get(unit, 1.0)
    if unit not in _UNITS_M and np.isfinite(found).any() and np.nanmax(found) < _SHALLOW_M:
        log.warning(
            "No depth in %s of %s exceeds %g: they are read as metres. Of kilometres, call the column %s_km.",
            column, path, np.nanmax(found), column,
        )  # fmt: skip
    return found


def _one_of(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name.lower() in wanted), None)


def _field(
    wanted: str | None, names: Sequence[str], path: Path, what: str = "class", option: str = "--class-field"
) -> str:
    if wanted is None:
        return ""
    matches = [name for name in names if name == wanted] or [name for name in names if name.lower() == wanted.lower()]
    if len(matches) > 1:
        raise InputError(f"{path} has several fields {', '.join(matches)}.", f"Rename the one with the {what}.")
    if not matches:
        raise InputError(
            f"{path} has no field {wanted}; its fields are {', '.join(names) or 'none'}.",
            f"Give the one with the {what}: {option} NAME.",
        )
    return matches[0]


def _number(value: str) -> float:
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", value):  # a decimal comma
        value = value.replace(",", ".")
    try:
        return float("nan") if "_" in value else float(value)
    except ValueError:
        return float("nan")
