"""How much of each value a raster of classes holds: cells, and square kilometres on the ellipsoid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from gravmap.geology.class_table import Tally
from gravmap.mapping.files.projection import cell_areas_km2

BLOCK = 1024  # cells a side read at once: a map of any size is counted in little memory


def census(path: Path) -> dict[int, tuple[int, float]]:
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
