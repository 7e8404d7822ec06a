"""Grids as netCDF: GMT's layouts and CF."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.georeferencing import CRS_ATTRIBUTE, parse_crs
from gravmap.gravity.netcdf_file import COPY_AGAIN, decode, open_netcdf
from gravmap.gravity.quantity import Quantity, unit_factor
from gravmap.gravity.readers.plain_grid import geographic

if TYPE_CHECKING:
    from pyproj import CRS

log = logging.getLogger(__name__)

_GMT4_PAIRS = ("x_range", "y_range", "spacing", "dimension")


def read_netcdf(path: Path, variable: str | None, units: str | None, quantity: Quantity) -> xr.DataArray:
    """GMT's x y z, CF in either axis order, or the one-dimensional z of GMT 3 and 4; lazy."""
    dataset = open_netcdf(path)
    if {*_GMT4_PAIRS, "z"} <= set(map(str, dataset.variables)):
        return _gmt4(dataset, path, units, quantity)
    name = _choose_variable(dataset, variable, path, quantity)
    grid = decode(dataset[name], path).squeeze(drop=True)
    for dim in grid.dims:
        if dim in dataset.variables:
            axis = decode(dataset[dim], path)
            if dataset[dim].dtype.kind in "iu":  # float32 would be taken as rounded
                axis = axis.astype(np.float64)
            grid = grid.assign_coords({dim: axis.variable})
    attrs = {key: value for key, value in grid.attrs.items() if key not in ("grid_mapping", "actual_range")}
    attrs |= {
        f"file_{key}": value
        for key, value in dataset.attrs.items()
        if key in ("title", "source", "history", "references", "comment")
    }
    # The level may be an attribute of the variable or of the file.
    if "height_m" in dataset.attrs:
        attrs.setdefault("height_m", dataset.attrs["height_m"])
    attrs["_range"] = _stated_range(dataset[name])
    unit = str(attrs.get("units", ""))
    attrs["_factor"] = unit_factor(units, unit, f"{path}, variable {name!r},", quantity)
    attrs["variable"] = name
    attrs[CRS_ATTRIBUTE] = _crs_of(dataset, dataset[name], path)
    grid.attrs = attrs
    return grid


def _stated_range(array: xr.DataArray) -> tuple[float, float] | None:
    """Least and largest value by the attribute actual_range, which GMT writes; None for packed values."""
    stated = np.asarray(array.attrs.get("actual_range", ()))
    if stated.size != 2 or stated.dtype.kind not in "iuf" or {"scale_factor", "add_offset"} & set(array.attrs):
        return None
    low, high = map(float, stated)
    return (low, high) if low < high else None  # not NaN, which GMT writes for a grid without values


def _gmt4(dataset: xr.Dataset, path: Path, units: str | None, quantity: Quantity) -> xr.DataArray:
    """GMT 3 and 4: ranges, steps and counts as variables of two numbers, z one-dimensional from the north-west."""
    z = decode(dataset["z"], path)
    pairs = {name: decode(dataset[name], path).values.ravel() for name in _GMT4_PAIRS}
    if any(pair.size != 2 or not np.isfinite(pair).all() for pair in pairs.values()):
        raise InputError(f"{path} does not have two numbers each as {', '.join(_GMT4_PAIRS)}.", COPY_AGAIN)
    columns, rows = (int(number) for number in pairs["dimension"])
    (west, east), (south, north) = pairs["x_range"], pairs["y_range"]
    # 1: nodes lie at the centres of cells; every other value means that they lie on the limits.
    pixel = int(str(z.attrs.get("node_offset", dataset.attrs.get("node_offset", 0))) == "1")
    if min(rows, columns) < 4:
        raise InputError(f"{path} has {rows} x {columns} nodes.", "A grid needs at least 4 by 4.")
    if rows * columns != z.size:
        raise InputError(
            f"{path} has {z.size} values, but its header gives {rows} x {columns} nodes.", "Copy it again."
        )
    step_x, step_y = (east - west) / (columns - 1 + pixel), (north - south) / (rows - 1 + pixel)
    stated = pairs["spacing"]
    if np.abs(np.array([step_x, step_y]) - stated).max() > 1e-5 * np.abs(stated).max():
        raise InputError(
            f"{path} has a spacing of {stated[0]:g} and {stated[1]:g} in its header, but {step_x:g} and {step_y:g} by"
            " its ranges and counts.",
            "Write it again: gmt grdconvert IN OUT",
        )
    unit = str(dataset["z_range"].attrs.get("units", "")) if "z_range" in dataset else ""
    stated_unit = "" if unit in ("z", "user_z_unit") else unit
    attrs = {"variable": "z", "_factor": unit_factor(units, stated_unit, str(path), quantity)}
    if dataset.attrs.get("title"):
        attrs["file_title"] = dataset.attrs["title"]
    lat = south + step_y * (np.arange(rows) + 0.5 * pixel)
    lon = west + step_x * (np.arange(columns) + 0.5 * pixel)
    grid = geographic(z.values.reshape(rows, columns)[::-1], lat, lon, path)
    grid.attrs |= attrs
    return grid


