"""Regional-residual separation of a gravity grid by upward continuation."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap import __version__
from gravmap.errors import InputError, OptionError
from gravmap.gravity.continuation import check_heights, prepare_for_transform
from gravmap.gravity.derivatives import DERIVATIVE_HEIGHT_M, DERIVATIVES, patch_derivatives
from gravmap.gravity.edges import Trim, edge_error, edge_note, known_margins_deg, trim_edges
from gravmap.gravity.gaps import fill_gaps
from gravmap.gravity.globe import upward_continue_globe
from gravmap.gravity.grid import crop, extent, spacing_deg
from gravmap.gravity.long_wavelength import LongWavelengthField, is_global
from gravmap.gravity.patch import OPERATOR_VERSION, RESTORED, Patch
from gravmap.gravity.quantity import bouguer_name
from gravmap.progress import Progress, silent
from gravmap.records import RESAMPLED_FROM, STATED_HEIGHT
from gravmap.regions import Region
from gravmap.units import format_length

# Data read around the region, degrees: with it the field beyond the edges is measured rather than extrapolated.
MARGIN_DEG = 5.0
# An error estimate is added to the fields when a side has less data beyond it than this, degrees.
DOUBTFUL_DEG = 2.0

Values = NDArray[Any]


def residual_fields(
    grid: xr.DataArray,
    heights_m: Sequence[float],
    region: Region | None = None,
    *,
    margin_deg: float = MARGIN_DEG,
    long_wavelength: LongWavelengthField | None = None,
    method: Literal["regional", "global"] = "regional",
    with_bands: bool = False,
    with_derivatives: bool = False,
    trim: Trim | None = None,
    sources: Sequence[dict[str, Any]] = (),
    progress: Progress = silent,
) -> xr.Dataset:
    """Separate a gravity field into a regional and a residual part by upward continuation.

    The regional is the field continued upward by a height above the level of the data; the residual is the observed
    field minus the regional.

    Parameters
    ----------
    grid : xr.DataArray, dims (lat, lon), mGal
        From :func:`gravmap.gravity.open_grid`; attribute ``height_m`` is the level of the data.
    heights_m : sequence of float
        Continuation heights in metres above that level. Further heights reuse the transform of the first.
    region : Region, optional
        The region of interest; the whole grid by default.
    margin_deg : float
        Data used around the region where the grid is larger, degrees. Regional method only.
    long_wavelength : LongWavelengthField, optional
        Long wavelengths of a global grid, removed before the continuation and restored after it (remove-restore).
        Regional method only.
    method : {"regional", "global"}
        ``"regional"`` applies the latitude-variable operator (:class:`gravmap.gravity.patch.Patch`) to a
        region, ``"global"`` continues a global grid with spherical harmonics (without ducc0: by bands of latitude).
    with_bands : bool
        Add the band between each two successive heights: ``band_10km_40km = regional_10km - regional_40km``.
    with_derivatives : bool
        Add the derivatives of :mod:`gravmap.gravity.derivatives`, 2 km above the data. Regional method only.
    trim : Trim, optional
        Remove the rim of the result where too little data is known beyond it. Regional method only.
    sources : sequence of dict
        Provenance to store: path, sha256, source, citation, licence.
    progress : callable
        Called as each height is computed.

    Returns
    -------
    xr.Dataset, dims (lat, lon), float32, mGal
        ``bouguer``; for each height, in ascending order, ``regional_10km`` and ``residual_10km``; the bands; the
        derivatives; ``coverage`` (0 to 1) if the grid has gaps; and ``edge_error_10km`` for each height, the expected
        rms error, if a side has less than 2 degrees of data beyond it. Attribute ``known_outside_deg_wsen``: width of
        the data around the region on each side.

    Raises
    ------
    OptionError
        A height is not positive; derivatives with the global method; nothing is left after trimming.
    InputError
        The grid does not cover the region, is NaN throughout it, or is too close to a pole; a global method on a grid
        that is not global.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import residual_fields
    >>> from gravmap.regions import Region
    >>> lat, lon = np.arange(38, 52.1, 0.25), np.arange(74, 91.1, 0.25)
    >>> bumps = 30 * np.cos(2 * lat)[:, None] * np.sin(2 * lon)
    >>> grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> fields = residual_fields(grid, [10e3, 40e3], Region(80, 43, 85, 47), with_bands=True)
    >>> list(fields)[:6]
    ['bouguer', 'regional_10km', 'residual_10km', 'regional_40km', 'residual_40km', 'band_10km_40km']
    >>> parts = fields["residual_10km"] + fields["band_10km_40km"] + fields["regional_40km"]
    >>> bool(np.allclose(parts, fields["bouguer"], atol=1e-4))
    True
    """
    _check_method(method, with_derivatives)
    check_heights(heights_m)
    heights = sorted(set(map(float, heights_m)))
    if method == "regional":
        return regional_fields(
            grid,
            heights,
            region,
            margin_deg=margin_deg,
            long_wavelength=long_wavelength,
            with_bands=with_bands,
            with_derivatives=with_derivatives,
            trim=trim,
            sources=sources,
            progress=progress,
        )
    return global_fields(grid, heights, region, with_bands=with_bands, sources=sources, progress=progress)


def check_request(
    grid: xr.DataArray,
    heights_m: Sequence[float],
    region: Region | None,
    *,
    method: str,
    with_derivatives: bool = False,
    trim: Trim | None = None,
    globe: bool = False,
) -> xr.DataArray:
    """Make the checks of :func:`residual_fields` without its computation; parameters and errors as there.

    Parameters
    ----------
    globe : bool
        Long wavelengths are restored from a global grid.

    Returns
    -------
    DataArray
        The grid at the nodes that the fields will have.
    """
    _check_method(method, with_derivatives)
    check_heights(heights_m)
    if method == "regional":
        return _cut_region(grid, sorted(heights_m), region, MARGIN_DEG, trim, globe)[1]
    inner = grid if region is None else crop(grid, region)
    _check_region(inner, region)
    return inner


def _check_method(method: str, with_derivatives: bool) -> None:
    if method != "regional" and with_derivatives:
        raise OptionError(
            "Derivatives are computed by the regional method only.",
            "Choose a region between 80S and 80N, or leave --derivatives out.",
        )


def _cut_region(
    grid: xr.DataArray,
    heights_m: Sequence[float],
    region: Region | None,
    margin_deg: float,
    trim: Trim | None,
    restored: bool,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Cut out the region with a margin, and the region, trimmed; refuse one without data."""
    data = (grid if region is None else crop(grid, region, read_margin_deg(region, margin_deg))).load()
    inner = crop(data, region) if region is not None else data
    if trim is not None:
        inner = trim_edges(data, inner, trim, heights_m[-1], globe=restored)
    _check_region(inner, region)
    return data, inner


