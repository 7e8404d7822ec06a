"""Observed, regional and residual field: how they are computed, and the file that holds them."""

from __future__ import annotations

import datetime
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from gravmap import __version__
from gravmap.errors import InputError, OptionError
from gravmap.files import atomic_path
from gravmap.gravity.continuation import check_heights, prepared
from gravmap.gravity.derivatives import DERIVATIVE_HEIGHT_M, DERIVATIVES, derivatives
from gravmap.gravity.edges import Trim, edge_error, edge_note, known_outside, trimmed
from gravmap.gravity.gaps import fill_gaps
from gravmap.gravity.globe import globe_upward
from gravmap.gravity.grid import crop, extent, spacing_deg
from gravmap.gravity.long_wavelength import LongWavelengthField, is_global
from gravmap.gravity.patch import OPERATOR_VERSION, Patch
from gravmap.progress import Progress, silent
from gravmap.regions import Region
from gravmap.units import format_length
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


log = logging.getLogger(__name__)

# Read this much around the region, degrees: what lies outside is then measured, not guessed.
MARGIN_DEG = 5.0
# Padding and reach of the edges when the long waves are known from a globe.
RESTORED_PAD_YX = (80, 80)
RESTORED_DECAY_M = 50e3
# With less than this known beyond a side (degrees) an estimate of the error goes with the fields.
DOUBTFUL_DEG = 2.0


