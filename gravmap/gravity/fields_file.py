"""The netCDF file of fields: reading, writing, and the recipe and provenance stored in it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.files import atomic_path, sha256
from gravmap.gravity.axes import check_even_spacing
from gravmap.gravity.netcdf_file import decode, open_netcdf
from gravmap.gravity.quantity import level_m
from gravmap.records import FieldRecipe, SourceRecord, parse_record
from gravmap.workspace import require

MADE_BY = "gravmap residual --height 10km"
_ANEW = f"`{MADE_BY} --overwrite` makes it again."


def field_recipe(fields: xr.Dataset) -> dict[str, Any]:
    """Parameters that the values of the fields depend on.

    A trained network stores the recipe of its training fields and accepts only fields with the same one.

    Parameters
    ----------
    fields : xr.Dataset
        From :func:`residual_fields` or :func:`open_fields`.

    Returns
    -------
    dict
        JSON-serializable: quantity, unit, method, heights, node spacing, channels, version of the operator.

    Raises
    ------
    InputError
        The Dataset has no recipe, or an invalid one.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import residual_fields
    >>> from gravmap.gravity.fields_file import field_recipe
    >>> lat, lon = np.arange(40, 44.1, 0.25), np.arange(80, 85.1, 0.25)
    >>> bumps = 30 * np.cos(2 * lat)[:, None] * np.sin(2 * lon)
    >>> grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> recipe = field_recipe(residual_fields(grid, [10e3]))
    >>> recipe["unit"], recipe["heights_m"], recipe["spacing_deg"]
    ('mGal', [10000.0], [0.25, 0.25])
    """
    if "gravmap_recipe" not in fields.attrs:
        raise InputError(
            "The fields have no attribute gravmap_recipe: they were not made by gravmap.", f"`{MADE_BY}` makes them."
        )
    return read_field_recipe(fields.attrs["gravmap_recipe"], str(fields.encoding.get("source", "the fields")))


def read_field_recipe(text: Any, where: str) -> dict[str, Any]:
    """Read the text of the attribute ``gravmap_recipe`` of the file `where`.

    Raises
    ------
    InputError
        It is damaged.
    """
    return {**parse_record(text, FieldRecipe, f"The attribute gravmap_recipe of {where}", _ANEW)}


def read_field_sources(text: Any, where: str) -> list[dict[str, Any]]:
    """Read the text of the attribute ``gravmap_sources`` of the file `where`; errors as :func:`read_field_recipe`."""
    found = parse_record(text, list[SourceRecord], f"The attribute gravmap_sources of {where}", _ANEW)
    return [{**each} for each in found]


def field_sources(fields: xr.Dataset) -> list[dict[str, Any]]:
    """Provenance of the fields: path, sha256, source, citation and licence of every input file.

    Parameters
    ----------
    fields : xr.Dataset
        From :func:`residual_fields` or :func:`open_fields`.

    Returns
    -------
    list of dict
        Empty when none were recorded.

    Raises
    ------
    InputError
        The Dataset has invalid provenance.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import residual_fields
    >>> from gravmap.gravity.fields_file import field_sources
    >>> lat, lon = np.arange(40, 44.1, 0.25), np.arange(80, 85.1, 0.25)
    >>> bumps = 30 * np.cos(2 * lat)[:, None] * np.sin(2 * lon)
    >>> grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> field_sources(residual_fields(grid, [10e3], sources=[{"path": "survey.nc"}]))
    [{'path': 'survey.nc'}]
    """
    where = str(fields.encoding.get("source", "the fields"))
    return read_field_sources(fields.attrs.get("gravmap_sources", "[]"), where)


def write_fields(fields: xr.Dataset, path: Path) -> None:
    """Write fields as compressed CF netCDF-4, atomically.

    Parameters
    ----------
    fields : xr.Dataset
        From :func:`residual_fields`.
    path : Path
        The file; an existing one is replaced.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import open_fields, residual_fields, write_fields
    >>> lat, lon = np.arange(40, 44.1, 0.25), np.arange(80, 85.1, 0.25)
    >>> bumps = 30 * np.cos(2 * lat)[:, None] * np.sin(2 * lon)
    >>> grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_fields(residual_fields(grid, [10e3]), Path(folder) / "fields.nc")
    ...     fields = open_fields(Path(folder) / "fields.nc")
    >>> dict(fields.sizes)
    {'lat': 17, 'lon': 21}
    """
    import rioxarray  # noqa: F401  (registers the accessor that writes the CRS)

    with_crs = fields.rio.write_crs("EPSG:4326")
    for name in fields.data_vars:
        with_crs[name].attrs["grid_mapping"] = "spatial_ref"
        with_crs[name].encoding.pop("grid_mapping", None)
    encoding = {
        name: {"zlib": True, "complevel": 4, "dtype": "float32", "_FillValue": np.float32(np.nan)}
        for name in fields.data_vars
    }
    encoding |= {dim: {"_FillValue": None} for dim in ("lat", "lon")}
    with atomic_path(path) as temporary:
        with_crs.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def open_fields(path: Path, *, lazily: bool = False) -> xr.Dataset:
    """Read the fields written by :func:`write_fields`.

    Parameters
    ----------
    path : Path
        The netCDF file.
    lazily : bool
        Do not load the values: they are read on access, and the file stays open until the Dataset is closed.

    Returns
    -------
    xr.Dataset, dims (lat, lon) ascending, float32
        Each variable has its attribute ``units``, in most cases mGal. Unless `lazily`, in memory with the file closed.

    Raises
    ------
    InputError
        The file is missing, unreadable, or was not written by gravmap.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import open_fields, residual_fields, write_fields
    >>> lat, lon = np.arange(40, 44.1, 0.25), np.arange(80, 85.1, 0.25)
    >>> bumps = 30 * np.cos(2 * lat)[:, None] * np.sin(2 * lon)
    >>> grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_fields(residual_fields(grid, [10e3]), Path(folder) / "fields.nc")
    ...     fields = open_fields(Path(folder) / "fields.nc")
    >>> fields["residual_10km"].attrs["units"]
    'mGal'
    """
    if require(path, MADE_BY).is_dir():
        raise InputError(f"{path} is a folder.", f"`{MADE_BY}` makes a file.")
    stored = open_netcdf(path, _ANEW)
    try:
        fields = _checked(stored, path)
        if not lazily:
            fields.load()
    except BaseException:
        stored.close()
        raise
    if lazily:
        fields.set_close(stored.close)
    else:
        stored.close()
    return fields


def hash_channels(path: Path, names: Collection[str] | None = None) -> dict[str, str]:
    """SHA-256 of variables of a file of fields, each with its nodes and its unit.

    Another variable that is added or removed changes the bytes of the file, but not these.

    Parameters
    ----------
    path : Path
        The netCDF file.
    names : collection of str, optional
        Those that the file lacks are left out, ``bouguer`` is always there; by default all.

    Returns
    -------
    dict of str to str
        By name.

    Raises
    ------
    InputError
        As :func:`open_fields`.
    """
    with open_fields(path, lazily=True) as fields:
        nodes = b"".join(np.ascontiguousarray(fields[axis].values, "<f8").tobytes() for axis in ("lat", "lon"))
        found = {}
        for name in sorted(map(str, fields.data_vars)):
            if names is None or name in names or name == "bouguer":
                values = np.ascontiguousarray(fields[name].values, "<f4")
                values = np.where(np.isnan(values), np.float32(np.nan), values)  # one bit pattern for all NaN
                unit = str(fields[name].attrs.get("units", "")).encode()
                found[name] = hashlib.sha256(nodes + unit + values.tobytes()).hexdigest()
    return found


def changed_channels(path: Path, recorded: Mapping[str, Any]) -> list[str] | None:
    """Compare a file of fields with its record.

    Parameters
    ----------
    path : Path
        The netCDF file.
    recorded : mapping
        Its ``sha256``, and ``channels`` from :func:`hash_channels`, which records of older versions lack.

    Returns
    -------
    list of str or None
        None: the bytes are as recorded. Otherwise the recorded channels whose values, unit or nodes are not,
        or that are missing: empty where only other channels differ; ``["the file"]`` of a record without channels.

    Raises
    ------
    InputError
        The bytes differ, and the file cannot be read.
    """
    if sha256(path) == recorded["sha256"]:
        return None
    if not recorded.get("channels"):
        return ["the file"]
    found = hash_channels(path, recorded["channels"])
    return [name for name, known in recorded["channels"].items() if found.get(name) != known]


def _checked(stored: xr.Dataset, path: Path) -> xr.Dataset:
    """The variables with dims (lat, lon) of a file, lazy, after a check of its axes and attributes."""
    grids = {str(name): array for name, array in stored.data_vars.items() if {*array.dims} == {"lat", "lon"}}
    if "bouguer" not in grids or "gravmap_recipe" not in stored.attrs:
        raise InputError(f"{path} was not made by gravmap.", f"`{MADE_BY}` makes it from a gravity grid.")
    attrs, axes = dict(stored.attrs), {}
    field_recipe(stored)
    field_sources(stored)
    try:
        if "height_m" in attrs:
            attrs["height_m"] = level_m(attrs["height_m"], "The file", _ANEW)
        for dim, largest in (("lat", 90.0), ("lon", 720.0)):
            if dim not in stored.coords:
                raise InputError(f"The file has no coordinates along {dim!r}.")
            axis = decode(stored[dim], path, _ANEW).load()
            check_even_spacing(axis.values, f"The axis {dim!r}", stored_as_float32=axis.dtype == np.float32)
            if np.abs(axis.values).max() > largest + 1e-4:
                raise InputError(f"The axis {dim!r} runs from {axis.values[0]:g} to {axis.values[-1]:g}.")
            axes[dim] = axis.variable
    except InputError as error:
        raise InputError(f"{path} is damaged: {error.message}", _ANEW) from None
    # In memory every grid is EPSG:4326 by convention, so the variable that carries the CRS in the file is left out.
    decoded = {name: decode(array, path, _ANEW).transpose("lat", "lon") for name, array in grids.items()}
    fields = xr.Dataset(decoded, coords=axes, attrs=attrs)
    # Another program may have turned the file over.
    return fields.isel({dim: slice(None, None, -1) for dim in axes if fields[dim][0] > fields[dim][-1]})
