"""The file that the fields are kept in, and what it says of how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.workspace import require

MADE_BY = "gravmap residual --height 10km"


def field_recipe(fields: xr.Dataset) -> dict[str, Any]:
    """How the fields were made, as JSON-able values; a network is only used on fields of the recipe it was trained on.

    Raises
    ------
    InputError
        The Dataset carries no recipe.
    """
    try:
        recipe: dict[str, Any] = json.loads(fields.attrs["gravmap_recipe"])
    except (KeyError, TypeError, json.JSONDecodeError):
        raise InputError(
            "The fields carry no recipe: they were not made by gravmap.", f"`{MADE_BY}` makes them."
        ) from None
    return recipe


def added_channels(path: Path) -> tuple[str, ...]:
    """Channels of a file of fields that another command than `gravmap residual` added, which cannot make them again.

    Gives none for a file that is missing or not gravmap's: this only serves a warning.
    """
    try:
        with xr.open_dataset(path, engine="netcdf4") as file:
            return tuple(field_recipe(file).get("by_channel", {}))
    except (OSError, ValueError, RuntimeError, InputError):
        return ()


def field_sources(fields: xr.Dataset) -> list[dict[str, Any]]:
    """Where the fields come from: path, sha256, source, citation and licence of every input."""
    sources: list[dict[str, Any]] = json.loads(fields.attrs.get("gravmap_sources", "[]"))
    return sources


def write_fields(fields: xr.Dataset, path: Path) -> None:
    """Write fields as CF netCDF (netCDF-4, compressed), whole or not at all.

    Parameters
    ----------
    fields : xr.Dataset
        As :func:`residual_fields` gives them.
    path : Path
        The file; replaced when it exists.
    """
    import rioxarray  # noqa: F401  (registers the accessor that writes the CRS)

    placed = fields.rio.write_crs("EPSG:4326")
    for name in fields.data_vars:
        placed[name].attrs["grid_mapping"] = "spatial_ref"
        placed[name].encoding.pop("grid_mapping", None)
    encoding = {
        name: {"zlib": True, "complevel": 4, "dtype": "float32", "_FillValue": np.float32(np.nan)}
        for name in fields.data_vars
    }
    encoding |= {dim: {"_FillValue": None} for dim in ("lat", "lon")}
    with atomic_path(path) as temporary:
        placed.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def open_fields(path: Path, *, lazily: bool = False) -> xr.Dataset:
    """Read the fields that :func:`write_fields` wrote.

    Parameters
    ----------
    path : Path
        The file.
    lazily : bool
        Leave the values in the file, which stays open until the Dataset is closed: what is asked for is read then.

    Returns
    -------
    xr.Dataset, dims (lat, lon) ascending, float32
        Every field in its own ``units``, most in mGal. In memory and the file closed, unless `lazily`.

    Raises
    ------
    InputError
        Missing, unreadable, or not gravmap's.
    """
    require(path, MADE_BY)
    try:
        fields = xr.open_dataset(path, engine="netcdf4", cache=False)
        if not lazily:
            with fields:
                fields = fields.load()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", f"`{MADE_BY} --overwrite` makes it anew.") from None
    if "bouguer" not in fields or "gravmap_recipe" not in fields.attrs or set(fields["bouguer"].dims) != {"lat", "lon"}:
        fields.close()
        raise InputError(f"{path} was not made by gravmap.", f"`{MADE_BY}` makes it from a gravity grid.")
    # The CRS came along as a variable; here it is the reference that every array of this house has.
    for name in fields.data_vars:
        fields[name].encoding = {}
    return fields.drop_vars("spatial_ref", errors="ignore")
