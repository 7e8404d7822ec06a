"""Grids as GeoTIFF, and as ESRI ASCII grid, which GDAL reads as well."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.files import check_memory
from gravmap.gravity.georeferencing import CRS_ATTRIBUTE, check_transform, parse_crs
from gravmap.gravity.quantity import Quantity, unit_factor, warn_once
from gravmap.gravity.readers.plain_grid import check_last_number, geographic

_PICTURES = ("palette", "red", "green", "blue", "hue", "saturation", "lightness", "cyan", "magenta", "yellow", "black")
_AGAIN = "It may be truncated: download or copy it again."
# As stored, as float64, its mask, and a copy while it is converted.
_BYTES_PER_NODE = 32


def read_geotiff(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """One band; nodes at the cell centres. An alpha band is the mask of the others."""
    with _open(path, "GTiff") as raster:
        has_gcps = bool(raster.gcps[0])
        check_transform(raster.transform, has_gcps, str(path))
        if raster.crs is None:
            raise InputError(
                f"{path} has no coordinate reference system.", f"Give it one: gdal_edit.py -a_srs EPSG:4326 {path}"
            )
        crs = parse_crs(raster.crs.to_wkt(), str(path))
        band = _choose_band(raster, variable, path, quantity)
        tags = {**raster.tags(), **raster.tags(band)}
        unit = raster.units[band - 1] or tags.get("units") or tags.get("UNITTYPE") or ""
        if crs.is_compound and not quantity.has_unit(unit):
            unit = ""  # GDAL's, of the vertical coordinate system
        _refuse_picture(raster, band, unit or units, path)
        attrs: dict[str, Any] = {"_factor": unit_factor(units, unit, str(path), quantity), CRS_ATTRIBUTE: crs}
        attrs["variable"] = raster.descriptions[band - 1] or f"band {band}"
        if "height_m" in tags:
            attrs["height_m"] = tags["height_m"]  # parsed by open_grid
        numbers = _values(raster, band, path)
        lat, lon = _centres(raster)
    return xr.DataArray(numbers, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs=attrs)


def read_ascii_grid(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """ESRI ASCII grid: ncols, nrows, corner, cell size, then rows from the north; nodes at the cell centres."""
    check_last_number(path)
    with _open(path, "AAIGrid") as raster:
        lat, lon = _centres(raster)
        numbers = _values(raster, 1, path)
        _check_words(raster.width * raster.height, path)
        crs = None if raster.crs is None else parse_crs(raster.crs.to_wkt(), str(path))
    attrs: dict[str, Any] = {"variable": "band 1", "_factor": unit_factor(units, "", str(path), quantity)}
    if crs is None:
        return geographic(numbers, lat, lon, path, **attrs)
    return xr.DataArray(
        numbers, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={**attrs, CRS_ATTRIBUTE: crs}
    )


def _check_words(nodes: int, path: Path) -> None:
    """Refuse words that are not numbers, which GDAL reads as 0, and a wrong number of them."""
    count = 0
    with path.open(encoding="latin-1") as stream:
        for number, line in enumerate(stream, 1):
            words = line.split()
            if not count and words and words[0][0].isalpha() and words[0].lower() not in ("nan", "na", "inf"):
                if len(words) % 2 or not all(map(_is_number, words[1::2])):
                    raise InputError(f"{path}, line {number}: {line.strip()[:40]!r} has no number.", _AGAIN)
                continue  # of the header
            count += len(words)
            # Python takes 1_0 as 10.
            wrong = next((word for word in words if "_" in word or not _is_number(word)), None)
            if wrong is not None:
                raise InputError(
                    f"{path}, line {number}: {wrong[:20]!r} is not a number.",
                    "Correct it; a missing value is written as the NODATA_value of the header.",
                )
    if count != nodes:
        raise InputError(f"{path} has {count} values, and its header says {nodes}.", _AGAIN)


def _is_number(word: str) -> bool:
    try:
        float(word.replace(",", ".", 1))  # GDAL understands decimal commas here
    except ValueError:
        return False
    return True


def _open(path: Path, driver: str) -> Any:
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    try:
        with warnings.catch_warnings():
            # check_transform says it, with what to do.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, driver=driver)
    except RasterioIOError as error:
        kind = "GeoTIFF" if driver == "GTiff" else "ESRI ASCII grid"
        raise InputError(f"{path} cannot be read as {kind}: {error}.", _AGAIN) from None


def _centres(raster: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # GDAL's transform is that of the corners whatever AREA_OR_POINT is.
    transform = raster.transform
    lat = transform.f + transform.e * (np.arange(raster.height) + 0.5)
    lon = transform.c + transform.a * (np.arange(raster.width) + 0.5)
    return lat, lon


def _values(raster: Any, band: int, path: Path) -> NDArray[np.float64]:
    """The values of a band, NaN where it is masked, transparent or not stored."""
    from rasterio.enums import ColorInterp
    from rasterio.errors import RasterioIOError

    needed = raster.width * raster.height * _BYTES_PER_NODE
    hint = f"Cut out the region first: gdal_translate -projwin WEST NORTH EAST SOUTH {path} OUT.tif"
    check_memory(needed, f"{path} with {raster.height} x {raster.width} nodes takes", hint)
    try:
        values = raster.read(band, masked=True).astype(np.float64).filled(np.nan)
        for other, meaning in zip(raster.indexes, raster.colorinterp, strict=True):
            if meaning == ColorInterp.alpha and other != band:
                # GDAL applies it to bands of 8 or 16 bits only.
                values[raster.read(other) == 0] = np.nan
    except (RasterioIOError, MemoryError) as error:
        raise InputError(f"{path} cannot be read to its end: {error}.", _AGAIN) from None
    if raster.driver == "GTiff":
        _check_blocks(raster, band, values, path)
    return np.asarray(values * raster.scales[band - 1] + raster.offsets[band - 1])


def _check_blocks(raster: Any, band: int, values: NDArray[np.float64], path: Path) -> None:
    """Compare the blocks of a TIFF with the file; a block that is not stored is set to NaN, GDAL reads zeros there."""
    size = path.stat().st_size
    plain = raster.compression is None
    per_pixel = np.dtype(raster.dtypes[band - 1]).itemsize
    if str(raster.interleaving).rsplit(".")[-1].lower() == "pixel":
        per_pixel *= raster.count
    block_rows, block_columns = raster.block_shapes[band - 1]
    places, absent = [], 0
    for (row, column), window in raster.block_windows(band):
        stored = raster.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)
        offset = raster.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
        if stored is None or offset is None:
            values[window.toslices()] = np.nan
            absent += 1
            continue
        places.append((int(offset), int(stored)))
        # Strips end with the raster; tiles are whole.
        rows = block_rows if block_columns < raster.width or raster.profile.get("tiled") else window.height
        wanted = rows * block_columns * per_pixel
        if plain and int(stored) != wanted:
            raise InputError(
                f"{path} does not fit its header: block {column}, {row} has {stored} bytes, and {wanted} are needed.",
                _AGAIN,
            )
    if absent:
        warn_once(f"{path}: {absent} of its {absent + len(places)} blocks are not stored; their nodes are NaN.")
    places.sort()
    overlap = any(place + length > after for (place, length), (after, _) in itertools.pairwise(places))
    if overlap or (places and places[-1][0] + places[-1][1] > size):
        raise InputError(f"{path} does not fit its header: its blocks overlap or lie beyond its end.", _AGAIN)


def _refuse_picture(raster: Any, band: int, unit: str | None, path: Path) -> None:
    """Refuse colours: their numbers are not values of a field."""
    meaning = raster.colorinterp[band - 1].name.lower()
    dtype = raster.dtypes[band - 1]
    if meaning in _PICTURES:
        what = "numbers of a palette" if meaning == "palette" else f"the {meaning} of a picture"
    elif dtype == "uint8" and not unit:
        what = "shades of a picture, 8 bits without a unit"
    else:
        return
    raise InputError(
        f"{path} holds {what}, not values of a field.",
        "Use the grid from which the picture was made; if these are its values, state --units.",
    )


def _choose_band(raster: Any, variable: str | None, path: Path, quantity: Quantity) -> int:
    names = [description or str(band) for band, description in zip(raster.indexes, raster.descriptions, strict=True)]
    if variable is None:
        fields = [
            band for band, meaning in zip(raster.indexes, raster.colorinterp, strict=True) if meaning.name != "alpha"
        ]
        pictured = [band for band in fields if raster.colorinterp[band - 1].name.lower() in _PICTURES]
        if len(fields) == 1 or pictured:
            return int(pictured[0] if pictured else fields[0])
        raise InputError(f"{path} has {raster.count} bands: {', '.join(names)}.", quantity.variable_hint)
    if variable in names:
        return names.index(variable) + 1
    if variable.isdigit() and 1 <= int(variable) <= raster.count:
        return int(variable)
    raise InputError(f"{path} has no band {variable!r}.", f"It has: {', '.join(names)}.")