def regional_fields(
    grid: xr.DataArray,
    heights_m: list[float],
    region: Region | None,
    *,
    margin_deg: float,
    long_wavelength: LongWavelengthField | None,
    with_bands: bool,
    with_derivatives: bool,
    trim: Trim | None,
    sources: Sequence[dict[str, Any]],
    progress: Progress,
) -> xr.Dataset:
    """Regional and residual with the latitude-variable operator on a region and the data around it.

    Parameters and result are those of :func:`residual_fields`; `heights_m` is sorted and has no duplicates.
    """
    restored = long_wavelength is not None
    data, inner = _cut_region(grid, heights_m, region, margin_deg, trim, restored)
    level_m = _level_m(grid)
    lat, lon = data["lat"].values, data["lon"].values
    inner_lat, inner_lon = inner["lat"].values, inner["lon"].values
    inside: dict[str, Any] = {"out_rows": _index_slice(lat, inner_lat), "out_cols": _index_slice(lon, inner_lon)}

    values = data.values if long_wavelength is None else data.values - long_wavelength.field(lat, lon, level_m)
    field, _, offset = prepare_for_transform(values)
    padding = RESTORED if restored else {}
    patch = Patch(field, lat, lon, height_m=level_m, periodic_lon=_is_periodic(lon), **inside, **padding)
    regional: dict[float, Values] = {}
    for done, height in enumerate(heights_m):
        progress(done, len(heights_m), format_length(height))
        regional[height] = patch.upward(height) + np.float32(offset)
        if long_wavelength is not None:
            regional[height] += long_wavelength.field(inner_lat, inner_lon, level_m + height)
    progress(len(heights_m), len(heights_m))

    fields = _separate(grid, inner, regional, with_bands=with_bands)
    missing = np.isnan(fields["bouguer"].values)
    if with_derivatives:
        whole = patch
        if restored:
            # The long wavelengths have no derivative here, and hardly any at all: the whole field is differentiated.
            whole = Patch(prepare_for_transform(data.values)[0], lat, lon, height_m=level_m, **inside)
        fields |= _derivative_arrays(whole, inner, missing, level_m)
    channels = list(fields)
    if missing.any():
        known = Patch(_known_mask(data), lat, lon, height_m=level_m, **inside).upward(heights_m[-1])
        fields["coverage"] = _coverage_array(known, inner, heights_m[-1], level_m)

    margins_deg = known_margins_deg(data, inner)
    if min(margins_deg) < DOUBTFUL_DEG:
        for height in heights_m:
            name = format_length(height)
            rms = float(np.sqrt(np.nanmean(np.square(fields[f"residual_{name}"].values, dtype=np.float64))))
            fields[f"edge_error_{name}"] = _data_array(
                inner,
                edge_error(inner_lat, inner_lon, margins_deg, height, rms, globe=restored),
                f"rms error to expect of regional and residual {name}: too little is known beyond the edges",
                level_m,
            )
    attrs = _attributes(inner, channels, heights_m, level_m, "regional", margins_deg, sources)
    if long_wavelength is not None:
        attrs["low_degrees_removed_and_restored"] = long_wavelength.degree
    std = float(np.nanstd(fields[f"residual_{format_length(heights_m[0])}"]))
    note = edge_note(margins_deg, heights_m[0], std, globe=restored)
    if note:
        attrs["edge_note"] = note
    return xr.Dataset(fields, attrs=attrs)


