"""The coordinate system of a map's files: read, laid over the cells, and the true area of its cells."""

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
    """A coordinate system as ``--crs`` names it.

    Parameters
    ----------
    text : str
        Anything PROJ knows: ``EPSG:32645``, a PROJ string, WKT.

    Raises
    ------
    OptionError
        PROJ does not know it, or it has neither metres (or feet) nor degrees on the ground.
    """
    try:
        plain = pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError:
        raise OptionError(
            f"{text!r} is no coordinate system that PROJ knows.", "Name one such as --crs EPSG:32645."
        ) from None
    degrees = plain.is_geographic and plain.axis_info[0].unit_name == "degree"
    if not (plain.is_projected or degrees) or len(plain.axis_info) != 2:
        raise OptionError(
            f"{text} ({plain.name}) is no system of a flat map in metres, feet or degrees.",
            "Take a projected one such as --crs EPSG:32645, or leave --crs away for longitude and latitude.",
        )
    # The same under another name, such as OGC:CRS84.
    same = plain.equals(pyproj.CRS.from_epsg(4326), ignore_axis_order=True)
    return GEOGRAPHIC if same else CRS.from_wkt(plain.to_wkt())


def warped_place(place: Mapping[str, Any], crs: CRS) -> dict[str, Any]:
    """The cells of a raster in another coordinate system: north up, square, and so small that none is passed over.

    Their side is the shortest side of any of the raster's cells, at least half of what keeps the number of cells along
    the diagonal (towards a pole cells of equal degrees shrink to nothing).

    Parameters
    ----------
    place : mapping
        ``crs``, ``transform``, ``width`` and ``height`` of the raster.
    crs : CRS
        The other system.

    Raises
    ------
    OptionError
        The raster does not lie where the system is defined.
    """
    west, north = place["transform"] @ (0, 0)
    east, south = place["transform"] @ (place["width"], place["height"])
    shortest = _shortest_side(place, crs)
    if not math.isfinite(shortest):
        authority = crs.to_authority()
        name = ":".join(authority) if authority else "This projection"
        raise OptionError(
            f"{name} is not defined over the whole of {west:g} to {east:g} E, {south:g} to {north:g} N.",
            "Choose a projection made for the region, such as the UTM zone of its middle.",
        )
    cells = (place["crs"], crs, place["width"], place["height"], west, south, east, north)
    side = max(shortest, calculate_default_transform(*cells)[0].a / 2)
    transform, width, height = calculate_default_transform(*cells, resolution=side)
    return {"crs": crs, "transform": transform, "width": width, "height": height}


def _shortest_side(place: Mapping[str, Any], crs: CRS) -> float:
    """Shortest side of the raster's cells in another system, looked for at 9 x 9 places; inf: not defined there."""
    project = pyproj.Transformer.from_crs(place["crs"].to_wkt(), crs.to_wkt(), always_xy=True)
    col, row = np.meshgrid(np.linspace(0, place["width"] - 1, 9), np.linspace(0, place["height"] - 1, 9))
    step: Affine = place["transform"]

    def corner(right: int, down: int) -> NDArray[np.float64]:
        return np.array(project.transform(step.c + (col + right) * step.a, step.f + (row + down) * step.e))

    here = corner(0, 0)
    with np.errstate(invalid="ignore"):
        sides = [np.hypot(*(corner(*to) - here)) for to in ((1, 0), (0, 1))]
    return float(np.min(sides)) if np.isfinite(sides).all() else math.inf


def warp(source: Path, target: Any) -> None:
    """Fill an open raster from another, all bands alike: each cell takes the values of the cell its centre lies in.

    GDAL's warper, as rasterio calls it, bends lines by up to an eighth of a cell, which moves the edges of classes.

    Parameters
    ----------
    source : Path
        A north-up raster with as many bands as `target`.
    target : rasterio.io.DatasetWriter
        Open for writing, north up; cells beyond the source keep what they are.
    """
    with rasterio.open(source) as raster:
        back = pyproj.Transformer.from_crs(target.crs.to_wkt(), raster.crs.to_wkt(), always_xy=True)
        into = ~raster.transform
        for _, window in target.block_windows(1):
            x, y = _axes(target.transform, window, np.arange(window.width) + 0.5, np.arange(window.height) + 0.5)
            east, north = back.transform(*np.meshgrid(x, y))
            # Where the projection has no ground the centre is infinite, and so beyond every edge.
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
    """Coordinates of places in a part of a north-up raster, counted in cells from its corner."""
    return (
        transform.c + (window.col_off + right) * transform.a,
        transform.f + (window.row_off + down) * transform.e,
    )


def cell_areas_km2(crs: CRS, transform: Affine, window: Window) -> NDArray[np.float64]:
    """What the cells of a part of a raster cover on the ellipsoid.

    By Green's theorem A = ∮ Z(φ) dλ around the cell, with Z the area between the equator and a parallel per radian of
    longitude; exact in degrees, and in a projection with edges between the corners that are straight in degrees. On
    WGS 84: the area of other ellipsoids differs by some 1e-4 at most.

    Parameters
    ----------
    crs : CRS
        Of the raster, as :func:`read_crs` gives it.
    transform : Affine
        Of the raster, north up.
    window : Window
        The part.

    Returns
    -------
    ndarray, shape (h, 1) or (h, w), float64
        km²; 0 where the projection has no ground.
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
    """Differences of longitude in radians, the short way round."""
    return np.radians((degrees + 180) % 360 - 180)
