"""The file formats of gravity grids: netCDF (GMT's and CF) and GeoTIFF, each read as it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.quantity import looks_like_gravity, mgal_factor

log = logging.getLogger(__name__)

_WHAT_OPENS = "Gravity grids open as netCDF (GMT's x y z or CF) or GeoTIFF."


def read(path: Path, variable: str | None) -> xr.DataArray:
    """Read a netCDF or GeoTIFF file as it is, axes and unit included.

    Parameters
    ----------
    path : Path
        The file.
    variable : str, optional
        The netCDF variable or GeoTIFF band.

    Returns
    -------
    xr.DataArray
        Of netCDF lazy. Attributes: those of the variable, title and source of the file as ``file_title`` ...,
        ``variable``, and ``_mgal``, how many mGal one unit is.

    Raises
    ------
    InputError
        Missing, cut short, no grid, projected, or of an unknown unit.
    """
    _check_bytes(path)
    with path.open("rb") as stream:
        head = stream.read(4)
    if head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _read_geotiff(path, variable)
    return _read_netcdf(path, variable)


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
    if head[:4] in (b"CDF\x01", b"CDF\x02"):
        _refuse_cut_short(path)
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


def _refuse_cut_short(path: Path) -> None:
    """Refuse a netCDF-3 file that ends before its last variable: the netCDF library reads zeros there."""
    from scipy.io import netcdf_file

    try:
        # Maps every variable to its bytes without reading them, and fails where they are not there.
        with netcdf_file(path, "r", mmap=True):
            pass
    except (TypeError, ValueError, IndexError) as error:
        size = path.stat().st_size
        raise InputError(f"{path} is cut short at {size} bytes: {error}.", "Fetch or copy it again.") from None


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
