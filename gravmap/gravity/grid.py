"""Any gravity file -> one canonical grid.

A grid is values at nodes: an `xarray.DataArray` with dims (lat, lon) = (y, x), both ascending, degrees; float32 mGal;
attribute ``height_m``, the level of the data above the ellipsoid; CRS EPSG:4326. A pixel-registered grid is the same
with its nodes at the cell centres. Nodes stay where they are: only coordinates stored as float32 are snapped to their
exact step, here, once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.axes import find_axes, snapped
from gravmap.gravity.quantity import check_values, level_in_words, looks_like_gravity, mgal_factor
from gravmap.regions import Region

log = logging.getLogger(__name__)

# A grid of more nodes is not read when it is opened, only looked at here and there.
_READ_AT_ONCE = 4_000_000
# Nodes this near to a region's side count as on it (degrees).
_ON_THE_EDGE_DEG = 1e-6
_WHAT_OPENS = "Gravity grids open as netCDF (GMT's x y z or CF) or GeoTIFF."


def open_grid(
    path: Path | str,
    *,
    variable: str | None = None,
    region: Region | None = None,
    margin_deg: float = 0.0,
    input_height_m: float | None = None,
) -> xr.DataArray:
    """Open a gravity grid.

    Reads netCDF (WGM2012's and GMT's layout ``x y z``; CF in either axis order, any names of latitude and longitude,
    descending or 0-360) and GeoTIFF. A large netCDF file is opened lazily: only what is asked for is ever read.

    Parameters
    ----------
    path : Path
        The file.
    variable : str, optional
        Which variable of a netCDF file, or which band of a GeoTIFF; needed where several could be meant.
    region : Region, optional
        Read only the nodes inside this box.
    margin_deg : float
        And this much around it, where the grid has it, degrees.
    input_height_m : float, optional
        Level of the data above the ellipsoid, metres; by default the attribute ``height_m``, else a height that the
        title or long name speaks of (said in a warning), else 0.

    Returns
    -------
    xr.DataArray, dims (lat, lon), float32, mGal
        Latitude and longitude ascend. Attributes: units, height_m, source_path and those of the file.

    Raises
    ------
    InputError
        Missing, truncated or of another kind; not two-dimensional; not geographic; axes swapped or uneven; unit
        unknown; values that are no gravity anomaly; or `region` lies outside.
    """
    path = Path(path)
    _check_bytes(path)
    with path.open("rb") as stream:
        head = stream.read(8)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        grid = _read_geotiff(path, variable)
    else:
        grid = _read_netcdf(path, variable)
    grid = _canonical(grid, path)
    _set_level(grid, input_height_m)
    if region is not None:
        grid = crop(grid, region, margin_deg)
    if grid.size <= _READ_AT_ONCE:
        grid = grid.load()
    factor = grid.attrs.pop("_mgal")
    if factor != 1 or grid.dtype != np.float32:
        # Conversion needs the numbers; the usual large grid is float32 mGal already and stays lazy.
        attrs = grid.attrs
        grid = grid.copy(data=(grid.values * factor).astype(np.float32))
        grid.attrs = attrs
    grid.attrs["units"] = "mGal"
    # A look at every n-th row of a large grid finds what is wrong with all of it.
    thinned = grid if grid.size <= _READ_AT_ONCE else grid[:: max(1, grid.sizes["lat"] // 64)]
    check_values(thinned.values, path.name if region is None else f"{path.name} in {region}")
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
    own = extent(grid)
    shift, covers = 0.0, False
    for turn in (0.0, 360.0, -360.0):
        if own.west + turn <= region.west + step_lon and region.east <= own.east + turn + step_lon:
            shift, covers = turn, True
            break
    wraps = own.width_deg >= 360 - 1.5 * step_lon
    if not (covers or wraps) or own.south > region.south + step_lat or own.north < region.north - step_lat:
        raise InputError(
            f"The region {region} lies outside the grid, which covers {own}.",
            "Choose a --bbox W S E N inside it.",
        )
    south, north = region.south - margin_deg - _ON_THE_EDGE_DEG, region.north + margin_deg + _ON_THE_EDGE_DEG
    west, east = region.west - margin_deg - _ON_THE_EDGE_DEG, region.east + margin_deg + _ON_THE_EDGE_DEG
    rows = np.flatnonzero((lat >= south) & (lat <= north))
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


def _check_bytes(path: Path) -> None:
    """Refuse what is no grid by its first bytes: missing, empty, a web page."""
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'missing'}.", _WHAT_OPENS)
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise InputError(f"{path} is empty.", "Fetch or write it again.")
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path} is a web page, not a grid.", "The download went wrong: fetch it again.")


def _read_netcdf(path: Path, variable: str | None) -> xr.DataArray:
    with path.open("rb") as stream:
        head = stream.read(8)
    if head[:3] != b"CDF" and head != b"\x89HDF\r\n\x1a\n":
        raise InputError(f"{path} is neither netCDF nor GeoTIFF.", _WHAT_OPENS)
    try:
        dataset = xr.open_dataset(path, engine="netcdf4", decode_times=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be read as netCDF: {error}.", "It may be cut short: fetch or copy it again."
        ) from None
    if head[:3] == b"CDF":
        # The library reads zeros where a classic file ends early.
        needed = sum(array.dtype.itemsize * array.size for array in _stored(dataset))
        if path.stat().st_size < needed:
            raise InputError(
                f"{path} is cut short: {path.stat().st_size} bytes, its header speaks of at least {needed}.",
                "Fetch or copy it again.",
            )
    name = _choose_variable(dataset, variable, path)
    grid = dataset[name].squeeze(drop=True)
    _refuse_projected(dataset, dataset[name], path)
    attrs = {
        key: value
        for key, value in dataset[name].attrs.items()
        if key not in ("grid_mapping", "actual_range", "valid_range")
    }
    attrs |= {
        f"file_{key}": value
        for key, value in dataset.attrs.items()
        if key in ("title", "source", "history", "references")
    }
    # The level may be written on the variable or, as some do, on the file.
    if "height_m" in dataset.attrs:
        attrs.setdefault("height_m", dataset.attrs["height_m"])
    unit = attrs.get("units")
    layout = set(map(str, dataset[name].dims)) == {"x", "y"} and name == "z"
    if not unit:
        (log.info if layout else log.warning)("%s: variable %r says no unit; taken as mGal.", path.name, name)
    attrs["_mgal"] = mgal_factor(str(unit), f"{path}, variable {name!r},") if unit else 1.0
    attrs["variable"] = name
    grid.attrs = attrs
    return grid


def _stored(dataset: xr.Dataset) -> list[Any]:
    """The variables of a file with the types they have on disk."""

    class OnDisk:
        def __init__(self, variable: Any) -> None:
            self.dtype = np.dtype(variable.encoding.get("dtype", variable.dtype))
            self.size = variable.size

    return [OnDisk(variable) for variable in dataset.variables.values()]


def _choose_variable(dataset: xr.Dataset, variable: str | None, path: Path) -> str:
    """The gravity variable: the one asked for, the only one, or the one whose name or unit says gravity."""
    grids = {
        str(name): array
        for name, array in dataset.data_vars.items()
        if array.squeeze().ndim >= 2 and array.dtype.kind in "fiu" and "flag_values" not in array.attrs
    }
    if variable is not None:
        if variable not in dataset.data_vars:
            raise InputError(
                f"{path} has no variable {variable!r}.", f"It has: {', '.join(map(str, dataset.data_vars))}."
            )
        return variable
    if not grids:
        raise InputError(
            f"{path} holds no grid: its variables are {', '.join(map(str, dataset.variables)) or 'none'}.", _WHAT_OPENS
        )
    if len(grids) == 1:
        return next(iter(grids))
    by_unit = {name for name, array in grids.items() if looks_like_gravity(str(array.attrs.get("units", "")))} or set(
        grids
    )
    if "bouguer" in by_unit:  # gravmap's own files
        return "bouguer"
    for word in ("bouguer", "anomaly", "gravity", "disturbance"):
        named = [name for name in grids if name in by_unit and word in name.lower()]
        if len(named) == 1:
            log.info("%s: taking variable %r.", path.name, named[0])
            return named[0]
        if named:
            break
    raise InputError(f"{path} holds several grids: {', '.join(grids)}.", "Say which with --variable NAME.")


def _refuse_projected(dataset: xr.Dataset, array: xr.DataArray, path: Path) -> None:
    mapping = array.attrs.get("grid_mapping") or array.encoding.get("grid_mapping")
    name = str(dataset[mapping].attrs.get("grid_mapping_name", "")) if mapping in dataset.variables else ""
    if name not in ("", "latitude_longitude"):
        raise InputError(f"{path} is projected ({name}).", "Reproject it first: gdalwarp -t_srs EPSG:4326 IN OUT")


def _read_geotiff(path: Path, variable: str | None) -> xr.DataArray:
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        raster = rasterio.open(path)
    except RasterioIOError as error:
        raise InputError(
            f"{path} cannot be read as GeoTIFF: {error}.", "It may be cut short: fetch or copy it again."
        ) from None
    with raster:
        if raster.crs is None:
            raise InputError(
                f"{path} has no coordinate reference system.", f"Give it one: gdal_edit.py -a_srs EPSG:4326 {path}"
            )
        if not raster.crs.is_geographic:
            raise InputError(
                f"{path} is projected ({raster.crs.to_string()[:60]}); gravmap works on latitude and longitude.",
                f"Reproject it first: gdalwarp -t_srs EPSG:4326 -r cubic {path} OUT.tif",
            )
        transform = raster.transform
        if transform.b or transform.d:
            raise InputError(
                f"{path} is rotated.", f"Straighten it first: gdalwarp -t_srs EPSG:4326 -r cubic {path} OUT.tif"
            )
        band = _choose_band(raster, variable, path)
        try:
            values = raster.read(band, masked=True)
        except RasterioIOError as error:
            raise InputError(
                f"{path} cannot be read to its end: {error}.", "It may be cut short: copy it again."
            ) from None
        tags = {**raster.tags(), **raster.tags(band)}
        unit = raster.units[band - 1] or tags.get("units") or tags.get("UNITTYPE") or ""
        numbers = values.astype(np.float64).filled(np.nan) * raster.scales[band - 1] + raster.offsets[band - 1]
        if not unit:
            log.warning("%s says no unit; taken as mGal.", path.name)
        attrs: dict[str, Any] = {"_mgal": mgal_factor(unit, str(path)) if unit else 1.0}
        attrs["variable"] = raster.descriptions[band - 1] or f"band {band}"
        if "height_m" in tags:
            attrs["height_m"] = float(tags["height_m"])
        # Nodes are at the cell centres; GDAL's transform is that of the corners whatever AREA_OR_POINT says.
        lat = transform.f + transform.e * (np.arange(raster.height) + 0.5)
        lon = transform.c + transform.a * (np.arange(raster.width) + 0.5)
    return xr.DataArray(numbers, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs=attrs)


def _choose_band(raster: Any, variable: str | None, path: Path) -> int:
    names = [description or str(band) for band, description in zip(raster.indexes, raster.descriptions, strict=True)]
    if variable is None:
        if raster.count == 1:
            return 1
        raise InputError(
            f"{path} has {raster.count} bands: {', '.join(names)}.", "Say which with --variable NAME or NUMBER."
        )
    if variable in names:
        return names.index(variable) + 1
    if variable.isdigit() and 1 <= int(variable) <= raster.count:
        return int(variable)
    raise InputError(f"{path} has no band {variable!r}.", f"It has: {', '.join(names)}.")


def _canonical(grid: xr.DataArray, path: Path) -> xr.DataArray:
    """Dims (lat, lon), both ascending, float64 degrees; longitudes beyond 180 only where the grid crosses it."""
    lat_dim, lon_dim = find_axes(grid, str(path))
    attrs = dict(grid.attrs)
    grid = grid.reset_coords(drop=True).transpose(lat_dim, lon_dim).rename({lat_dim: "lat", lon_dim: "lon"})
    for dim in ("lat", "lon"):
        axis = grid[dim].values
        degrees = snapped(axis) if axis.dtype == np.float32 else axis.astype(np.float64)
        if dim == "lon" and degrees.min() >= 180:
            degrees = degrees - 360
        names = {"lat": ("latitude", "degrees_north", "Y"), "lon": ("longitude", "degrees_east", "X")}[dim]
        meaning = dict(zip(("standard_name", "units", "axis"), names, strict=True))
        grid = grid.assign_coords({dim: (dim, degrees, meaning)})
        if degrees[0] > degrees[-1]:
            grid = grid.isel({dim: slice(None, None, -1)})
    grid.attrs = attrs
    grid.attrs["source_path"] = str(path)
    grid.encoding = {}
    grid.name = "gravity"
    return grid


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
