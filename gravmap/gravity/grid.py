"""Any gravity file -> one canonical grid.

A grid is values at nodes: an `xarray.DataArray` with dims (lat, lon) = (y, x), both ascending, degrees; float32 mGal;
attribute ``height_m``, the level of the data above the ellipsoid; CRS EPSG:4326. A pixel-registered grid is the same
with its nodes at the cell centres. Nodes stay where they are: only coordinates stored as float32 are snapped to their
exact step, here, once.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.axes import find_axes, snapped
from gravmap.gravity.quantity import check_values, level_in_words
from gravmap.gravity.readers import read
from gravmap.regions import Region

log = logging.getLogger(__name__)

# A grid of more nodes is not read when it is opened, only looked at here and there.
_READ_AT_ONCE = 4_000_000
# Nodes this near to a region's side count as on it (degrees).
_ON_THE_EDGE_DEG = 1e-6


def open_grid(
    path: Path | str,
    *,
    variable: str | None = None,
    region: Region | None = None,
    margin_deg: float = 0.0,
    input_height_m: float | None = None,
    units: str | None = None,
) -> xr.DataArray:
    """Open a gravity grid.

    Reads netCDF (WGM2012's and GMT's layout ``x y z``; CF in either axis order, any names of latitude and longitude,
    descending or 0-360), GeoTIFF, ICGEM .gdf, Surfer grids and columns of text. A large netCDF file is opened lazily:
    only what is asked for is ever read.

    Parameters
    ----------
    path : Path
        The file.
    variable : str, optional
        Which variable of a netCDF file, band of a GeoTIFF or column of a text; needed where several could be meant.
    region : Region, optional
        Read only the nodes inside this box.
    margin_deg : float
        And this much around it, where the grid has it, degrees.
    input_height_m : float, optional
        Level of the data above the ellipsoid, metres; by default the attribute ``height_m``, else a height that the
        title or long name speaks of (said in a warning), else 0.
    units : str, optional
        The unit of the file's numbers, where it says none or a wrong one: mGal, m/s2, um/s2, gu ...

    Returns
    -------
    xr.DataArray, dims (lat, lon), float32 (a large grid kept on disk: as stored), mGal
        Latitude and longitude ascend. Attributes: units, height_m, source_path and those of the file.

    Raises
    ------
    InputError
        Missing, truncated or of another kind; not two-dimensional; not geographic; axes swapped or uneven; unit
        unknown; values that are no gravity anomaly; or `region` lies outside.
    """
    path = Path(path)
    grid = canonical(read(path, variable, units), path)
    grid.name = "gravity"
    _set_level(grid, input_height_m)
    if region is not None:
        grid = crop(grid, region, margin_deg)
    if grid.size <= _READ_AT_ONCE:
        grid = grid.load()
    factor = grid.attrs.pop("_factor")
    if factor != 1 or (grid.dtype != np.float32 and grid.size <= _READ_AT_ONCE):
        # Conversion needs the numbers. A large grid in mGal stays lazy, whatever its type, until a part is asked for.
        attrs = grid.attrs
        grid = grid.copy(data=(grid.values * factor).astype(np.float32))
        grid.attrs = attrs
    grid.attrs["units"] = "mGal"
    # A look at every n-th row of a large grid finds what is wrong with all of it.
    thinned = grid if grid.size <= _READ_AT_ONCE else grid[:: max(1, grid.sizes["lat"] // 64)]
    check_values(thinned.values, path.name if region is None else f"{path.name} in {region}")
    return grid


def canonical(grid: xr.DataArray, path: Path) -> xr.DataArray:
    """What a reader gave, brought to dims (lat, lon), both ascending, float64 degrees.

    Longitudes are beyond 180 only where the grid crosses it. Stays lazy where it is.

    Raises
    ------
    InputError
        As for axes in :func:`open_grid`.
    """
    lat_dim, lon_dim = find_axes(grid, str(path))
    attrs = dict(grid.attrs)
    grid = grid.reset_coords(drop=True).transpose(lat_dim, lon_dim).rename({lat_dim: "lat", lon_dim: "lon"})
    for dim in ("lat", "lon"):
        axis = grid[dim].values
        degrees = snapped(axis) if axis.dtype == np.float32 else axis.astype(np.float64)
        if dim == "lon" and degrees.min() >= 180:
            degrees = degrees - 360
        elif dim == "lon" and degrees.min() < -180 and degrees.max() <= 0:
            degrees = degrees + 360
        names = {"lat": ("latitude", "degrees_north", "Y"), "lon": ("longitude", "degrees_east", "X")}[dim]
        meaning = dict(zip(("standard_name", "units", "axis"), names, strict=True))
        grid = grid.assign_coords({dim: (dim, degrees, meaning)})
        if degrees[0] > degrees[-1]:
            grid = grid.isel({dim: slice(None, None, -1)})
    grid.attrs = attrs
    grid.attrs["source_path"] = str(path)
    grid.encoding = {}
    return grid


def crop(grid: xr.DataArray, region: Region, margin_deg: float = 0.0) -> xr.DataArray:
    """The nodes of a canonical grid inside a box, and up to `margin_deg` around it.

    Longitudes are taken modulo 360: a 0-360 grid serves a box at 10W, and of a repeated meridian one copy is left.

    Parameters
    ----------
    grid : xr.DataArray, dims (lat, lon), ascending
        As :func:`open_grid` gives it; stays lazy where it is.
    region : Region
        The box; the grid must cover it to half a cell.
    margin_deg : float
        How much more to take on every side where the grid has it, degrees.

    Returns
    -------
    xr.DataArray
        Longitudes counted as those of the region.

    Raises
    ------
    InputError
        The grid does not cover the region; the message says what it covers.
    """
    lat, lon = grid["lat"].values, grid["lon"].values
    step_lat, step_lon = spacing_deg(grid)
    # A pixel-registered grid's outermost nodes lie half a cell inside what it covers.
    half_lat, half_lon = 0.5 * step_lat + _ON_THE_EDGE_DEG, 0.5 * step_lon + _ON_THE_EDGE_DEG
    own = extent(grid)
    shift, covers = 0.0, False
    for turn in (0.0, 360.0, -360.0):
        if own.west + turn <= region.west + half_lon and region.east <= own.east + turn + half_lon:
            shift, covers = turn, True
            break
    wraps = own.width_deg >= 360 - 1.5 * step_lon
    if not (covers or wraps) or own.south > region.south + half_lat or own.north < region.north - half_lat:
        raise InputError(
            f"The region {region} lies outside the grid, which covers {own}.",
            "Choose a --bbox W S E N inside it.",
        )
    south, north = region.south - margin_deg - _ON_THE_EDGE_DEG, region.north + margin_deg + _ON_THE_EDGE_DEG
    west, east = region.west - margin_deg - _ON_THE_EDGE_DEG, region.east + margin_deg + _ON_THE_EDGE_DEG
    rows = np.flatnonzero((lat >= south) & (lat <= north))
    if min(rows.size, (east - west) / step_lon) < 2:
        raise InputError(f"The region {region} is smaller than the grid's cells.", "Choose a larger --bbox W S E N.")
    band = grid[rows[0] : rows[-1] + 1]
    if not wraps:
        columns = np.flatnonzero((lon + shift >= west) & (lon + shift <= east))
        part = band[:, columns[0] : columns[-1] + 1]
        return part if shift == 0 else part.assign_coords(lon=("lon", part["lon"].values + shift, part["lon"].attrs))
    unique = lon.size - (1 if lon[-1] - lon[0] > 360 - 0.5 * step_lon else 0)
    parts: list[xr.DataArray] = []
    for turn in (-720.0, -360.0, 0.0, 360.0, 720.0):
        columns = np.flatnonzero((lon[:unique] + turn >= west) & (lon[:unique] + turn <= east))
        # A margin wider than what is left of the Earth stops where it meets itself.
        if columns.size and sum(part.sizes["lon"] for part in parts) + columns.size <= unique:
            part = band[:, columns[0] : columns[-1] + 1]
            parts.append(
                part.assign_coords(lon=("lon", part["lon"].values + turn, part["lon"].attrs)) if turn else part
            )
    if len(parts) == 1:
        return parts[0]
    joined = xr.concat(parts, dim="lon")
    joined.attrs = dict(grid.attrs)
    return joined


def spacing_deg(grid: xr.DataArray | xr.Dataset) -> tuple[float, float]:
    """Degrees from node to node in latitude and in longitude, free of rounding."""
    steps = []
    for dim in ("lat", "lon"):
        axis = grid[dim].values
        steps.append(round(float((axis[-1] - axis[0]) / (axis.size - 1)), 12))
    return steps[0], steps[1]


def extent(grid: xr.DataArray | xr.Dataset) -> Region:
    """The box spanned by the grid's outermost nodes."""
    lat, lon = grid["lat"].values, grid["lon"].values
    return Region(
        max(float(lon[0]), -180.0), max(float(lat[0]), -90.0), min(float(lon[-1]), 360.0), min(float(lat[-1]), 90.0)
    )


def _set_level(grid: xr.DataArray, input_height_m: float | None) -> None:
    """Settle ``height_m``: as asked, as the attribute says, as a title says, or 0."""
    if input_height_m is not None:
        grid.attrs["height_m"] = float(input_height_m)
        return
    if "height_m" in grid.attrs:
        grid.attrs["height_m"] = float(grid.attrs["height_m"])
        return
    for key in ("long_name", "file_title"):
        level = level_in_words(str(grid.attrs.get(key, "")))
        if level is not None:
            log.warning(
                "No attribute height_m, but %s says %r: the data are taken to lie at %g m.",
                key.removeprefix("file_"),
                grid.attrs[key],
                level,
            )
            grid.attrs["height_m"] = level
            return
    grid.attrs["height_m"] = 0.0
