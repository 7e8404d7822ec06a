"""Observed, regional and residual field: the Dataset that leaves this room, its file, and its recipe."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gravmap import __version__
from gravmap.errors import InputError
from gravmap.files import atomic_path
from gravmap.gravity.continuation import check_heights, prepared
from gravmap.gravity.derivatives import DERIVATIVE_HEIGHT_M, DERIVATIVES, derivatives
from gravmap.gravity.grid import crop, extent, spacing_deg
from gravmap.gravity.lowdegrees import LowDegrees
from gravmap.gravity.patch import OPERATOR_VERSION, Patch
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.units import format_length
from gravmap.workspace import require

log = logging.getLogger(__name__)

MADE_BY = "gravmap residual --height 10km"
# Read this much around the region, degrees: what lies outside is then measured, not guessed.
MARGIN_DEG = 5.0
# Padding and reach of the edges when the long waves are known from a globe.
RESTORED_PAD_YX = (80, 80)
RESTORED_DECAY_M = 50e3


def residual_fields(
    grid: xr.DataArray,
    heights_m: Sequence[float],
    region: Region | None = None,
    *,
    margin_deg: float = MARGIN_DEG,
    low: LowDegrees | None = None,
    with_derivatives: bool = False,
    sources: Sequence[dict[str, Any]] = (),
    progress: Progress = silent,
) -> xr.Dataset:
    """Split a field into a regional and a residual part at each height.

    The regional is the field continued upwards by the height, counted from the level of the data; the residual is
    what was lost on the way. Where the grid is wider than the region, up to `margin_deg` around it is used and cut
    off again.

    Parameters
    ----------
    grid : xr.DataArray, dims (lat, lon), mGal
        As :func:`gravmap.gravity.open_grid` gives it; attribute ``height_m`` is its level.
    heights_m : sequence of float
        Metres above that level; each costs a fraction of the first.
    region : Region, optional
        The box wanted; the whole grid by default.
    margin_deg : float
        How much around the region to use, degrees.
    low : LowDegrees, optional
        The longest waves of a globe: removed at the level of the data, restored at the new one. They decide the level
        of the regional, and what lies beyond the grid.
    with_derivatives : bool
        Add the derivatives of :mod:`gravmap.gravity.derivatives`, 2 km above the level of the data.
    sources : sequence of dict
        What goes into the file's provenance: path, sha256, source, citation, licence.
    progress : callable
        Told after every height.

    Returns
    -------
    xr.Dataset, dims (lat, lon), float32, mGal
        ``bouguer``, then for every height, lowest first, ``regional_10km`` and ``residual_10km``; then the derivatives;
        then ``coverage`` (0 to 1) where the grid has holes. Attribute
        ``known_outside_deg_wsen``: how much of the field around the region was known on each side.

    Raises
    ------
    OptionError
        A height is not positive.
    InputError
        The grid does not cover the region, or is all NaN there, or comes too near to a pole.
    """
    check_heights(heights_m)
    heights = sorted(set(map(float, heights_m)))
    work = (crop(grid, region, margin_deg) if region is not None else grid).load()
    inner = crop(work, region) if region is not None else work
    if min(inner.shape) < 4:
        size = f"{inner.sizes['lat']} x {inner.sizes['lon']}"
        raise InputError(
            f"The region holds only {size} nodes of the grid.", "Choose a larger --bbox W S E N, or a finer grid."
        )
    rows, columns = _place(work["lat"].values, inner["lat"].values), _place(work["lon"].values, inner["lon"].values)
    # The Earth's other side of a grid that goes all around would be a margin of itself: no special case, it is padding.
    level_m = float(grid.attrs.get("height_m", 0.0))

    lat, lon = work["lat"].values, work["lon"].values
    values = work.values if low is None else work.values - low.field(lat, lon, level_m)
    field, holes, offset = prepared(values)
    if holes[rows, columns].all():
        raise InputError(f"Every node inside {region} is NaN.", "Choose another region or another grid.")
    # What is left by the low degrees is short: it needs no far reach into the padding.
    edges: dict[str, Any] = {"pad_yx": RESTORED_PAD_YX, "decay_m": RESTORED_DECAY_M} if low is not None else {}
    patch = Patch(field, lat, lon, height_m=level_m, out_rows=rows, out_cols=columns, **edges)
    observed = np.array(inner.values, dtype=np.float32)
    template = xr.DataArray(observed, coords={"lat": inner["lat"], "lon": inner["lon"]}, dims=("lat", "lon"))
    title = str(grid.attrs.get("long_name", "Bouguer anomaly"))
    fields = {"bouguer": _described(template, observed, f"{title} (observed)", level_m)}
    for done, height in enumerate(heights):
        progress(done, len(heights), format_length(height))
        regional = patch.upward(height) + np.float32(offset)
        if low is not None:
            regional += low.field(inner["lat"].values, inner["lon"].values, level_m + height)
        regional[np.isnan(observed)] = np.nan
        name, top = format_length(height), format_length(level_m + height)
        fields[f"regional_{name}"] = _described(
            template, regional, f"field continued upwards by {name}, to {top} above the ellipsoid", level_m + height
        )
        fields[f"residual_{name}"] = _described(
            template, observed - regional, f"observed minus the field {name} higher", level_m, lost_over_m=height
        )
    progress(len(heights), len(heights))
    if with_derivatives:
        # The longest waves hardly matter to a derivative, and have none on record: the whole field is taken.
        whole, _, _ = prepared(work.values)
        slopes = Patch(whole, lat, lon, height_m=level_m, out_rows=rows, out_cols=columns) if low is not None else patch
        name = format_length(DERIVATIVE_HEIGHT_M)
        for key, values in derivatives(slopes, DERIVATIVE_HEIGHT_M).items():
            values[np.isnan(observed)] = np.nan
            long_name, unit = DERIVATIVES[key]
            array = _described(template, values, f"{long_name}, {name} higher", level_m + DERIVATIVE_HEIGHT_M)
            array.attrs["units"] = unit
            fields[f"{key}_{name}"] = array
    channels = list(fields)
    if np.isnan(observed).any():
        # The share of the regional that was measured: the mask of known nodes, continued upwards like the field.
        known = Patch(1.0 - holes, lat, lon, height_m=level_m, out_rows=rows, out_cols=columns)
        share = np.clip(known.upward(heights[-1]), 0, 1)
        fields["coverage"] = _described(
            template, share, f"share of the regional {format_length(heights[-1])} higher that was measured", level_m
        )
        fields["coverage"].attrs["units"] = "1"

    outside = _known_outside(work, inner)
    now = datetime.datetime.now(datetime.UTC)
    attrs = {
        "Conventions": "CF-1.8",
        "title": "Bouguer gravity, its regional and its residual",
        "history": f"{now:%Y-%m-%dT%H:%M:%SZ} gravmap {__version__}: upward continuation",
        "height_m": level_m,
        "known_outside_deg_wsen": np.array(outside),
        "low_degrees_removed_and_restored": low.degree if low is not None else 0,
        "gravmap_recipe": json.dumps(_recipe(channels, heights, level_m, spacing_deg(inner))),
        "gravmap_sources": json.dumps([dict(source) for source in sources], ensure_ascii=False),
    }
    note = edge_note(outside, float(np.nanstd(observed - regional)))
    if note:
        attrs["edge_note"] = note
    return xr.Dataset(fields, attrs=attrs)


def _place(axis: np.ndarray[Any, Any], part: np.ndarray[Any, Any]) -> slice:
    start = int(np.abs(axis - part[0]).argmin())
    return slice(start, start + part.size)


def _described(
    template: xr.DataArray, values: np.ndarray[Any, Any], long_name: str, height_m: float, **more: float
) -> xr.DataArray:
    array = template.copy(data=values.astype(np.float32, copy=False))
    array.attrs = {"units": "mGal", "long_name": long_name, "height_m": height_m, **more}
    return array


def _known_outside(work: xr.DataArray, inner: xr.DataArray) -> list[float]:
    """How much of the field beyond the region was there, degrees, on the west, south, east and north."""
    outer, own = extent(work), extent(inner)
    sides = (own.west - outer.west, own.south - outer.south, outer.east - own.east, outer.north - own.north)
    return [round(side, 6) for side in sides]


def edge_note(known_outside_deg_wsen: Sequence[float], residual_mgal: float) -> str | None:
    """What the rim is worth where nothing outside was known; None when something was, on all sides.

    Parameters
    ----------
    known_outside_deg_wsen : four floats
        How much of the field around the region was known on each side, degrees.
    residual_mgal : float
        Standard deviation of the residual, mGal.

    Notes
    -----
    The shares were measured on point masses (docs/performance.md): of the residual's rms about 27 % at the edge,
    5 % at half a degree, 4 % at one degree, 2 % beyond two, for 10 km.
    """
    blind = [
        side
        for side, known in zip(("west", "south", "east", "north"), known_outside_deg_wsen, strict=True)
        if known < 0.5
    ]
    if not blind:
        return None
    rim, one, two = (share * residual_mgal for share in (0.25, 0.05, 0.02))
    return (
        f"Nothing is known beyond the {', '.join(blind)} edge: expect errors of about {rim:.1f} mGal on the rim,"
        f" {one:.1f} mGal one degree in, {two:.1f} mGal two degrees in."
    )


def _recipe(channels: list[str], heights: list[float], level_m: float, spacing: tuple[float, float]) -> dict[str, Any]:
    """What shaped the values. Not in it: region, margin, file name, which change only how well the rim is known."""
    return {
        "quantity": "bouguer",
        "unit": "mGal",
        "method": "regional",
        "operator_version": OPERATOR_VERSION,
        "input_height_m": level_m,
        "heights_m": heights,
        "spacing_deg": [round(step, 9) for step in spacing],
        "channels": channels,
    }


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


def open_fields(path: Path) -> xr.Dataset:
    """Read the fields that :func:`write_fields` wrote.

    Returns
    -------
    xr.Dataset, dims (lat, lon) ascending, float32, mGal
        In memory; the file is closed.

    Raises
    ------
    InputError
        Missing, unreadable, or not gravmap's.
    """
    require(path, MADE_BY)
    try:
        with xr.open_dataset(path, engine="netcdf4") as file:
            fields = file.load()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", f"`{MADE_BY} --overwrite` makes it anew.") from None
    if "bouguer" not in fields or "gravmap_recipe" not in fields.attrs or set(fields["bouguer"].dims) != {"lat", "lon"}:
        raise InputError(f"{path} was not made by gravmap.", f"`{MADE_BY}` makes it from a gravity grid.")
    # The CRS came along as a variable; here it is the reference that every array of this house has.
    for name in fields.data_vars:
        fields[name].encoding = {}
    return fields.drop_vars("spatial_ref", errors="ignore")
