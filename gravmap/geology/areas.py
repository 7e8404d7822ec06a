"""Areas of raster cells on the WGS 84 ellipsoid: a cell at 55° N is a third smaller than one at 40° N."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EQUATORIAL_RADIUS_KM = 6378.137
FLATTENING = 1 / 298.257223563


def _zone_km2_per_radian(lat_deg: ArrayLike) -> NDArray[np.float64]:
    """Area between the equator and a parallel, per radian of longitude, km²."""
    e = np.sqrt(FLATTENING * (2 - FLATTENING))
    polar_radius_km = EQUATORIAL_RADIUS_KM * (1 - FLATTENING)
    sine = np.sin(np.radians(np.asarray(lat_deg, dtype=np.float64)))
    return np.asarray(polar_radius_km**2 / 2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e))


def row_cell_areas_km2(south: float, north: float, rows: int, width_deg: float) -> NDArray[np.float64]:
    """Area of one cell in each row of a north-up raster, exact on the ellipsoid.

    Between two parallels φ₁, φ₂ and over Δλ radians, with b the polar radius and e the eccentricity,
    A = Δλ b²/2 · [ sin φ / (1 − e² sin² φ) + artanh(e sin φ) / e ] from φ₁ to φ₂.

    Parameters
    ----------
    south, north : float
        Outer edges of the raster, degrees of geodetic latitude.
    rows : int
        Number of rows.
    width_deg : float
        Width of a cell, degrees of longitude.

    Returns
    -------
    ndarray, shape (rows,), float64
        km², row 0 northernmost.

    References
    ----------
    Snyder 1987, Map projections: a working manual, USGS Professional Paper 1395, eq. 3-12.
    """
    zones = _zone_km2_per_radian(np.linspace(north, south, rows + 1))
    return np.asarray(np.radians(width_deg) * (zones[:-1] - zones[1:]))
