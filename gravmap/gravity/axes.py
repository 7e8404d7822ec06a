"""Latitude and longitude axes: finding them, checking that they are even, snapping them to their exact step.

Axis order is (lat, lon) = (y, x) everywhere; this file is where other orders and names are understood.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gravmap.errors import InputError

_NAMES = {
    "lat": ("lat", "latitude", "latitudes", "nav_lat", "y"),
    "lon": ("lon", "long", "longitude", "longitudes", "nav_lon", "x"),
}
_UNITS = {
    "lat": ("degrees_north", "degree_north", "degrees_n", "degreesn"),
    "lon": ("degrees_east", "degree_east", "degrees_e", "degreese"),
}
_STANDARD = {"lat": "latitude", "lon": "longitude"}
_TO_WGS84 = "Reproject it first: gdalwarp -t_srs EPSG:4326 IN OUT"


def axis_kind(name: str, axis: xr.DataArray) -> str | None:
    """Whether an axis is ``lat`` or ``lon``, by its attributes or else by its name; None when it is neither."""
    for kind in ("lat", "lon"):
        if str(axis.attrs.get("standard_name", "")).lower() == _STANDARD[kind]:
            return kind
    for kind in ("lat", "lon"):
        if str(axis.attrs.get("units", "")).lower().replace(" ", "_") in _UNITS[kind]:
            return kind
    for kind in ("lat", "lon"):
        if name.lower() in _NAMES[kind]:
            return kind
    return None


def find_axes(grid: xr.DataArray, where: str = "The grid") -> tuple[str, str]:
    """The names of the latitude and the longitude dimension of a two-dimensional grid.

    Parameters
    ----------
    grid : xr.DataArray
        Two dimensions in any order.
    where : str
        How to call the grid in an error message.

    Raises
    ------
    InputError
        Not two dimensions, an axis without coordinates or of another kind, projected axes, swapped axes, or uneven
        spacing.
    """
    if grid.ndim != 2:
        raise InputError(f"{where} has {grid.ndim} dimensions {tuple(grid.dims)}; a grid has latitude and longitude.")
    kinds: dict[str, str] = {}
    for dim in map(str, grid.dims):
        if dim not in grid.coords:
            raise InputError(
                f"{where} has no coordinates along {dim!r}.", "Write the grid with its latitudes and longitudes."
            )
        axis = grid[dim]
        units = str(axis.attrs.get("units", "")).lower()
        if units in ("m", "metre", "meter", "metres", "meters", "km"):
            raise InputError(f"{where} is projected: its axis {dim!r} is in {units}.", _TO_WGS84)
        kind = axis_kind(dim, axis)
        if kind is None or kind in kinds:
            raise InputError(
                f"{where} has axes {tuple(grid.dims)}; which is latitude and which longitude is not said.",
                "Name them lat and lon, or give them the units degrees_north and degrees_east.",
            )
        kinds[kind] = dim
    lat, lon = (np.asarray(grid[kinds[kind]].values, dtype=np.float64) for kind in ("lat", "lon"))
    for name, values in ((kinds["lat"], lat), (kinds["lon"], lon)):
        check_even(values, f"{where}, axis {name!r}", stored_as_float32=grid[name].dtype == np.float32)
    # Float32 latitudes of a global grid may end a hair beyond the pole.
    if np.abs(lat).max() > 90 + 1e-4:
        span = f"latitude axis {kinds['lat']!r} runs from {lat[0]:g} to {lat[-1]:g}"
        if np.abs(lat).max() > 360:
            raise InputError(f"{where}: its {span}, which is no latitude: the grid seems projected.", _TO_WGS84)
        raise InputError(
            f"{where}: its {span}, while {kinds['lon']!r} runs from {lon[0]:g} to {lon[-1]:g}: the axes are swapped.",
            "Rename them, for example: ncrename -v x,t -v y,x -v t,y",
        )
    if lon.min() < -360 or lon.max() > 720 or abs(lon[-1] - lon[0]) > 360 + 1e-4:
        raise InputError(
            f"{where}: its longitudes run from {lon[0]:g} to {lon[-1]:g}, which is more than the Earth has.", _TO_WGS84
        )
    return kinds["lat"], kinds["lon"]


def check_even(
    axis: NDArray[np.float64], where: str, *, stored_as_float32: bool = False, rounding: float = 0.0
) -> None:
    """Refuse an axis whose nodes are not evenly spaced.

    Steps may differ by a millionth of the step; coordinates stored as float32 by what that type can hold,
    and any by twice the `rounding` that they were printed with.

    Raises
    ------
    InputError
        Says where the spacing breaks and by how much.
    """
    if axis.size < 4:
        raise InputError(f"{where} has only {axis.size} nodes.", "A grid needs at least 4 by 4.")
    if not np.isfinite(axis).all():
        raise InputError(f"{where} holds values that are no numbers.")
    steps = np.diff(axis)
    usual = float(np.median(steps))
    if stored_as_float32:
        rounding = max(rounding, float(np.spacing(np.float32(np.abs(axis).max()))))
    worst = int(np.abs(steps - usual).argmax())
    off = abs(float(steps[worst]) - usual)
    if usual == 0 or off > 1e-6 * abs(usual) + 2 * rounding:
        raise InputError(
            f"{where} is not evenly spaced: the step is {usual:.6g} but {steps[worst]:.6g} from {axis[worst]:.6g} to"
            f" {axis[worst + 1]:.6g} (node {worst}).",
            "Resample it to an even step, for example with gdalwarp or gmt surface.",
        )


def snapped(axis: ArrayLike, *, rounding: float | None = None) -> NDArray[np.float64]:
    """Coordinates that were rounded to float32, put back on their exact step.

    Steps of a geographic grid are round in arc-seconds, and its first node is a whole or half number of steps from
    zero. Where that fits what is stored, it is taken; otherwise the best even line through the stored values.

    Parameters
    ----------
    axis : array
        Degrees, evenly spaced up to rounding.
    rounding : float, optional
        By how much each may be off, degrees; by default what float32 does to the largest.

    Returns
    -------
    array, float64
        Each within rounding of what was given.
    """
    stored = np.asarray(axis, dtype=np.float64)
    count = np.arange(stored.size)
    if rounding is None:
        rounding = float(np.spacing(np.float32(np.abs(stored).max())))
    step = (stored[-1] - stored[0]) / (stored.size - 1)
    for per_arcsec in (1, 2, 4, 8, 60):
        exact = round(step * 3600 * per_arcsec) / (3600 * per_arcsec)
        if exact == 0 or abs(exact - step) * (stored.size - 1) > 4 * rounding:
            continue
        halves = round(2 * stored[0] / exact)
        # (halves / 2 + i) * step, with the step as a fraction: 1/30 is not a float, its multiples are rounded once.
        arcsec = round(step * 3600 * per_arcsec)
        candidate = (halves + 2 * count) * arcsec / (2 * 3600 * per_arcsec)
        if np.abs(candidate - stored).max() <= 2 * rounding:
            return np.asarray(candidate, dtype=np.float64)
    slope, start = np.polyfit(count, stored, 1)
    return np.asarray(start + slope * count, dtype=np.float64)