def _choose_variable(dataset: xr.Dataset, variable: str | None, path: Path, quantity: Quantity) -> str:
    """The variable to read: the one given, the only one, or the one recognised by its name or unit."""
    bounds = {str(array.attrs.get("bounds")) for array in dataset.variables.values()}
    grids = {
        str(name): array
        for name, array in dataset.data_vars.items()
        if array.squeeze().ndim >= 2
        and array.dtype.kind in "fiu"
        and "flag_values" not in array.attrs
        # Nor the limits of the cells of an axis.
        and name not in bounds
        and array.shape[-1] > 2
    }
    if variable is not None:
        if variable not in dataset.data_vars:
            raise InputError(
                f"{path} has no variable {variable!r}.", f"It has: {', '.join(map(str, dataset.data_vars))}."
            )
        return variable
    if not grids:
        raise InputError(
            f"{path} has no grid: its variables are {', '.join(map(str, dataset.variables)) or 'none'}.",
            "A grid has two dimensions, latitude and longitude.",
        )
    if len(grids) == 1:
        return next(iter(grids))
    by_unit = {name for name, array in grids.items() if quantity.has_unit(str(array.attrs.get("units", "")))} or set(
        grids
    )
    if len(by_unit) == 1:
        return by_unit.pop()
    if quantity.name_parts[0] in by_unit:  # gravmap's own files: bouguer
        return quantity.name_parts[0]
    for word in quantity.name_parts:
        named = [name for name in grids if name in by_unit and word in name.lower()]
        if len(named) == 1:
            log.info("%s: reading variable %r.", path.name, named[0])
            return named[0]
        if named:
            break
    raise InputError(f"{path} has several grids: {', '.join(grids)}.", quantity.variable_hint)


def _crs_of(dataset: xr.Dataset, array: xr.DataArray, path: Path) -> CRS | None:
    """The coordinate system that the variable's grid mapping describes; None if it has none."""
    # In CF's extended form: "crs: lat lon".
    mapping = str(array.attrs.get("grid_mapping", "")).partition(":")[0].strip()
    if mapping not in dataset.variables:
        return None
    attrs = {key: value for key, value in dataset[mapping].attrs.items() if key != "_FillValue"}
    if "spatial_ref" in attrs:  # GDAL's name
        attrs.setdefault("crs_wkt", attrs["spatial_ref"])
    if not {"crs_wkt", "grid_mapping_name"} & attrs.keys():
        return None
    # CF gives the prime meridian in its attribute only where there is no WKT; a name of the mapping is not required.
    if "crs_wkt" in attrs:
        return parse_crs(attrs["crs_wkt"], str(path))
    return parse_crs(attrs, str(path), cf=True)
