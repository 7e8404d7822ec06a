"""Nodes and cells on the Earth: sentinels of label rasters, roles in a split, cell look-up, lengths of degrees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COVER, UNUSABLE = 0, 255
"""Labels that are no bedrock class: cover, and cells that are not mapped or not usable."""

TRAIN, TUNE, TEST, BUFFER = 0, 1, 2, 3
"""Roles of cells and windows in a split: trained on, tuned on, tested on, in none of them."""

SNAP_CELLS = 1e-6
"""A point this close to a cell's west or north side is in that cell; nodes often lie where four cells meet."""

EARTH_RADIUS_KM = 6371.0
"""Mean radius: of the sphere on which distances between nodes are taken."""

KM_PER_DEGREE = np.pi / 180 * EARTH_RADIUS_KM
"""Of latitude on that sphere, 111.195 km."""

LEAST_KM_PER_DEGREE, MOST_KM_PER_DEGREE = 110.0, 111.7
"""Bounds of a degree of latitude on the ellipsoid (110.57 km at the equator, 111.69 km at the poles), for margins."""

EQUATORIAL_RADIUS_KM = 6378.137
"""Of the WGS 84 ellipsoid."""

FLATTENING = 1 / 298.257223563
"""Of the WGS 84 ellipsoid."""


def axis_cells(points: NDArray[np.float64], first: float, last: float, count: int) -> NDArray[np.int64]:
    """Number of the cell each point lies in, along one axis.

    Parameters
    ----------
    points : ndarray, shape (n,)
        Coordinates, degrees.
    first, last : float
        Outer edges of the first and the last cell, degrees; a north-up axis of rows has ``first > last``.
    count : int
        Cells between them.

    Returns
    -------
    ndarray, shape (n,), int64
        0 to count - 1; -1 outside. A point on the side between two cells is in the later one, a point on the outer
        edge of the last cell in that.

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
