"""Upward continuation of a gravity grid in any orientation, and other isotropic filters.

:mod:`gravmap.gravity.patch` has the operator. The functions here bring a grid to the layout it needs and the result
back to the layout of the input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gravmap.errors import OptionError
from gravmap.gravity.axes import find_axes
from gravmap.gravity.gaps import fill_gaps
from gravmap.gravity.globe import upward_continue_globe
from gravmap.gravity.long_wavelength import is_global
from gravmap.gravity.patch import CORRELATION_M, Patch, TransferFunction

log = logging.getLogger(__name__)

# No region of the Earth has a larger mean Bouguer, free-air or isostatic anomaly, in mGal.
_LARGEST_MEAN_MGAL = 700.0


def apply_filter(
    values: ArrayLike,
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    transfer_function: TransferFunction,
    *,
    height_m: float = 0.0,
    pad_yx: tuple[int, int] | None = None,
    correlation_m: float = CORRELATION_M,
) -> NDArray[np.float32]:
    """Apply an isotropic filter to a latitude-longitude grid.

    Parameters
    ----------
    values : array, shape (nlat, nlon)
        Without NaN; latitude and longitude ascending.
    lat_deg, lon_deg : array
        Degrees, evenly spaced.
    transfer_function : callable
        ``transfer_function(q, radius_m) -> multiplier``; q / radius_m is the wavenumber in radians per metre.
    height_m : float
        Level of the data above the ellipsoid, metres.
    pad_yx, correlation_m
        As in :class:`gravmap.gravity.patch.Patch`.

    Returns
    -------
    array, shape (nlat, nlon), float32
        In the units of `values` times those of the transfer function.

    Raises
    ------
    InputError
        The grid is too close to a pole.

    Examples
    --------
    A Gaussian low-pass filter with a standard deviation of 50 km:

    >>> import numpy as np
    >>> from gravmap.gravity.continuation import apply_filter
    >>> lat, lon = np.arange(40, 50.1, 0.25), np.arange(80, 90.1, 0.25)
    >>> noise = np.random.default_rng(0).normal(0, 5, (lat.size, lon.size))
    >>> smooth = apply_filter(noise, lat, lon, lambda q, radius_m: np.exp(-0.5 * (q / radius_m * 50e3) ** 2))
    >>> bool(smooth.std() < 0.3 * noise.std())
    True
    """
    patch = Patch(values, lat_deg, lon_deg, height_m=height_m, pad_yx=pad_yx, correlation_m=correlation_m)
    return patch.apply(transfer_function)


def check_heights(heights_m: Sequence[float]) -> None:
    """Check that heights are valid for upward continuation.

    Raises
    ------
    OptionError
        No height; one that is zero, negative or not finite; or one above 1000 km.
    """
    if not heights_m:
        raise OptionError("No height given.", "Give the continuation height, such as --height 10km.")
    for height in heights_m:
        if not np.isfinite(height) or height <= 0:
            why = (
                "Downward continuation multiplies the noise at wavenumber k by exp(k h) and is not stable"
                if height < 0
                else "At height zero the regional is the field itself and the residual is zero"
            )
            raise OptionError(
                f"The height {height:g} m is not above the data. {why}.", "Give a positive height, such as 10km."
            )
        if height > 1e6:
            raise OptionError(
                f"The height {height / 1000:g} km is too large for a regional grid.", "Stay below 1000 km."
            )


def constant_offset(values: NDArray[Any]) -> float:
    """The mean of a field if it is too large for an anomaly and must be an offset; otherwise 0.

    The operator assumes that the field vanishes far away, so a large offset would leak in from the edges. A mean that
    a Bouguer anomaly can have (Tibet -500 mGal, oceans +400) is signal, and removing it makes the result worse: up to
    twofold on random harmonics (docs/performance.md).
    """
    if np.isnan(values).all():
        return 0.0
    mean, std = float(np.nanmean(values, dtype=np.float64)), float(np.nanstd(values, dtype=np.float64))
    return mean if abs(mean) > max(4 * std, _LARGEST_MEAN_MGAL) else 0.0


def upward_continue(grid: xr.DataArray, height_m: float) -> xr.DataArray:
    """Continue a gravity grid upward.

    Valid for gravity anomalies and disturbances (mGal). A grid between 80S and 80N is continued by the regional
    operator, a global grid by :func:`gravmap.gravity.globe.upward_continue_globe`. A mean beyond 700 mGal and four
    standard deviations is treated as an offset: removed before and added back after. NaN are filled before and
    restored after.

    Parameters
    ----------
    grid : xr.DataArray, two dimensions, latitude and longitude in degrees, in any order and direction
        Attribute ``height_m`` (0 when absent) is the level of the data, metres above the ellipsoid.
    height_m : float
        Continuation height above that level, metres; positive.

    Returns
    -------
    xr.DataArray, float32
        Same dims, coordinates and attributes; ``height_m`` is the new level.

    Raises
    ------
    OptionError
        The height is not positive.
    InputError
        The grid is not evenly spaced, has no latitude and longitude, is NaN throughout, or is too close to a pole.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import upward_continue
    >>> lat, lon = np.arange(40, 50.1, 0.25), np.arange(80, 90.1, 0.25)
    >>> bumps = 30 * np.cos(4 * lat)[:, None] * np.sin(4 * lon)
    >>> grid = xr.DataArray(bumps, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> regional = upward_continue(grid, 20e3)
    >>> regional.attrs["height_m"], bool(regional.std() < 0.4 * grid.std())
    (20000.0, True)
    """
    check_heights([height_m])
    values, lat, lon, restore = orient(grid)
    level_m = float(grid.attrs.get("height_m", 0.0))
    field, missing, offset = prepare_for_transform(values)
    if is_global(xr.DataArray(field, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))):
        (continued,) = upward_continue_globe(field, lat, lon, [height_m], level_m=level_m)
    else:
        continued = Patch(field, lat, lon, height_m=level_m).upward(height_m)
    continued += np.float32(offset)
    continued[missing] = np.nan
    result = restore(continued)
    result.attrs = {**grid.attrs, "height_m": level_m + height_m}
    return result


def orient(
    grid: xr.DataArray,
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64], Callable[[NDArray[Any]], xr.DataArray]]:
    """Bring a grid to (lat, lon) order with both axes ascending.

    Returns
    -------
    values : array, shape (nlat, nlon)
    lat, lon : array, float64
        Ascending, degrees.
    restore : callable
        Puts values of that layout back on the dims and coordinates of `grid`.

    Raises
    ------
    InputError
        As for :func:`gravmap.gravity.axes.find_axes`.
    """
    ordered = grid.transpose(*find_axes(grid))
    flip = tuple(
        slice(None, None, -1 if ordered[dim].values[0] > ordered[dim].values[-1] else 1) for dim in ordered.dims
    )
    lat, lon = (
        np.asarray(ordered[dim].values, dtype=np.float64)[turn] for dim, turn in zip(ordered.dims, flip, strict=True)
    )

    def restore(values: NDArray[Any]) -> xr.DataArray:
        return ordered.copy(data=values[flip]).transpose(*grid.dims)

    return np.asarray(ordered.values)[flip], lat, lon, restore


def prepare_for_transform(values: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
    """Remove an offset (:func:`constant_offset`) and fill the gaps of a field.

    Returns
    -------
    field : array, float32
        Without NaN and without offset.
    missing : array of bool
        True where `values` is NaN.
    offset : float
        The offset that was removed, to be added back after the transform.
    """
    missing = np.isnan(values)
    offset = constant_offset(values)
    if offset:
        log.warning(
            "The mean of %.1f mGal is too large for an anomaly: removed before continuation, added back after.", offset
        )
    field = (values - offset).astype(np.float32) if offset else values.astype(np.float32)
    return (fill_gaps(field) if missing.any() else field), missing, offset
