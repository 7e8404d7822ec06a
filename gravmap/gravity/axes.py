"""Latitude and longitude axes: identifying them, checking that they are evenly spaced, restoring their exact step.

Axis order is (lat, lon) = (y, x) everywhere else; other orders and names are handled here.
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
# Without -dstnodata the corners that the turned grid does not cover would be 0.
_WARP = "-t_srs EPSG:4326 -r cubic -ot Float32 -dstnodata nan"
WARP = f"gdalwarp {_WARP}"
TO_WGS84 = f"Reproject it first: {WARP} IN OUT.tif"
ASSIGN_AND_WARP = f"State its coordinate system and reproject it: gdalwarp -s_srs EPSG:NUMBER {_WARP} IN OUT.tif"


def axis_kind(name: str, axis: xr.DataArray) -> str | None:
    """``lat`` or ``lon``, from the attributes of an axis or else from its name; None for another axis."""
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
    """Names of the latitude and longitude dimensions of a two-dimensional grid.

    Parameters
    ----------
    grid : xr.DataArray
        Two dimensions in any order.
    where : str
        What the grid is called in an error message.

    Raises
    ------
    InputError
        The grid is not two-dimensional or not geographic; an axis has no coordinates, cannot be identified, or is not
        evenly spaced; or the axes are swapped.
    """
    if grid.ndim != 2:
        raise InputError(f"{where} has {grid.ndim} dimensions {tuple(grid.dims)}; latitude and longitude are needed.")
    kinds: dict[str, str] = {}
    for dim in map(str, grid.dims):
        if dim not in grid.coords:
            raise InputError(
                f"{where} has no coordinates along {dim!r}.", "Write the grid with its latitudes and longitudes."
            )
        axis = grid[dim]
        kind = axis_kind(dim, axis)
        if kind is None or kind in kinds:
            raise InputError(
                f"{where} has axes {tuple(grid.dims)}; which one is latitude and which longitude is not known.",
                "Name them lat and lon, or give them the units degrees_north and degrees_east.",
            )
        kinds[kind] = dim
    lat, lon = (np.asarray(grid[kinds[kind]].values, dtype=np.float64) for kind in ("lat", "lon"))
    for name, values in ((kinds["lat"], lat), (kinds["lon"], lon)):
        check_even_spacing(values, f"{where}, axis {name!r}", stored_as_float32=grid[name].dtype == np.float32)
    # Latitudes of a global grid stored as float32 may exceed 90 by a rounding error.
    if np.abs(lat).max() > 90 + 1e-4:
        span = f"latitude axis {kinds['lat']!r} runs from {lat[0]:g} to {lat[-1]:g}"
        if np.abs(lat).max() > 360:
            raise InputError(
                f"{where}: its {span}, which is not a latitude: the grid seems projected.", ASSIGN_AND_WARP
            )
        raise InputError(
            f"{where}: its {span}, while {kinds['lon']!r} runs from {lon[0]:g} to {lon[-1]:g}: the axes are swapped.",
            "Rename them, for example: ncrename -v x,t -v y,x -v t,y",
        )
    if lon.min() < -360 or lon.max() > 720 or abs(lon[-1] - lon[0]) > 360 + 1e-4:
        raise InputError(
            f"{where}: its longitudes run from {lon[0]:g} to {lon[-1]:g}, more than 360 degrees.", ASSIGN_AND_WARP
        )
    return kinds["lat"], kinds["lon"]


def check_even_spacing(
    axis: NDArray[np.float64], where: str, *, stored_as_float32: bool = False, rounding: float = 0.0
) -> None:
    """Check that an axis is evenly spaced.

    Steps may differ by a millionth of the step, by the precision of float32 for coordinates stored as that, and by
    twice the `rounding` with which coordinates were printed.

    Raises
    ------
    InputError
        The axis has fewer than 4 nodes, non-finite values, or uneven steps; the message says where and by how much.
    """
    if axis.size < 4:
        raise InputError(f"{where} has only {axis.size} nodes.", "A grid needs at least 4 by 4.")
    if not np.isfinite(axis).all():
        raise InputError(f"{where} has values that are not finite.")
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
            "Write its coordinates with more digits, or resample it to an even step: gdalwarp, gmt surface.",
        )


def snap_coordinates(axis: ArrayLike, *, rounding: float | None = None) -> NDArray[np.float64]:
    """Restore the exact step of coordinates that were rounded to float32.

    The step of a geographic grid is usually a round number of arc-seconds, and its first node a whole or half number
    of steps from zero. If such a grid agrees with the stored values it is returned; otherwise their linear fit.

    Parameters
    ----------
    axis : array
        Degrees, evenly spaced up to rounding.
    rounding : float, optional
        Largest rounding error, degrees; by default the float32 spacing at the largest value.

    Returns
    -------
    array, float64
        Each within rounding of the input.
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
