"""Where a grid lies: its coordinate system and the units of its axes, converted to degrees from Greenwich or refused.

Every reader passes here (through `standardize_grid`), so that no format has a rule of its own. Differences between the
datums of the Earth are neglected: they are at most a few hundred metres, less than the error of gravity grids.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from gravmap.errors import InputError
from gravmap.gravity.axes import ASSIGN_AND_WARP, TO_WGS84, WARP, axis_kind, snap_coordinates
from gravmap.gravity.quantity import warn_once

if TYPE_CHECKING:
    from pyproj import CRS

CRS_ATTRIBUTE = "_crs"
"""Attribute by which a reader hands over the coordinate system of a grid, a `pyproj.CRS`; removed when it is opened."""

# Semi-major axes of the ellipsoids and spheres in use for the Earth, metres.
_EARTH_M = 6_300_000.0, 6_450_000.0
# Nodes at this step or less, in radians, make a grid whose axes have no unit doubtful: in degrees it is 7 arc-seconds.
_DOUBTFUL_STEP = 0.002
_PER_UNIT = {"radian": 180 / math.pi, "grad": 0.9, "arcmin": 1 / 60, "arcsec": 1 / 3600}
_LENGTHS = re.compile(r"(m|km|ft|us-ft|(kilo)?met(er|re)s?|feet|foot|us survey foot|miles?)\b")


def to_degrees(grid: xr.DataArray, where: str) -> xr.DataArray:
    """Convert the axes of a grid to degrees, and its longitudes to Greenwich.

    Parameters
    ----------
    grid : xr.DataArray
        As read; its axes may have the attribute ``units``, and the grid `CRS_ATTRIBUTE`.
    where : str
        What the grid is called in messages.

    Returns
    -------
    xr.DataArray
        Without `CRS_ATTRIBUTE`. Axes that are in degrees from Greenwich already are not touched.

    Raises
    ------
    InputError
        The coordinate system is projected, rotated or that of another body, or the unit of an axis is a length, is
        unknown, or has to be guessed.
    """
    crs = grid.attrs.pop(CRS_ATTRIBUTE, None)
    crs_unit, meridian_deg = ("", 0.0) if crs is None else _unit_and_meridian(crs, where)
    without_unit = []
    for dim in map(str, grid.dims):
        if dim not in grid.coords or not np.issubdtype(grid[dim].dtype, np.number):
            continue  # find_axes says so
        axis = grid[dim]
        unit = _unit_of(axis, dim, where, ASSIGN_AND_WARP if crs is None else TO_WGS84) or crs_unit
        if not unit:
            without_unit.append(dim)
        factor = _PER_UNIT.get(unit, 1.0)
        shift = meridian_deg if axis_kind(dim, axis) == "lon" else 0.0
        if factor != 1 or shift:
            values = axis.values.astype(np.float64)
            rounding = float(np.abs(values).max()) * (1e-7 if axis.dtype == np.float32 else 1e-13)
            degrees = snap_coordinates(values * factor + shift, rounding=rounding * factor + 1e-12)
            attrs = {**axis.attrs, "units": "degrees"} if axis_kind(dim, axis) is None else _named(axis_kind(dim, axis))
            grid = grid.assign_coords({dim: (dim, degrees, attrs)})
    if len(without_unit) == 2 and crs is None:
        _check_doubtful(grid, without_unit, where)
    return grid


def check_transform(transform: Any, has_gcps: bool, where: str) -> None:
    """Refuse a raster that is not georeferenced, or rotated.

    Parameters
    ----------
    transform : affine.Affine
        From pixels to coordinates.
    has_gcps : bool
        Whether the raster has ground control points instead.
    where : str
        The file.

    Raises
    ------
    InputError
        Says with which command the raster is georeferenced.
    """
    if has_gcps and transform.is_identity:
        raise InputError(
            f"{where} is placed by ground control points, not by a grid of latitudes and longitudes.",
            f"Resample it first: {WARP} {where} OUT.tif",
        )
    if transform.is_identity:
        raise InputError(
            f"{where} has no georeferencing: the positions of its pixels are not known.",
            f"Give it its corners: gdal_edit.py -a_srs EPSG:4326 -a_ullr WEST NORTH EAST SOUTH {where}",
        )
    if transform.b or transform.d:
        raise InputError(f"{where} is rotated.", f"Straighten it first: {WARP} {where} OUT.tif")


def parse_crs(definition: Any, where: str, *, cf: bool = False) -> CRS:
    """A coordinate system from WKT, or from the attributes of a CF grid mapping.

    Raises
    ------
    InputError
        It cannot be understood.
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_cf(definition) if cf else CRS.from_user_input(definition)
    except (CRSError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0][:120].rstrip(".")
        raise InputError(
            f"{where} has a coordinate system that cannot be understood: {reason}.",
            "Assign the right one, such as EPSG:4326: gdal_translate -a_srs EPSG:4326 IN OUT.tif",
        ) from None


