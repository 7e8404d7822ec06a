"""What a class raster holds: cells and areas of each value, counted, and as its attribute table states them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
