"""Upward continuation of a gravity grid, whatever its orientation; and any other isotropic operator.

The operator itself is in patch.py; here a grid is turned to what it needs, and the answer back to what was given.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gravmap.errors import OptionError
from gravmap.gravity.axes import find_axes
from gravmap.gravity.gaps import fill_gaps
from gravmap.gravity.globe import globe_upward
from gravmap.gravity.long_wavelength import is_global
from gravmap.gravity.patch import DECAY_M, PAD_YX, Patch, TransferFunction

log = logging.getLogger(__name__)

# No region of the Earth has a larger mean Bouguer, free-air or isostatic anomaly, in mGal.
_LARGEST_MEAN_MGAL = 700.0


def apply_filter(
    values: ArrayLike,
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    symbol: TransferFunction,
    *,
    height_m: float = 0.0,
    pad_yx: tuple[int, int] = PAD_YX,
    decay_m: float = DECAY_M,
) -> NDArray[np.float32]:
    """Apply any isotropic operator to a latitude/longitude grid.

    Parameters
    ----------
    values : array, shape (nlat, nlon)
        No NaN. Latitude and longitude ascend.
    lat_deg, lon_deg : array
        Degrees, evenly spaced.
    symbol : callable
        ``symbol(q, radius_m) -> multiplier``, q / radius_m being the wavenumber in radians per metre.
    height_m : float
        Level of the data above the ellipsoid, metres.
    pad_yx, decay_m
        As in :class:`Patch`.

    Returns
    -------
    array, shape (nlat, nlon), float32
        In the units of `values` times those of the symbol.

    Raises
    ------
    InputError
        The grid comes too near to a pole.
    """
    return Patch(values, lat_deg, lon_deg, height_m=height_m, pad_yx=pad_yx, decay_m=decay_m).apply(symbol)


def check_heights(heights_m: Sequence[float]) -> None:
    """Refuse heights that no upward continuation can reach.

    Raises
    ------
    OptionError
        No height, or one that is zero, negative or no number.
    """
    if not heights_m:
        raise OptionError("No height given.", "Say how far up, such as --height 10km.")
    for height in heights_m:
        if not np.isfinite(height) or height <= 0:
            why = (
                "Continuing downwards multiplies the noise of a wave by exp(k h) and has no stable answer"
                if height < 0
                else "At height zero the regional is the field itself and the residual is nothing"
            )
            raise OptionError(
                f"The height {height:g} m is not above the data. {why}.", "Give a positive height, such as 10km."
            )
        if height > 1e6:
            raise OptionError(
                f"The height {height / 1000:g} km is beyond what a patch can tell.", "Stay below 1000 km."
            )


def offset_of(values: NDArray[Any]) -> float:
    """The mean, when it is so large that it must be an offset; otherwise 0.

    The operator takes the far field as zero; a large offset would leak in from the edges. A mean that a Bouguer
    anomaly can have (Tibet -500 mGal, oceans +400) is signal, however smooth the grid: removing it makes the result
    worse, on random harmonics by up to two times (docs/performance.md).
    """
    if np.isnan(values).all():
        return 0.0
    mean, spread = float(np.nanmean(values, dtype=np.float64)), float(np.nanstd(values, dtype=np.float64))
    return mean if abs(mean) > max(4 * spread, _LARGEST_MEAN_MGAL) else 0.0


def upward_continue(grid: xr.DataArray, height_m: float, *, pad_yx: tuple[int, int] = PAD_YX) -> xr.DataArray:
    """The field as it would be measured `height_m` metres higher.

    Valid for gravity anomalies and disturbances (mGal): of a grid between 80S and 80N by the regional operator, of the
    whole globe by :func:`gravmap.gravity.globe.globe_upward`. The grid is taken as lying on the
    ellipsoid, or at `height_m` of its attributes above it. A mean beyond 700 mGal and four standard deviations is
    an offset: removed first, added back unchanged. NaN are filled before and put back after.

    Parameters
    ----------
    grid : xr.DataArray, two dimensions, one of latitude and one of longitude in degrees, either order, either direction
        Its attribute ``height_m`` (0 when absent) is the level of the data, metres above the ellipsoid.
    height_m : float
        How far up from there, metres; positive.
    pad_yx : (int, int)
        Rows and columns of padding.

    Returns
    -------
    xr.DataArray, float32
        Same dims, coordinates and attributes; ``height_m`` is the new level.

    Raises
    ------
    OptionError
        The height is not positive.
    InputError
        The grid is not evenly spaced, has no latitude and longitude, is all NaN, or comes too near to a pole.
    """
    check_heights([height_m])
    lat_dim, lon_dim = find_axes(grid)
    ordered = grid.transpose(lat_dim, lon_dim)
    flip = tuple(
        slice(None, None, -1 if ordered[dim].values[0] > ordered[dim].values[-1] else 1) for dim in ordered.dims
    )
    lat, lon = (
        np.asarray(ordered[dim].values, dtype=np.float64)[turn] for dim, turn in zip(ordered.dims, flip, strict=True)
    )
    level_m = float(grid.attrs.get("height_m", 0.0))
    values = np.asarray(ordered.values)[flip]
    field, holes, offset = prepared(values)
    place = xr.DataArray(field, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    if is_global(place):
        (raised,) = globe_upward(field, lat, lon, [height_m], level_m=level_m)
    else:
        raised = Patch(field, lat, lon, height_m=level_m, pad_yx=pad_yx).upward(height_m)
    raised += np.float32(offset)
    raised[holes] = np.nan
    result = ordered.copy(data=raised[flip]).transpose(*grid.dims)
    result.attrs = {**grid.attrs, "height_m": level_m + height_m}
    return result


def prepared(values: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
    """A field ready for a transform: offset removed, holes filled.

    Returns
    -------
    field : array, float32
        Without NaN and without offset.
    holes : array of bool
        Where there were NaN.
    offset : float
        What was removed and must be added back.
    """
    holes = np.isnan(values)
    offset = offset_of(values)
    if offset:
        log.warning(
            "The mean %.1f mGal is more than an anomaly can have: removed before continuation, added back after.",
            offset,
        )
    field = (values - offset).astype(np.float32) if offset else values.astype(np.float32)
    return (fill_gaps(field) if holes.any() else field), holes, offset
