"""Derivatives of gravity and the edge detectors made of them: horizontal gradient, tilt angle, analytic signal.

A derivative amplifies short wavelengths, noise included, so all are taken of the field continued upward a little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gravmap.gravity.continuation import orient, prepare_for_transform
from gravmap.gravity.patch import Patch, TransferFunction, UpwardContinuation

# Height at which derivatives are taken, metres: about half the node spacing of a 2 arc-minute grid.
DERIVATIVE_HEIGHT_M = 2000.0

# long name and unit of each
DERIVATIVES = {
    "vertical_derivative": ("downward derivative of gravity, positive over dense bodies", "mGal/km"),
    "east_derivative": ("derivative towards the east", "mGal/km"),
    "north_derivative": ("derivative towards the north", "mGal/km"),
    "horizontal_gradient": ("total horizontal derivative", "mGal/km"),
    "tilt": ("tilt: angle of the vertical derivative to the horizontal gradient", "radian"),
    "analytic_signal": ("amplitude of the analytic signal", "mGal/km"),
}


def upward_derivative_filter(height_m: float) -> TransferFunction:
    r"""Transfer function of d/dr of the field `height_m` above the data, per metre.

    Degree n of radial gravity decays as :math:`(R/r)^{n+2}`, so d/dr multiplies it by
    :math:`-(n+2)/r = -(q + 3/2)/(R + h)`. The vertical derivative of geophysical maps has the opposite sign.
    """
    upward = UpwardContinuation(height_m)

    def transfer_function(q: NDArray[Any], radius_m: Any) -> NDArray[Any]:
        return np.asarray(-(q + 1.5) / (radius_m + height_m) * upward(q, radius_m))

    return transfer_function


def field_derivatives(grid: xr.DataArray, height_m: float = DERIVATIVE_HEIGHT_M) -> xr.Dataset:
    """Derivatives of a gravity grid, continued upward by `height_m`.

    With ``g_z`` the downward derivative and ``g_h`` the magnitude of the horizontal gradient, the tilt is
    ``arctan(g_z / g_h)`` and the analytic signal ``sqrt(g_h**2 + g_z**2)``.

    Parameters
    ----------
    grid : xr.DataArray, dimensions latitude and longitude in degrees, mGal
        Between 80S and 80N. Attribute ``height_m`` (0 when absent) is the level of the data.
    height_m : float
        Height above the level of the data, metres; not negative.

    Returns
    -------
    xr.Dataset, float32
        The variables of :data:`DERIVATIVES`; mGal/km, the tilt in radians from -π/2 to π/2. NaN where `grid` is.

    Raises
    ------
    InputError
        The grid is not evenly spaced, is NaN throughout, or is too close to a pole.

    References
    ----------
    Miller and Singh (1994), J. Applied Geophysics 32, 213-217 (tilt). Roest, Verhoef and Pilkington (1992), Geophysics
    57, 116-125 (analytic signal).

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from gravmap.gravity import field_derivatives
    >>> lat, lon = np.arange(44, 48.01, 0.1), np.arange(80, 84.01, 0.1)
    >>> dense_body = 50 * np.exp(-((lat[:, None] - 46) ** 2 + (lon - 82) ** 2) / 0.1)
    >>> grid = xr.DataArray(dense_body, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"))
    >>> derivatives = field_derivatives(grid)
    >>> centre = derivatives.sel(lat=46, lon=82, method="nearest")
    >>> bool(centre["vertical_derivative"] > 0), bool(centre["tilt"] > 1.5)
    (True, True)
    """
    values, lat, lon, restore = orient(grid)
    field, missing, _ = prepare_for_transform(values)
    level_m = float(grid.attrs.get("height_m", 0.0))
    arrays = {}
    for key, derivative in patch_derivatives(Patch(field, lat, lon, height_m=level_m), height_m).items():
        derivative[missing] = np.nan
        long_name, unit = DERIVATIVES[key]
        arrays[key] = restore(derivative)
        arrays[key].attrs = {"units": unit, "long_name": long_name, "height_m": level_m + height_m}
    return xr.Dataset(arrays)


def patch_derivatives(patch: Patch, height_m: float = DERIVATIVE_HEIGHT_M) -> dict[str, NDArray[np.float32]]:
    """Derivatives as in :func:`field_derivatives`, of a field that is already in the wavenumber domain.

    Parameters
    ----------
    patch : Patch
        The field, mGal.
    height_m : float
        Height above its level, metres; not negative.

    Returns
    -------
    dict of arrays
        With the keys of :data:`DERIVATIVES`; mGal/km and radians.
    """
    upward = UpwardContinuation(height_m)
    down = -1e3 * patch.apply(upward_derivative_filter(height_m))
    # Per metre at the level of the data; a degree is longer higher up, by a ten-thousandth per 600 m.
    shrink = np.float32(1e3 / (1 + height_m / 6.371e6))
    east, north = shrink * patch.apply(upward, along="east"), shrink * patch.apply(upward, along="north")
    gradient = np.hypot(east, north)
    return {
        "vertical_derivative": down,
        "east_derivative": east,
        "north_derivative": north,
        "horizontal_gradient": gradient,
        "tilt": np.arctan2(down, gradient),
        "analytic_signal": np.hypot(gradient, down),
    }
