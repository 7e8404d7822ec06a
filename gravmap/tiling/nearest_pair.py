"""The shortest way between two sets of raster cells, on the ellipsoid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gravmap.geology.areas import EQUATORIAL_RADIUS_KM, FLATTENING

_FIRST_TRIES = 2000


def nearest_pair_km(
    one: NDArray[np.bool_], other: NDArray[np.bool_], bounds_wsen: tuple[float, float, float, float]
) -> float | None:
    """Length of the shortest geodesic from the centre of a cell of one set to that of a cell of the other.

    Only cells at the rim of their set can be nearest. They are compared by the straight line through the
    ellipsoid, and the geodesic of the nearest pair is given.

    Parameters
    ----------
    one, other : ndarray, shape (rows, columns), bool
        North-up rasters of the same extent.
    bounds_wsen : tuple of float
        Their outer edges, degrees.

    Returns
    -------
    float or None
        km on WGS 84; 0 when the sets share a cell, None when one is empty.
    """
    if (one & other).any():
        return 0.0
    first, second = _rim(one), _rim(other)
    if not len(first) or not len(second):
        return None
    if len(first) < len(second):
        first, second = second, first
    from pyproj import Geod
    from scipy.spatial import KDTree

    there, here = _degrees(first, one.shape, bounds_wsen), _degrees(second, one.shape, bounds_wsen)
    tree = KDTree(_points_km(there))
    asked = _points_km(here)
    # A first guess bounds the search for all others, most of which are far away.
    some = np.linspace(0, len(asked) - 1, min(_FIRST_TRIES, len(asked))).astype(np.intp)
    bound = float(tree.query(asked[some])[0].min())
    away, index = tree.query(asked, distance_upper_bound=bound * (1 + 1e-9) + 1e-9)
    nearest = int(np.argmin(away))
    ends = here[nearest], there[index[nearest]]
    _, _, metres = Geod(ellps="WGS84").inv(ends[0][1], ends[0][0], ends[1][1], ends[1][0])
    return float(metres) / 1000


def _rim(cells: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rows and columns (n, 2) of the cells that have a side outside their set, or at the raster's edge."""
    inner = cells.copy()
    inner[1:] &= cells[:-1]
    inner[:-1] &= cells[1:]
    inner[:, 1:] &= cells[:, :-1]
    inner[:, :-1] &= cells[:, 1:]
    inner[[0, -1]] = False
    inner[:, [0, -1]] = False
    return np.argwhere(cells & ~inner)


def _degrees(
    cells: NDArray[np.intp], shape: tuple[int, ...], bounds_wsen: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """Latitude and longitude (n, 2) of cell centres."""
    west, south, east, north = bounds_wsen
    steps = np.array([(south - north) / shape[0], (east - west) / shape[1]])
    return np.asarray((north, west) + (cells + 0.5) * steps)


def _points_km(lat_lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the ellipsoid in space (n, 3), km."""
    lat, lon = np.radians(lat_lon).T
    e2 = FLATTENING * (2 - FLATTENING)
    radius = EQUATORIAL_RADIUS_KM / np.sqrt(1 - e2 * np.sin(lat) ** 2)
    return np.column_stack(
        [
            radius * np.cos(lat) * np.cos(lon),
            radius * np.cos(lat) * np.sin(lon),
            (1 - e2) * radius * np.sin(lat),
        ]
    )
