"""Opening a gravity grid of any supported format, and cropping it.

A grid is an `xarray.DataArray` of values at nodes: dims (lat, lon), both ascending, degrees; float32, mGal; attribute
``height_m``, the level of the data above the ellipsoid; CRS EPSG:4326. A pixel-registered grid has its nodes at the
cell centres. Nodes are never moved; only coordinates stored as float32 are restored to their exact step when a file is
opened.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import xarray as xr

from gravmap.errors import InputError, OptionError
from gravmap.gravity.axes import find_axes, snap_coordinates
from gravmap.gravity.georeferencing import to_degrees
from gravmap.gravity.quantity import check_anomaly, height_from_text, level_m, warn_once
from gravmap.gravity.readers import read
from gravmap.records import RESAMPLED_FROM, STATED_HEIGHT
from gravmap.regions import Region
from gravmap.units import describe_angle, format_length

log = logging.getLogger(__name__)

# A grid of more nodes than this stays lazy when opened; only some of its rows are read, to check the values.
_READ_AT_ONCE = 4_000_000
# A grid without larger values has probably another unit.
_SMALL_MGAL = 0.1
# A node this close to the side of a region counts as on it, degrees.
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

    Formats: netCDF (``x y z`` as WGM2012 and GMT write it; CF in either axis order, descending or 0-360), GeoTIFF,
    ICGEM .gdf, Surfer grids and columns of text. A large netCDF file is opened lazily.

    Parameters
    ----------
    path : Path
        The file.
    variable : str, optional
        Variable of a netCDF file, band of a GeoTIFF or column of a text file; needed if there are several candidates.
    region : Region, optional
        Read only the nodes inside this box.
    margin_deg : float
        Also read this margin around the box, where the grid has data, degrees.
    input_height_m : float, optional
        Level of the data above the ellipsoid, metres; by default the attribute ``height_m``, else a height named in
        the title or long name (with a warning), else 0.
    units : str, optional
        Unit of the values if the file has none or a wrong one: mGal, m/s2, um/s2, gu ...

    Returns
    -------
    xr.DataArray, dims (lat, lon), float32 (a large lazy grid: as stored), mGal
        Latitude and longitude ascend. Attributes: units, height_m, source_path and those of the file.

    Raises
    ------
    InputError
        The file is missing, truncated or of an unsupported format; not a two-dimensional geographic grid; axes swapped
        or uneven; unknown unit; values that cannot be a gravity anomaly; or `region` is outside the grid.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import open_grid
    >>> x, y = np.arange(80, 85.1, 0.5), np.arange(40, 44.1, 0.5)
    >>> z = xr.DataArray(30 * np.cos(y)[:, None] * np.sin(x), coords={"y": y, "x": x}, dims=("y", "x"))
    >>> z.attrs["units"] = "mGal"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     z.to_dataset(name="z").to_netcdf(Path(folder) / "gmt.nc", engine="netcdf4")
    ...     grid = open_grid(Path(folder) / "gmt.nc")
    >>> dict(grid.sizes), grid.attrs["units"], grid.attrs["height_m"]
    ({'lat': 9, 'lon': 11}, 'mGal', 0.0)
    """
    path = Path(path)
    grid = standardize_grid(read(path, variable, units), path)
    grid.name = "gravity"
    _set_level(grid, input_height_m)
    if region is not None:
        grid = crop(grid, region, margin_deg)
    if grid.size <= _READ_AT_ONCE:
        grid = grid.load()
    factor, stated = grid.attrs.pop("_factor"), grid.attrs.pop("_range", None)
    if factor != 1 or (grid.dtype != np.float32 and grid.size <= _READ_AT_ONCE):
        # Conversion reads the values. A large grid in mGal stays lazy, whatever its dtype, until a part is read.
        attrs = grid.attrs
        grid = grid.copy(data=(grid.values * factor).astype(np.float32))
        grid.attrs = attrs
    grid.attrs["units"] = "mGal"
    # Every n-th row of a large grid is enough to detect a wrong unit or fill value.
    thinned = grid if grid.size <= _READ_AT_ONCE else grid[:: max(1, grid.sizes["lat"] // 64)]
    values = thinned.values
    where = path.name if region is None else f"{path.name} in {region}"
    check_anomaly(values, where, factor, unit_stated=units is not None)
    if np.nanmax(np.abs(values)) < _SMALL_MGAL:
        warn_once(f"{path}: every value is less than {_SMALL_MGAL:g} mGal: is its unit right?")
    if stated is not None:
        low, high = (limit * factor for limit in stated)
        least, largest, tolerance = float(np.nanmin(values)), float(np.nanmax(values)), 1e-3 * (high - low)
        # A part of a grid may keep the range of the whole.
        if least < low - tolerance or largest > high + tolerance:
            warn_once(
                f"{path}: the range in its header is {low:g} to {high:g} mGal, that of its values {least:g} to"
                f" {largest:g}: check whether it is damaged."
            )
    return grid


def standardize_grid(grid: xr.DataArray, path: Path) -> xr.DataArray:
    """Bring the grid of a reader to dims (lat, lon), both ascending, float64 degrees.

    Longitudes exceed 180 only if the grid crosses that meridian. A lazy grid stays lazy.

    Raises
    ------
    InputError
        As for axes in :func:`open_grid`.
    """
    grid = to_degrees(grid, str(path))
    lat_dim, lon_dim = find_axes(grid, str(path))
    attrs = dict(grid.attrs)
    grid = grid.reset_coords(drop=True).transpose(lat_dim, lon_dim).rename({lat_dim: "lat", lon_dim: "lon"})
    for dim in ("lat", "lon"):
        axis = grid[dim].values
        degrees = snap_coordinates(axis) if axis.dtype == np.float32 else axis.astype(np.float64)
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
    """Crop a grid to the nodes inside a box, plus a margin.

    Longitudes are compared modulo 360, so a 0-360 grid can be cropped to a box at 10W; a repeated meridian is dropped.

    Parameters
    ----------
    grid : xr.DataArray, dims (lat, lon), ascending
        From :func:`open_grid`; a lazy grid stays lazy.
    region : Region
        The box; the grid must cover it to within half a cell.
    margin_deg : float
        Width of the margin on every side, where the grid has data, degrees.

    Returns
    -------
    xr.DataArray
        With longitudes in the range of the region's.

    Raises
    ------
    InputError
        The grid does not cover the region; the message says what it covers.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity.grid import crop
    >>> from gravmap.regions import Region
    >>> lat, lon = np.arange(-60, 61.0), np.arange(0, 360.0)
    >>> grid = xr.DataArray(np.zeros((121, 360)), coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> crop(grid, Region(-3, 40, 2, 43), margin_deg=1).lon.values
    array([-4., -3., -2., -1.,  0.,  1.,  2.,  3.])
    """
    lat, lon = grid["lat"].values, grid["lon"].values
    step_lat, step_lon = spacing_deg(grid)
    # The outermost nodes of a pixel-registered grid lie half a cell inside its extent.
    half_lat, half_lon = 0.5 * step_lat + _ON_THE_EDGE_DEG, 0.5 * step_lon + _ON_THE_EDGE_DEG
    own = extent(grid)
    shift, covers = 0.0, False
    for turn in (0.0, 360.0, -360.0):
        if own.west + turn <= region.west + half_lon and region.east <= own.east + turn + half_lon:
            shift, covers = turn, True
            break
    wraps = own.width_deg >= 360 - 1.5 * step_lon
    if not (covers or wraps) or own.south > region.south + half_lat or own.north < region.north - half_lat:
        raise InputError(*region.beyond(own, "the grid"))
    south, north = region.south - margin_deg - _ON_THE_EDGE_DEG, region.north + margin_deg + _ON_THE_EDGE_DEG
    west, east = region.west - margin_deg - _ON_THE_EDGE_DEG, region.east + margin_deg + _ON_THE_EDGE_DEG
    rows = np.flatnonzero((lat >= south) & (lat <= north))
    if min(rows.size, (east - west) / step_lon) < 2:
        raise InputError(
            f"The region {region} is smaller than the cells of the grid.", "Choose a larger --bbox W S E N."
        )
    band = grid[rows[0] : rows[-1] + 1]
    if not wraps:
        columns = np.flatnonzero((lon + shift >= west) & (lon + shift <= east))
        part = band[:, columns[0] : columns[-1] + 1]
        return part if shift == 0 else part.assign_coords(lon=("lon", part["lon"].values + shift, part["lon"].attrs))
    unique = lon.size - (1 if lon[-1] - lon[0] > 360 - 0.5 * step_lon else 0)
    parts: list[xr.DataArray] = []
    for turn in (-720.0, -360.0, 0.0, 360.0, 720.0):
        columns = np.flatnonzero((lon[:unique] + turn >= west) & (lon[:unique] + turn <= east))
        # A margin that would go around the Earth and overlap itself stops there.
        if columns.size and sum(part.sizes["lon"] for part in parts) + columns.size <= unique:
            part = band[:, columns[0] : columns[-1] + 1]
            parts.append(
                part.assign_coords(lon=("lon", part["lon"].values + turn, part["lon"].attrs)) if turn else part
            )
    if len(parts) == 1:
        return parts[0]
    combined = xr.concat(parts, dim="lon")
    combined.attrs = dict(grid.attrs)
    return combined


def spacing_deg(grid: xr.DataArray | xr.Dataset) -> tuple[float, float]:
    """Node spacing in latitude and in longitude, degrees.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity.grid import spacing_deg
    >>> lat, lon = np.arange(40, 44.1, 0.25), np.arange(80, 85.1, 0.5)
    >>> spacing_deg(xr.Dataset(coords={"lat": lat, "lon": lon}))
    (0.25, 0.5)
    """
    steps = []
    for dim in ("lat", "lon"):
        axis = grid[dim].values
        steps.append(round(float((axis[-1] - axis[0]) / (axis.size - 1)), 12))
    return steps[0], steps[1]


def refine(grid: xr.DataArray, step_deg: float) -> xr.DataArray:
    """Interpolate a grid to a finer spacing by bicubic splines; no wavelength under two of the old nodes is added.

    Parameters
    ----------
    grid : DataArray
        From :func:`open_grid`.
    step_deg : float
        The new spacing, degrees; the first node of each axis is kept.

    Returns
    -------
    DataArray
        NaN where a node around is; with the attribute `RESAMPLED_FROM`.

    Raises
    ------
    OptionError
        The grid has this spacing already, or a finer one.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity.grid import refine
    >>> axes = {"lat": np.arange(40, 44.1, 0.5), "lon": np.arange(80, 85.1, 0.5)}
    >>> grid = xr.DataArray(np.outer(axes["lat"], axes["lon"]), axes, ("lat", "lon"))
    >>> finer = refine(grid, 0.1)
    >>> finer.shape, round(float(finer[3, 4]), 6)
    ((41, 51), 3240.12)
    """
    from scipy.interpolate import RectBivariateSpline
    from scipy.ndimage import distance_transform_edt

    old = spacing_deg(grid)
    if step_deg > min(old) * (1 - 1e-6):
        raise OptionError(
            f"The grid has a node every {describe_angle(max(old))}:"
            f" --resolution {describe_angle(step_deg)} is no finer.",
            "Leave --resolution out; a coarser grid is made with `gmt grdsample` or `gdalwarp -r average`.",
        )
    lat, lon = (grid[axis].values.astype(float) for axis in ("lat", "lon"))
    new_lat, new_lon = (
        axis[0] + step_deg * np.arange(int((axis[-1] - axis[0]) / step_deg + 1e-6) + 1) for axis in (lat, lon)
    )
    known = np.isfinite(grid.values)
    values = grid.values.astype(float)
    if not known.all():
        nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
        values = values[tuple(nearest)]
    degree = min(3, len(lat) - 1), min(3, len(lon) - 1)
    fine = RectBivariateSpline(lat, lon, values, kx=degree[0], ky=degree[1], s=0)(new_lat, new_lon)
    if not known.all():
        share = RectBivariateSpline(lat, lon, known.astype(float), kx=1, ky=1, s=0)(new_lat, new_lon)
        fine[share < 1 - 1e-9] = np.nan
    return xr.DataArray(
        fine,
        {"lat": ("lat", new_lat, grid["lat"].attrs), "lon": ("lon", new_lon, grid["lon"].attrs)},
        ("lat", "lon"),
        name=grid.name,
        attrs={**grid.attrs, RESAMPLED_FROM: [round(step, 9) for step in old]},
    )


def own_attributes(grid: xr.DataArray) -> dict[str, str]:
    """Title, source, references and comment (CF) that the file of a grid gives; one of the variable where it has none.

    Parameters
    ----------
    grid : DataArray
        From :func:`open_grid`.

    Examples
    --------
    >>> import xarray as xr
    >>> from gravmap.gravity.grid import own_attributes
    >>> own_attributes(xr.DataArray(0.0, attrs={"file_title": "A survey", "comment": "Raw", "units": "mGal"}))
    {'title': 'A survey', 'comment': 'Raw'}
    """
    found = {
        key: " ".join(str(grid.attrs.get(f"file_{key}") or grid.attrs.get(key) or "").split())
        for key in ("title", "source", "references", "comment")
    }
    return {key: text for key, text in found.items() if text}


def extent(grid: xr.DataArray | xr.Dataset) -> Region:
    """The box spanned by the outermost nodes of a grid.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity.grid import extent
    >>> extent(xr.Dataset(coords={"lat": np.arange(40, 44.1, 0.5), "lon": np.arange(80, 85.1, 0.5)}))
    Region(west=80.0, south=40.0, east=85.0, north=44.0)
    """
    lat, lon = grid["lat"].values, grid["lon"].values
    return Region(
        max(float(lon[0]), -180.0), max(float(lat[0]), -90.0), min(float(lon[-1]), 360.0), min(float(lat[-1]), 90.0)
    )


def _note_other_level(grid: xr.DataArray, given_m: float) -> None:
    """Warn if a file states another level than the one that is given, and keep what it states."""
    try:
        stated = float(grid.attrs["height_m"]) if "height_m" in grid.attrs else None
    except (TypeError, ValueError):
        return  # the level is given because the file's cannot be read
    for key in ("long_name", "file_title"):
        stated = height_from_text(str(grid.attrs.get(key, ""))) if stated is None else stated
    if stated is not None and abs(stated - given_m) > 1:
        warn_once(
            f"{grid.attrs.get('source_path', 'The grid')} states a height of {format_length(stated)}; it is taken as"
            f" {format_length(given_m)}, as --input-height says. If the file is right, the residual is wrong."
        )
        grid.attrs[STATED_HEIGHT] = stated


def _set_level(grid: xr.DataArray, input_height_m: float | None) -> None:
    """Set the attribute ``height_m``: as given, else as in the file, else as in a title, else 0."""
    if input_height_m is not None:
        _note_other_level(grid, float(input_height_m))
        grid.attrs["height_m"] = float(input_height_m)
        return
    if "height_m" in grid.attrs:
        where = grid.attrs.get("source_path", "The grid")
        grid.attrs["height_m"] = level_m(grid.attrs["height_m"], where, "State it with --input-height, such as 0m.")
        return
    for key in ("long_name", "file_title"):
        level = height_from_text(str(grid.attrs.get(key, "")))
        if level is not None:
            log.warning(
                "No attribute height_m, but %s is %r: the level of the data is taken as %g m.",
                key.removeprefix("file_"),
                grid.attrs[key],
                level,
            )
            grid.attrs["height_m"] = level
            return
    grid.attrs["height_m"] = 0.0
