"""Constants of grids and label rasters: special labels, roles in a split, cell look-up, and the length of a degree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COVER, UNUSABLE = 0, 255
"""Labels other than bedrock classes: cover, and cells that are not mapped or not usable."""

TRAIN, TUNE, TEST, BUFFER = 0, 1, 2, 3
"""Roles of cells and windows in a split: training, tuning, test, and buffer between them (not used)."""

SNAP_CELLS = 1e-6
"""A point this close to the west or north side of a cell is in that cell; nodes often lie where four cells meet."""

MASK_SUFFIX = "_known"
"""Of the mask of a layer: 1 at nodes where it has data, 0 elsewhere."""

EARTH_RADIUS_KM = 6371.0
"""Mean radius of the Earth, for distances between nodes on a sphere."""

KM_PER_DEGREE = np.pi / 180 * EARTH_RADIUS_KM
"""Length of a degree of latitude on that sphere, 111.195 km."""

LEAST_KM_PER_DEGREE, MOST_KM_PER_DEGREE = 110.0, 111.7
"""Bounds of a degree of latitude on the ellipsoid (110.57 km at the equator, 111.69 km at the poles), for margins."""

EQUATORIAL_RADIUS_KM = 6378.137
"""Of the WGS 84 ellipsoid."""

FLATTENING = 1 / 298.257223563
"""Of the WGS 84 ellipsoid."""


def mask_name(layer: str) -> str:
    """Name of the mask of a layer."""
    return f"{layer}{MASK_SUFFIX}"


def axis_cells(points: NDArray[np.float64], first: float, last: float, count: int) -> NDArray[np.int64]:
    """Index of the cell that contains each point, along one axis.

    Parameters
    ----------
    points : ndarray, shape (n,)
        Coordinates, degrees.
    first, last : float
        Outer edges of the first and the last cell, degrees; a north-up axis of rows has ``first > last``.
    count : int
        Number of cells.

    Returns
    -------
    ndarray, shape (n,), int64
        0 to count - 1; -1 outside. A point on the border of two cells is in the second one, a point on the outer edge
        of the last cell in that cell.

    Examples
    --------
    >>> import numpy as np
    >>> axis_cells(np.array([50.0, 49.5, 48.0, 47.9]), first=50.0, last=48.0, count=4)
    array([ 0,  1,  3, -1])
    """
    position = (points - first) / (last - first) * count
    cell = np.floor(position + SNAP_CELLS).astype(np.int64)
    cell[(cell == count) & (position <= count + SNAP_CELLS)] = count - 1
    return np.where((cell < 0) | (cell >= count), -1, cell)


def turn_longitudes(lon_deg: NDArray[np.float64], west: float, east: float) -> NDArray[np.float64]:
    """Longitudes turned by 360 degrees where they lie between two longitudes only then.

    Examples
    --------
    >>> import numpy as np
    >>> turn_longitudes(np.array([-175.0, 170.0, 20.0]), 160, 200)
    array([185., 170.,  20.])
    """
    turned = np.asarray(lon_deg, dtype=np.float64).copy()
    outside = (turned < west) | (turned > east)
    for turn in (360, -360):
        there = outside & (turned + turn >= west) & (turned + turn <= east)
        turned[there] += turn
        outside &= ~there
    return turned


def spacing_yx_km(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> tuple[float, float]:
    """Mean node spacing along latitude and, at the middle latitude, along longitude; km on the mean sphere."""
    along_lat = KM_PER_DEGREE * abs(float(lat_deg[-1] - lat_deg[0])) / (lat_deg.size - 1)
    along_lon = KM_PER_DEGREE * abs(float(lon_deg[-1] - lon_deg[0])) / (lon_deg.size - 1)
    return along_lat, along_lon * float(np.cos(np.radians(np.mean(lat_deg))))


def unit_vectors(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Unit vectors of all nodes, (ny * nx, 3)."""
    lat, lon = np.meshgrid(np.radians(lat_deg), np.radians(lon_deg), indexing="ij")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return points.reshape(-1, 3)