def _unit_and_meridian(crs: CRS, where: str) -> tuple[str, float]:
    """The unit of the axes ("" for degrees is "degree"), and the prime meridian, degrees east of Greenwich."""
    while crs.is_compound or crs.is_bound:
        # The horizontal part; and the system itself where a shift to another one is attached to it.
        crs = crs.sub_crs_list[0] if crs.is_compound else crs.source_crs or crs.to_2d()
    if not crs.is_geographic:
        kind = "projected" if crs.is_projected else crs.type_name
        raise InputError(
            f"{where} is not on latitude and longitude but {kind} ({crs.name[:60]}).",
            TO_WGS84,
        )
    if crs.is_derived:
        raise InputError(
            f"{where} has latitudes and longitudes of a rotated pole ({crs.name[:60]}).",
            TO_WGS84,
        )
    radius_m = crs.ellipsoid.semi_major_metre if crs.ellipsoid is not None else 0.0
    if crs.ellipsoid is not None and not _EARTH_M[0] <= radius_m <= _EARTH_M[1]:
        raise InputError(
            f"{where} does not lie on the Earth: its ellipsoid has a semi-major axis of {radius_m / 1000:.0f} km"
            f" ({crs.name[:60]}).",
            "If it does, assign the right coordinate system: gdal_edit.py -a_srs EPSG:4326 FILE",
        )
    per_unit_deg = math.degrees(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
    unit = next((name for name, size in _PER_UNIT.items() if math.isclose(size, per_unit_deg, rel_tol=1e-9)), "degree")
    if unit == "degree" and not math.isclose(per_unit_deg, 1.0, rel_tol=1e-9):
        raise InputError(
            f"{where} has axes in {crs.axis_info[0].unit_name}.",
            TO_WGS84,
        )
    meridian = crs.prime_meridian
    shift = (
        0.0 if meridian is None else math.degrees(float(meridian.longitude) * float(meridian.unit_conversion_factor))
    )
    return unit, shift


def _unit_of(axis: xr.DataArray, dim: str, where: str, hint: str) -> str:
    """The unit of an axis: degree, a key of _PER_UNIT, or "" where it has none; `hint` is for one of length."""
    written = str(axis.attrs.get("units", "")).strip()
    unit = written.lower().replace("_", " ")
    if unit in ("", "1", "-", "none", "unknown", dim.lower(), "x", "y", "user x unit", "user y unit"):
        return ""
    if "deg" in unit or "°" in unit or unit in ("longitude", "latitude", "lon", "lat"):
        return "degree"
    for pattern, name in ((r"rad(ian)?s?", "radian"), (r"(grad(ian)?|gon)s?", "grad")):
        if re.fullmatch(pattern, unit):
            return name
    for pattern, name in ((r"(arc[ -]?)?min(ute)?s?", "arcmin"), (r"arc[ -]?sec(ond)?s?", "arcsec")):
        if re.fullmatch(pattern, unit):
            return name
    if _LENGTHS.match(unit):
        raise InputError(f"{where} is projected: its axis {dim!r} is in {written}.", hint)
    raise InputError(
        f"{where}: its axis {dim!r} has the unit {written[:40]!r}, which is not a unit of latitude or longitude.",
        "Give the axes the units degrees_north and degrees_east, if that is what they are; else reproject the grid.",
    )


def _named(kind: str | None) -> dict[str, str]:
    return {"units": "degrees_north" if kind == "lat" else "degrees_east"}


def _check_doubtful(grid: xr.DataArray, dims: list[str], where: str) -> None:
    """Warn of axes without unit and coordinate system; refuse what may as well be radians."""
    spans, steps = [], []
    for dim in dims:
        values = grid[dim].values.astype(np.float64)
        spans.append(f"{dim} from {values[0]:g} to {values[-1]:g}")
        steps.append(abs(float(values[-1] - values[0])) / max(values.size - 1, 1))
    largest = max(float(np.abs(grid[dim].values).max()) for dim in dims)
    if largest <= 2 * math.pi and max(steps) < _DOUBTFUL_STEP:
        raise InputError(
            f"{where} has no coordinate system and axes without a unit, and they may be radians: {', '.join(spans)}.",
            "Give the axes a unit: degrees_north and degrees_east, or radian.",
        )
    if largest <= 720 and {dim.lower() for dim in dims} == {"x", "y"}:
        warn_once(
            f"{where} has no coordinate system and axes without a unit; taken as degrees on WGS 84: {', '.join(spans)}."
        )
