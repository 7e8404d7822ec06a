"""Coordinate systems of a map's files: parsing, reprojection of rasters, and areas of cells on the ellipsoid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import calculate_default_transform
from rasterio.windows import Window

from gravmap.errors import OptionError
from gravmap.geology.areas import row_cell_areas_km2, zone_km2_per_radian

GEOGRAPHIC = CRS.from_epsg(4326)


def read_crs(text: str) -> CRS:
    """Parse a coordinate system, as given by ``--crs``.

    Parameters
    ----------
    text : str
        Anything that PROJ reads: ``EPSG:32645``, a PROJ string, WKT.

    Raises
    ------
    OptionError
        PROJ does not know it, or it is neither projected nor geographic in degrees.

    Examples
    --------
    >>> from gravmap.mapping.files.projection import read_crs
    >>> read_crs("EPSG:32645").is_projected
    True
    >>> read_crs("OGC:CRS84").to_epsg()
    4326
    """
    try:
        plain = pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError:
        raise OptionError(
            f"PROJ does not know the coordinate system {text!r}.", "Give a code such as --crs EPSG:32645."
        ) from None
    degrees = plain.is_geographic and plain.axis_info[0].unit_name == "degree"
    if not (plain.is_projected or degrees) or len(plain.axis_info) != 2:
        raise OptionError(
            f"{text} ({plain.name}) is neither a projected system nor a geographic one in degrees.",
            "Choose a projected system such as --crs EPSG:32645, or omit --crs for longitude and latitude.",
        )
    # EPSG:4326 has other names, such as OGC:CRS84.
    same = plain.equals(pyproj.CRS.from_epsg(4326), ignore_axis_order=True)
    return GEOGRAPHIC if same else CRS.from_wkt(plain.to_wkt())


def reprojected_grid(grid: Mapping[str, Any], crs: CRS) -> dict[str, Any]:
    """Compute the grid of a raster in another coordinate system: north-up, square cells, small enough to skip none.

    The cell size is the shortest side of any cell of the raster, but at least half the size that preserves the number
    of cells along the diagonal, because cells of equal degrees shrink to nothing towards a pole.

    Parameters
    ----------
    grid : mapping
        ``crs``, ``transform``, ``width`` and ``height`` of the raster.
    crs : CRS
        The target system.

    Returns
    -------
    dict
        ``crs``, ``transform``, ``width`` and ``height`` of the new raster.

    Raises
    ------
    OptionError
        The target system is not defined over the whole raster.
    """
    west, north = grid["transform"] @ (0, 0)
    east, south = grid["transform"] @ (grid["width"], grid["height"])
    shortest = _shortest_side(grid, crs)
    if not math.isfinite(shortest):
        authority = crs.to_authority()
        name = ":".join(authority) if authority else "This projection"
        raise OptionError(
            f"{name} is not defined over the whole of {west:g} to {east:g} E, {south:g} to {north:g} N.",
            "Choose a projection made for the region, such as the UTM zone of its middle.",
        )
    cells = (grid["crs"], crs, grid["width"], grid["height"], west, south, east, north)
    side = max(shortest, calculate_default_transform(*cells)[0].a / 2)
    transform, width, height = calculate_default_transform(*cells, resolution=side)
    return {"crs": crs, "transform": transform, "width": width, "height": height}


def _shortest_side(grid: Mapping[str, Any], crs: CRS) -> float:
    """Return the shortest side of 9 x 9 cells of the raster in another system; inf if it is not defined there."""
    project = pyproj.Transformer.from_crs(grid["crs"].to_wkt(), crs.to_wkt(), always_xy=True)
    col, row = np.meshgrid(np.linspace(0, grid["width"] - 1, 9), np.linspace(0, grid["height"] - 1, 9))
    step: Affine = grid["transform"]

    def corner(right: int, down: int) -> NDArray[np.float64]:
        return np.array(project.transform(step.c + (col + right) * step.a, step.f + (row + down) * step.e))

    north_west = corner(0, 0)
    with np.errstate(invalid="ignore"):
        sides = [np.hypot(*(corner(*to) - north_west)) for to in ((1, 0), (0, 1))]
    return float(np.min(sides)) if np.isfinite(sides).all() else math.inf


def reproject_nearest(source: Path, target: Any) -> None:
    """Fill an open raster from one in another system: each cell gets all bands of the cell that contains its centre.

    rasterio.warp.reproject approximates the transformation with errors of up to an eighth of a cell, which moves the
    boundaries of classes.

    Parameters
    ----------
    source : Path
        A north-up raster with as many bands as `target`.
    target : rasterio.io.DatasetWriter
        Open for writing, north-up; cells outside the source are left unchanged.
    """
    with rasterio.open(source) as raster:
        back = pyproj.Transformer.from_crs(target.crs.to_wkt(), raster.crs.to_wkt(), always_xy=True)
        into = ~raster.transform
        for _, window in target.block_windows(1):
            x, y = _axes(target.transform, window, np.arange(window.width) + 0.5, np.arange(window.height) + 0.5)
            east, north = back.transform(*np.meshgrid(x, y))
            # Where the projection is not defined the centre is infinite, and thus outside.
            col, row = into.a * east + into.c, into.e * north + into.f
            inside = (col >= 0) & (col < raster.width) & (row >= 0) & (row < raster.height)
            if not inside.any():
                continue
            rows, cols = row[inside].astype(int), col[inside].astype(int)
            first_row, first_col = int(rows.min()), int(cols.min())
            part = Window(first_col, first_row, int(cols.max()) - first_col + 1, int(rows.max()) - first_row + 1)
            values = target.read(window=window)
            values[:, inside] = raster.read(window=part)[:, rows - first_row, cols - first_col]
            target.write(values, window=window)


def _axes(
    transform: Affine, window: Window, right: NDArray[np.float64], down: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates in a window of a north-up raster, from positions in cells from its upper left corner."""
    return (
        transform.c + (window.col_off + right) * transform.a,
        transform.f + (window.row_off + down) * transform.e,
    )