def residual_fields(
    grid: xr.DataArray,
    heights_m: Sequence[float],
    region: Region | None = None,
    *,
    margin_deg: float = MARGIN_DEG,
    low: LongWavelengthField | None = None,
    method: Literal["regional", "global"] = "regional",
    with_bands: bool = False,
    with_derivatives: bool = False,
    trim: Trim | None = None,
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
    low : LongWavelengthField, optional
        The longest waves of a globe: removed at the level of the data, restored at the new one. They decide the level
        of the regional, and what lies beyond the grid.
    method : {"regional", "global"}
        The latitude-variable operator on a patch; or spherical harmonics of the whole globe, which `grid` must then be
        (without ducc0: bands and polar caps), of which the region is cut out.
    with_bands : bool
        Add what lies between successive heights, lowest first: ``band_10km_40km = regional_10km - regional_40km``.
    with_derivatives : bool
        Add the derivatives of :mod:`gravmap.gravity.derivatives`, 2 km above the level of the data; not of a globe.
    trim : Trim, optional
        Leave out the rim where too little is known beyond the grid.
    sources : sequence of dict
        What goes into the file's provenance: path, sha256, source, citation, licence.
    progress : callable
        Told after every height.

    Returns
    -------
    xr.Dataset, dims (lat, lon), float32, mGal
        ``bouguer``, then for every height, lowest first, ``regional_10km`` and ``residual_10km``; then the bands; then
        the derivatives; then ``coverage`` (0 to 1) where the grid has holes; then for every height ``edge_error_10km``,
        the rms error to expect, where less than 2 degrees are known beyond a side. Attribute
        ``known_outside_deg_wsen``: how much of the field around the region was known on each side.

    Raises
    ------
    OptionError
        A height is not positive; derivatives of the global method; trimming leaves nothing.
    InputError
        The grid does not cover the region, or is all NaN there, or comes too near to a pole.
    """
    check_heights(heights_m)
    heights = sorted(set(map(float, heights_m)))
    globally = method == "global"
    if globally and with_derivatives:
        raise OptionError(
            "Derivatives are made by the regional method only.",
            "Choose a region between 80S and 80N, or leave --derivatives out.",
        )
    if globally and not is_global(grid):
        raise InputError(
            f"The global method needs the whole globe; the grid covers {extent(grid)}.",
            "Use --method regional, and --globe GRID if you have a coarse globe.",
        )
    work = (grid if region is None or globally else crop(grid, region, margin_for(region, margin_deg))).load()
    inner = crop(work, region) if region is not None else work
    if trim is not None and not globally:
        inner = trimmed(work, inner, trim, heights[-1], globe=low is not None)
    if min(inner.shape) < 4:
        size = f"{inner.sizes['lat']} x {inner.sizes['lon']}"
        raise InputError(
            f"The region holds only {size} nodes of the grid.", "Choose a larger --bbox W S E N, or a finer grid."
        )
    level_m = float(grid.attrs.get("height_m", 0.0))
    observed = np.array(inner.values, dtype=np.float32)
    if np.isnan(observed).all():
        raise InputError(f"Every node inside {region} is NaN.", "Choose another region or another grid.")
    template = xr.DataArray(observed, coords={"lat": inner["lat"], "lon": inner["lon"]}, dims=("lat", "lon"))
    title = str(grid.attrs.get("long_name", "Bouguer anomaly"))
    fields = {"bouguer": _described(template, observed, f"{title} (observed)", level_m)}

    lat, lon = work["lat"].values, work["lon"].values
    rows, columns = _place(lat, inner["lat"].values), _place(lon, inner["lon"].values)
    if globally:
        raised = iter(_of_the_globe(work, inner, heights, level_m, progress))
    else:
        field, _, offset = prepared(work.values if low is None else work.values - low.field(lat, lon, level_m))
        # What is left by the low degrees is short: it needs no far reach into the padding.
        edges: dict[str, Any] = {"pad_yx": RESTORED_PAD_YX, "decay_m": RESTORED_DECAY_M} if low is not None else {}
        patch = Patch(field, lat, lon, height_m=level_m, out_rows=rows, out_cols=columns, around=_around(lon), **edges)
        raised = (patch.upward(height) + np.float32(offset) for height in heights)
    for done, height in enumerate(heights):
        if not globally:
            progress(done, len(heights), format_length(height))
        regional = next(raised)
        if low is not None and not globally:
            regional += low.field(inner["lat"].values, inner["lon"].values, level_m + height)
        regional[np.isnan(observed)] = np.nan
        name, top = format_length(height), format_length(level_m + height)
        fields[f"regional_{name}"] = _described(
            template, regional, f"field continued upwards by {name}, to {top} above the ellipsoid", level_m + height
        )
        fields[f"residual_{name}"] = _described(
            template, observed - regional, f"observed minus the field {name} higher", level_m, lost_over_m=height
        )
    if not globally:
        progress(len(heights), len(heights))
    if with_bands:
        for under, over in itertools.pairwise(heights):
            below, above = format_length(under), format_length(over)
            between = fields[f"regional_{below}"].values - fields[f"regional_{above}"].values
            fields[f"band_{below}_{above}"] = _described(
                template, between, f"the field {below} higher minus that {above} higher", level_m + under
            )
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
        share = _coverage(work, inner, heights[-1], level_m, globally=globally)
        fields["coverage"] = _described(
            template, share, f"share of the regional {format_length(heights[-1])} higher that was measured", level_m
        )
        fields["coverage"].attrs["units"] = "1"

    outside = [360.0] * 4 if globally else known_outside(work, inner)
    if not globally and min(outside) < DOUBTFUL_DEG:
        for height in heights:
            name = format_length(height)
            rms = float(np.sqrt(np.nanmean(np.square(fields[f"residual_{name}"].values, dtype=np.float64))))
            estimate = edge_error(inner["lat"].values, inner["lon"].values, outside, height, rms, globe=low is not None)
            fields[f"edge_error_{name}"] = _described(
                template,
                estimate,
                f"rms error to expect of regional and residual {name}: too little is known beyond the edges",
                level_m,
            )
    now = datetime.datetime.now(datetime.UTC)
    attrs = {
        "Conventions": "CF-1.8",
        "title": "Bouguer gravity, its regional and its residual",
        "history": f"{now:%Y-%m-%dT%H:%M:%SZ} gravmap {__version__}: upward continuation",
        "height_m": level_m,
        "known_outside_deg_wsen": np.array(outside),
        "low_degrees_removed_and_restored": low.degree if low is not None and not globally else 0,
        "gravmap_recipe": json.dumps(_recipe(channels, heights, level_m, spacing_deg(inner), method)),
        "gravmap_sources": json.dumps([dict(source) for source in sources], ensure_ascii=False),
    }
    note = edge_note(
        outside, heights[0], float(np.nanstd(fields[f"residual_{format_length(heights[0])}"])), globe=low is not None
    )
    if note:
        attrs["edge_note"] = note
    return xr.Dataset(fields, attrs=attrs)


def margin_for(region: Region, margin_deg: float = MARGIN_DEG) -> float:
    """How much around a region to read, degrees: less where the region itself nearly goes around the Earth."""
    return min(margin_deg, max(0.0, (359 - region.width_deg) / 2))


def _around(lon: np.ndarray[Any, Any]) -> bool:
    """Whether the columns go all around, every meridian once."""
    step = (lon[-1] - lon[0]) / (lon.size - 1)
    return bool(abs(lon[-1] - lon[0] + step - 360) < 0.01 * step)


def _place(axis: np.ndarray[Any, Any], part: np.ndarray[Any, Any]) -> slice:
    start = int(np.abs(axis - part[0]).argmin())
    return slice(start, start + part.size)


def _described(
    template: xr.DataArray, values: np.ndarray[Any, Any], long_name: str, height_m: float, **more: float
) -> xr.DataArray:
    array = template.copy(data=values.astype(np.float32, copy=False))
    array.attrs = {"units": "mGal", "long_name": long_name, "height_m": height_m, **more}
    return array


def _of_the_globe(
    globe: xr.DataArray, inner: xr.DataArray, heights: list[float], level_m: float, progress: Progress
) -> list[np.ndarray[Any, Any]]:
    """The whole globe higher up, and of it the nodes of `inner`."""
    filled = fill_gaps(globe.values) if np.isnan(globe.values).any() else globe.values
    lat, lon = globe["lat"].values, globe["lon"].values
    raised = globe_upward(filled, lat, lon, heights, level_m=level_m, progress=progress)
    rows = _place(lat, inner["lat"].values)
    # The region's longitudes may be counted from elsewhere, and be two ends of the globe's.
    step = (lon[-1] - lon[0]) / (lon.size - 1)
    columns = np.round((inner["lon"].values - lon[0]) / step).astype(int) % round(360 / step)
    if rows == slice(0, lat.size) and np.array_equal(columns, np.arange(lon.size)):
        return raised
    return [np.asarray(field[rows][:, columns]) for field in raised]


def _coverage(
    work: xr.DataArray, inner: xr.DataArray, height_m: float, level_m: float, *, globally: bool
) -> np.ndarray[Any, Any]:
    known = work.copy(data=1.0 - np.isnan(work.values).astype(np.float32))
    if globally:
        share = _of_the_globe(known, inner, [height_m], level_m, silent)[0]
    else:
        lat, lon = work["lat"].values, work["lon"].values
        rows, columns = _place(lat, inner["lat"].values), _place(lon, inner["lon"].values)
        share = Patch(known.values, lat, lon, height_m=level_m, out_rows=rows, out_cols=columns).upward(height_m)
    return np.asarray(np.clip(share, 0, 1))


def _recipe(
    channels: list[str], heights: list[float], level_m: float, spacing: tuple[float, float], method: str
) -> dict[str, Any]:
    """What shaped the values. Not in it: region, margin, file name, which change only how well the rim is known."""
    return {
        "quantity": "bouguer",
        "unit": "mGal",
        "method": method,
        "operator_version": OPERATOR_VERSION,
        "input_height_m": level_m,
        "heights_m": heights,
        "spacing_deg": [round(step, 9) for step in spacing],
        "channels": channels,
    }
