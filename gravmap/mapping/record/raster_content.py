"""What a map's files hold: cells and areas of a class raster, and checksums of the features of a GeoPackage."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.windows import Window

from gravmap.geology.class_table import Tally
from gravmap.mapping.files.projection import cell_areas_km2

BLOCK = 1024  # cells a side read at once: a map of any size is counted in little memory


def count_values(path: Path) -> dict[int, tuple[int, float]]:
    """Count the cells of each value of a single-band uint8 raster and add up their areas.

    Parameters
    ----------
    path : Path
        The raster, geographic or projected, north up.

    Returns
    -------
    dict of int to (int, float)
        Value to cells and km² on the WGS 84 ellipsoid, for every value that occurs, nodata included.
    """
    tally = Tally()
    with rasterio.open(path) as raster:
        for window in blocks(raster.height, raster.width):
            tally.add(raster.read(1, window=window), cell_areas_km2(raster.crs, raster.transform, window))
    return {int(value): (int(tally.cells[value]), float(tally.km2[value])) for value in np.flatnonzero(tally.cells)}


def measure_thickness(path: Path) -> dict[str, Any]:
    """Cells, area and mean thickness of a ``cover_thickness.tif``.

    Parameters
    ----------
    path : Path
        The raster, geographic or projected, north up.

    Returns
    -------
    dict
        ``cells`` with data, ``km2`` of these, and ``mean_m``: for each band the mean weighted by area, metres; None
        without a cell.
    """
    cells, km2 = 0, 0.0
    with rasterio.open(path) as raster:
        names, nodata = [str(name) for name in raster.descriptions], raster.nodata
        sums = np.zeros(raster.count)
        for window in blocks(raster.height, raster.width):
            values = raster.read(window=window)
            known = values[0] != nodata
            area = np.where(known, cell_areas_km2(raster.crs, raster.transform, window), 0.0)
            cells, km2 = cells + int(known.sum()), km2 + float(area.sum())
            sums += (values * area).sum(axis=(1, 2))
    means = {name: float(f"{total / km2:.6g}") if km2 else None for name, total in zip(names, sums, strict=True)}
    return {"cells": cells, "km2": float(f"{km2:.9g}"), "mean_m": means}


def fraction_thicker(path: Path, thickness_m: float) -> float:
    """Fraction of the cells of a ``cover_thickness.tif`` whose median is larger than a thickness; 0 without cells."""
    cells = thicker = 0
    with rasterio.open(path) as raster:
        for window in blocks(raster.height, raster.width):
            median = raster.read(1, window=window)
            known = median != raster.nodata
            cells, thicker = cells + int(known.sum()), thicker + int((known & (median > thickness_m)).sum())
    return thicker / cells if cells else 0.0


def blocks(rows: int, columns: int, side: int = BLOCK) -> Iterator[Window]:
    """Windows that cover a raster, row by row."""
    for row in range(0, rows, side):
        for col in range(0, columns, side):
            yield Window(col, row, min(side, columns - col), min(side, rows - row))


@dataclass(frozen=True)
class TableRow:
    """A row of a raster attribute table.

    Attributes
    ----------
    name : str
        Class in words.
    cells : int
        Of the raster.
    km2 : float
        Their area.
    """

    name: str
    cells: int
    km2: float


def read_attribute_table(raster: Path) -> dict[int, TableRow]:
    """Read GDAL's raster attribute table from ``<raster>.aux.xml``; rasterio gives no access to it.

    Parameters
    ----------
    raster : Path
        The raster; the table lies beside it.

    Returns
    -------
    dict of int to TableRow
        By value; empty where there is no table with the columns Value, Class, Count and Area_km2, or none readable.
    """
    path = raster.with_name(f"{raster.name}.aux.xml")
    try:
        table = ElementTree.parse(path).getroot().find(".//GDALRasterAttributeTable")
    except (OSError, ElementTree.ParseError):
        return {}
    if table is None:
        return {}
    heads = [str(head.findtext("Name")) for head in table.findall("FieldDefn")]
    rows = [dict(zip(heads, (cell.text or "" for cell in row.findall("F")), strict=False)) for row in table.iter("Row")]
    try:
        return {int(row["Value"]): TableRow(row["Class"], int(row["Count"]), float(row["Area_km2"])) for row in rows}
    except (KeyError, ValueError):
        return {}


LAYER_PARTS = 100
"""A layer has so many checksums at most, each of a range of its features, so that a record stays small."""


def read_layers(path: Path) -> dict[str, dict[str, Any]]:
    """Checksums of the layers of a GeoPackage, whose bytes differ once another program has opened it.

    Parameters
    ----------
    path : Path
        The GeoPackage; nothing is written beside it.

    Returns
    -------
    dict of str to dict
        Layer to ``features``, their number, and ``sha256``: of its columns, coordinate system and spatial index, and
        then of ranges of features of the same length in the order of their numbers.

    Raises
    ------
    sqlite3.Error
        It cannot be read, or is damaged.
    """
    # A file that nobody writes to is opened as such: SQLite would put a journal beside it otherwise. With a journal of
    # changes beside it that holds something, the changes are read too.
    journal = path.with_name(f"{path.name}-wal")
    settled = not journal.exists() or not journal.stat().st_size
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' * settled}", uri=True)
    try:
        (sound,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(sound)
        names = connection.execute("SELECT table_name FROM gpkg_contents ORDER BY table_name").fetchall()
        return {name: _layer(connection, name) for (name,) in names}
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError("it holds text that is not UTF-8") from error
    finally:
        connection.close()


def _layer(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    def rows(query: str, *values: str) -> list[Any]:
        return connection.execute(query, values).fetchall()

    layer, index = '"' + name.replace('"', '""') + '"', f"rtree_{name}_"
    schema = rows(
        "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? OR substr(name, 1, length(?)) = ? ORDER BY name",
        name, index, index,
    )  # fmt: skip
    place = rows(
        "SELECT g.*, s.* FROM gpkg_geometry_columns g JOIN gpkg_spatial_ref_sys s ON g.srs_id = s.srs_id"
        " WHERE g.table_name = ?",
        name,
    )
    # Programs find the features on a map with the spatial index.
    boxes = [rows(f'SELECT * FROM "{each}" ORDER BY id') for _, each, sql in schema if " VIRTUAL TABLE " in str(sql)]
    ((features,),) = rows(f"SELECT count(*) FROM {layer}")
    sums = [hashlib.sha256(repr((schema, place, boxes)).encode()).hexdigest()]
    content = connection.execute(f"SELECT * FROM {layer} ORDER BY rowid")
    while part := content.fetchmany(_part_length(features)):
        sums.append(hashlib.sha256(repr(part).encode()).hexdigest())
    return {"features": features, "sha256": sums}


def _part_length(features: int) -> int:
    return max(1, math.ceil(features / LAYER_PARTS))


def compare_layers(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """In what the layers of a GeoPackage differ from those recorded, in words; empty where they do not.

    A layer that the record does not have, such as the styles that QGIS stores, is no difference.

    Parameters
    ----------
    found, recorded : mapping
        From :func:`read_layers`.
    """
    differences = []
    for name, layer in recorded.items():
        if name not in found:
            differences.append(f"it has no layer {name}")
            continue
        now = found[name]
        count, length = layer["features"], _part_length(layer["features"])
        if now["features"] != count:
            differences.append(f"the layer {name} has {now['features']} features, {count} were recorded")
        elif now["sha256"][:1] != layer["sha256"][:1]:
            differences.append(f"the layer {name} has other columns, another coordinate system or another index")
        else:
            pairs = zip(now["sha256"][1:], layer["sha256"][1:], strict=False)
            parts = [place for place, (one, other) in enumerate(pairs) if one != other]
            if parts:
                first, last = parts[0] * length + 1, min(parts[0] * length + length, count)
                which = f"feature {first}" if first == last else f"a feature from {first} to {last}"
                more = f" and {len(parts) - 1} other places" if len(parts) > 1 else ""
                differences.append(f"{which} of the layer {name}{more} differs")
    return "; ".join(differences)