def cell_areas_km2(crs: CRS, transform: Affine, window: Window) -> NDArray[np.float64]:
    """Compute the areas of cells of a raster on the WGS 84 ellipsoid.

    By Green's theorem A = ∮ Z(φ) dλ around the cell, with Z the area between the equator and a parallel per radian of
    longitude. Exact for cells in degrees; in a projection the edges between corners are taken as straight in degrees.
    On other ellipsoids areas differ by about 1e-4 at most.

    Parameters
    ----------
    crs : CRS
        Coordinate system of the raster, as :func:`read_crs` returns it.
    transform : Affine
        Transform of the raster, north-up.
    window : Window
        Part of the raster.

    Returns
    -------
    ndarray, shape (h, 1) or (h, w), float64
        Areas in km²; 0 where the projection is not defined.

    Examples
    --------
    A cell of one degree at the equator:

    >>> from rasterio.transform import from_origin
    >>> from rasterio.windows import Window
    >>> from gravmap.mapping.files.projection import GEOGRAPHIC, cell_areas_km2
    >>> cell_areas_km2(GEOGRAPHIC, from_origin(80, 1, 1, 1), Window(0, 0, 1, 1)).round(1)
    array([[12308.5]])
    """
    if crs.is_geographic:
        north = transform.f + window.row_off * transform.e
        south = north + window.height * transform.e
        return row_cell_areas_km2(south, north, window.height, transform.a)[:, None]
    x, y = _axes(transform, window, np.arange(window.width + 1.0), np.arange(window.height + 1.0))
    degrees = pyproj.Transformer.from_crs(crs.to_wkt(), GEOGRAPHIC.to_wkt(), always_xy=True)
    lon, lat = degrees.transform(*np.meshgrid(x, y))
    with np.errstate(invalid="ignore"):
        zone = zone_km2_per_radian(np.clip(lat, -90, 90))
        top = (zone[:, :-1] + zone[:, 1:]) / 2 * _eastward(lon[:, 1:] - lon[:, :-1])
        side = (zone[:-1] + zone[1:]) / 2 * _eastward(lon[1:] - lon[:-1])
        area = np.abs(top[:-1] + side[:, 1:] - top[1:] - side[:, :-1])
    return np.where(np.isfinite(area), area, 0.0)


def _eastward(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert differences of longitude to radians between -pi and pi."""
    return np.radians((degrees + 180) % 360 - 180)