def global_fields(
    grid: xr.DataArray,
    heights_m: list[float],
    region: Region | None,
    *,
    with_bands: bool,
    sources: Sequence[dict[str, Any]],
    progress: Progress,
) -> xr.Dataset:
    """Regional and residual of a global grid, and of it the nodes in a region.

    Parameters and result are those of :func:`residual_fields`; `heights_m` is sorted and has no duplicates.

    Raises
    ------
    InputError
        The grid is not global, or NaN throughout the region.
    """
    if not is_global(grid):
        raise InputError(
            f"The global method needs a grid of the whole Earth; this one covers {extent(grid)}.",
            "Use --method regional, and --globe GRID if you have a coarse global grid.",
        )
    data = grid.load()
    inner = crop(data, region) if region is not None else data
    _check_region(inner, region)
    level_m = _level_m(grid)
    filled = fill_gaps(data.values) if np.isnan(data.values).any() else data.values
    regional = _continue_globe(filled, data, inner, heights_m, level_m, progress)
    fields = _separate(grid, inner, dict(zip(heights_m, regional, strict=True)), with_bands=with_bands)
    channels = list(fields)
    if np.isnan(fields["bouguer"].values).any():
        (known,) = _continue_globe(_known_mask(data), data, inner, heights_m[-1:], level_m, silent)
        fields["coverage"] = _coverage_array(known, inner, heights_m[-1], level_m)
    attrs = _attributes(inner, channels, heights_m, level_m, "global", [360.0] * 4, sources)
    return xr.Dataset(fields, attrs=attrs)


def read_margin_deg(region: Region, margin_deg: float = MARGIN_DEG) -> float:
    """Width of the data to read around a region, degrees: less for a region that spans nearly all longitudes."""
    return min(margin_deg, max(0.0, (359 - region.width_deg) / 2))


def _level_m(grid: xr.DataArray) -> float:
    return float(grid.attrs.get("height_m", 0.0))


def _check_region(inner: xr.DataArray, region: Region | None) -> None:
    if min(inner.shape) < 4:
        size = f"{inner.sizes['lat']} x {inner.sizes['lon']}"
        raise InputError(
            f"The region contains only {size} nodes of the grid.", "Choose a larger --bbox W S E N, or a finer grid."
        )
    if np.isnan(inner.values).all():
        raise InputError(f"Every node inside {region} is NaN.", "Choose another region or another grid.")


def _is_periodic(lon: Values) -> bool:
    """Whether the columns span 360 degrees with each meridian once."""
    step = (lon[-1] - lon[0]) / (lon.size - 1)
    return bool(abs(lon[-1] - lon[0] + step - 360) < 0.01 * step)


def _index_slice(axis: Values, part: Values) -> slice:
    """Where `part` lies in `axis`."""
    start = int(np.abs(axis - part[0]).argmin())
    return slice(start, start + part.size)


def _data_array(inner: xr.DataArray, values: Values, long_name: str, height_m: float, **attrs: Any) -> xr.DataArray:
    """Values at the nodes of `inner`, float32, mGal unless `attrs` says otherwise."""
    return xr.DataArray(
        values.astype(np.float32, copy=False),
        coords={"lat": inner["lat"], "lon": inner["lon"]},
        dims=("lat", "lon"),
        attrs={"units": "mGal", "long_name": long_name, "height_m": height_m} | attrs,
    )


