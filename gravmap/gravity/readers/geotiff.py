"""Grids as GeoTIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.quantity import Quantity, unit_factor


def read_geotiff(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """One band; nodes at the cell centres."""
    import rasterio
    from rasterio.errors import RasterioIOError

    try:
        raster = rasterio.open(path)
    except RasterioIOError as error:
        raise InputError(
            f"{path} cannot be read as GeoTIFF: {error}.", "It may be truncated: download or copy it again."
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
        band = _choose_band(raster, variable, path, quantity)
        try:
            values = raster.read(band, masked=True)
        except RasterioIOError as error:
            raise InputError(
                f"{path} cannot be read to its end: {error}.", "It may be truncated: copy it again."
            ) from None
        tags = {**raster.tags(), **raster.tags(band)}
        unit = raster.units[band - 1] or tags.get("units") or tags.get("UNITTYPE") or ""
        numbers = values.astype(np.float64).filled(np.nan) * raster.scales[band - 1] + raster.offsets[band - 1]
        attrs: dict[str, Any] = {"_factor": unit_factor(units, unit, str(path), quantity)}
        attrs["variable"] = raster.descriptions[band - 1] or f"band {band}"
        if "height_m" in tags:
            attrs["height_m"] = tags["height_m"]  # parsed by open_grid
        # Nodes are at the cell centres; GDAL's transform is that of the corners whatever AREA_OR_POINT is.
        lat = transform.f + transform.e * (np.arange(raster.height) + 0.5)
        lon = transform.c + transform.a * (np.arange(raster.width) + 0.5)
    return xr.DataArray(numbers, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs=attrs)


def _choose_band(raster: Any, variable: str | None, path: Path, quantity: Quantity) -> int:
    names = [description or str(band) for band, description in zip(raster.indexes, raster.descriptions, strict=True)]
    if variable is None:
        if raster.count == 1:
            return 1
        raise InputError(f"{path} has {raster.count} bands: {', '.join(names)}.", quantity.variable_hint)
    if variable in names:
        return names.index(variable) + 1
    if variable.isdigit() and 1 <= int(variable) <= raster.count:
        return int(variable)
    raise InputError(f"{path} has no band {variable!r}.", f"It has: {', '.join(names)}.")
