"""How much of each value a raster of classes holds: cells, and square kilometres on the ellipsoid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from gravmap.geology import row_cell_areas_km2

BLOCK = 1024  # cells a side read at once: a map of any size is counted in little memory
_LATTICE = 64  # a projection's scale varies smoothly: it is computed every so many cells


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
    cells = np.zeros(256, np.int64)
    area = np.zeros(256)
    with rasterio.open(path) as raster:
        for window in blocks(raster.height, raster.width):
            values = raster.read(1, window=window)
            size = cell_areas_km2(raster.crs, raster.transform, window)
            cells += np.bincount(values.ravel(), minlength=256)
            area += np.bincount(values.ravel(), weights=np.broadcast_to(size, values.shape).ravel(), minlength=256)
    return {int(value): (int(cells[value]), float(area[value])) for value in np.flatnonzero(cells)}


def blocks(rows: int, columns: int, side: int = BLOCK) -> Iterator[Window]:
    """Windows that cover a raster, row by row."""
    for row in range(0, rows, side):
        for col in range(0, columns, side):
            yield Window(col, row, min(side, columns - col), min(side, rows - row))


def cell_areas_km2(crs: Any, transform: Any, window: Window) -> NDArray[np.float64]:
    """Area on the ellipsoid of every cell of a window.

    Exact for geographic coordinates; for projected ones the area of a cell on paper over the projection's areal scale
    (PROJ's factors) at its centre.

    Parameters
    ----------
    crs : rasterio CRS
        Of the raster.
    transform : affine.Affine
        Of the raster, north up.
    window : Window
        Which cells.

    Returns
    -------
    (h, 1) or (h, w) float64
        km²; the former where all cells of a row are alike.
    """
    rows, columns = int(window.height), int(window.width)
    if crs is None or crs.is_geographic:
        north = transform.f + window.row_off * transform.e
        return row_cell_areas_km2(north + rows * transform.e, north, rows, transform.a)[:, None]
    row = _knots(rows)
    col = _knots(columns)
    x = transform.c + (window.col_off + col + 0.5) * transform.a
    y = transform.f + (window.row_off + row + 0.5) * transform.e
    scale = _areal_scale(crs, *np.meshgrid(x, y))
    across = np.array([np.interp(np.arange(columns), col, line) for line in scale])
    filled = np.array([np.interp(np.arange(rows), row, column) for column in across.T]).T
    metres = crs.linear_units_factor[1]
    return np.asarray(abs(transform.a * transform.e) * metres**2 / 1e6 / filled)


def _knots(cells: int) -> NDArray[np.float64]:
    return np.unique(np.append(np.arange(0, cells, _LATTICE), cells - 1)).astype(np.float64)


def _areal_scale(crs: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    from pyproj import CRS, Proj, Transformer

    projected = CRS.from_user_input(crs.to_wkt())
    lon, lat = Transformer.from_crs(projected, projected.geodetic_crs, always_xy=True).transform(x, y)
    return np.asarray(Proj(projected).get_factors(lon, lat).areal_scale)