def _separate(
    grid: xr.DataArray, inner: xr.DataArray, regional: Mapping[float, Values], *, with_bands: bool
) -> dict[str, xr.DataArray]:
    """Observed field, and for each height the regional and the residual; then the bands. Gaps are NaN in all."""
    level_m = _level_m(grid)
    observed = np.array(inner.values, dtype=np.float32)
    names = [grid.attrs.get(key, "") for key in ("variable", "standard_name", "file_title")]
    title = str(grid.attrs.get("long_name") or bouguer_name(" ".join(map(str, names))))
    fields = {"bouguer": _data_array(inner, observed, f"{title} (observed)", level_m)}
    for height, values in regional.items():
        values[np.isnan(observed)] = np.nan
        name, top = format_length(height), format_length(level_m + height)
        fields[f"regional_{name}"] = _data_array(
            inner, values, f"field continued upwards by {name}, to {top} above the ellipsoid", level_m + height
        )
        fields[f"residual_{name}"] = _data_array(
            inner, observed - values, f"observed minus the field {name} higher", level_m, lost_over_m=height
        )
    if with_bands:
        for lower, upper in itertools.pairwise(regional):
            below, above = format_length(lower), format_length(upper)
            band = fields[f"regional_{below}"].values - fields[f"regional_{above}"].values
            fields[f"band_{below}_{above}"] = _data_array(
                inner, band, f"the field {below} higher minus that {above} higher", level_m + lower
            )
    return fields


def _derivative_arrays(patch: Patch, inner: xr.DataArray, missing: Values, level_m: float) -> dict[str, xr.DataArray]:
    name = format_length(DERIVATIVE_HEIGHT_M)
    arrays = {}
    for key, values in patch_derivatives(patch, DERIVATIVE_HEIGHT_M).items():
        values[missing] = np.nan
        long_name, unit = DERIVATIVES[key]
        arrays[f"{key}_{name}"] = _data_array(
            inner, values, f"{long_name}, {name} higher", level_m + DERIVATIVE_HEIGHT_M, units=unit
        )
    return arrays


def _known_mask(data: xr.DataArray) -> NDArray[np.float32]:
    """1 at nodes with data, 0 in gaps."""
    return np.asarray(1.0 - np.isnan(data.values).astype(np.float32))


def _coverage_array(known: Values, inner: xr.DataArray, height_m: float, level_m: float) -> xr.DataArray:
    """Fraction of the regional that was measured: the mask of known nodes, continued upward like the field."""
    long_name = f"share of the regional {format_length(height_m)} higher that was measured"
    return _data_array(inner, np.asarray(np.clip(known, 0, 1)), long_name, level_m, units="1")


def _continue_globe(
    values: Values,
    globe: xr.DataArray,
    inner: xr.DataArray,
    heights_m: list[float],
    level_m: float,
    progress: Progress,
) -> list[Values]:
    """Values at the nodes of `globe`, continued upward, and of the result the nodes of `inner`."""
    lat, lon = globe["lat"].values, globe["lon"].values
    continued = upward_continue_globe(values, lat, lon, heights_m, level_m=level_m, progress=progress)
    rows = _index_slice(lat, inner["lat"].values)
    # The region may count its longitudes from another meridian, and lie across the seam of the global grid.
    step = (lon[-1] - lon[0]) / (lon.size - 1)
    columns = np.round((inner["lon"].values - lon[0]) / step).astype(int) % round(360 / step)
    if rows == slice(0, lat.size) and np.array_equal(columns, np.arange(lon.size)):
        return list(continued)
    return [np.asarray(field[rows][:, columns]) for field in continued]


def _attributes(
    inner: xr.DataArray,
    channels: list[str],
    heights_m: list[float],
    level_m: float,
    method: str,
    margins_deg: list[float],
    sources: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Global attributes of the Dataset.

    The recipe has what the values depend on. Region, margin and file name are not in it: they change only how
    accurate the values are near the edges.
    """
    recipe = {
        "quantity": "bouguer",
        "unit": "mGal",
        "method": method,
        "operator_version": OPERATOR_VERSION,
        "input_height_m": level_m,
        "heights_m": heights_m,
        "spacing_deg": [round(step, 9) for step in spacing_deg(inner)],
        "channels": channels,
        **{name: inner.attrs[name] for name in (RESAMPLED_FROM, STATED_HEIGHT) if name in inner.attrs},
    }
    now = datetime.datetime.now(datetime.UTC)
    return {
        "Conventions": "CF-1.8",
        "title": "Bouguer gravity, its regional and its residual",
        "history": f"{now:%Y-%m-%dT%H:%M:%SZ} gravmap {__version__}: upward continuation",
        "height_m": level_m,
        "known_outside_deg_wsen": np.array(margins_deg),
        "low_degrees_removed_and_restored": 0,
        "gravmap_recipe": json.dumps(recipe),
        "gravmap_sources": json.dumps([dict(source) for source in sources], ensure_ascii=False),
    }
