"""Small bodies: which cells belong to an outcrop too small for the loss to see unless it is told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.geology.legend import COVER, UNUSABLE

SMALL_KM2 = 1600.0

# Diagonal neighbours belong together: a thin dyke that runs obliquely is one body.
_EIGHT = np.ones((3, 3), dtype=bool)


def small_bodies(
    labels: NDArray[np.uint8], bounds_wsen: tuple[float, float, float, float], limit_km2: float = SMALL_KM2
) -> NDArray[np.uint8]:
    """Mark the cells of every body of bedrock under a certain size.

    A body is an 8-connected patch of one class on the whole native label raster; measured there, a
    body that a tile's edge cuts does not look small.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; cover (0) and 255 have no bodies.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    limit_km2 : float
        Bodies below this area on the ellipsoid are small.

    Returns
    -------
    ndarray, shape (rows, columns), uint8
        1 in small bodies, else 0.
    """
    rows, columns = labels.shape
    cell_km2 = row_cell_areas_km2(bounds_wsen[1], bounds_wsen[3], rows, (bounds_wsen[2] - bounds_wsen[0]) / columns)
    small = np.zeros(labels.shape, dtype=np.uint8)
    boxes = ndimage.find_objects(np.where(labels == UNUSABLE, COVER, labels))
    for index, box in enumerate(boxes, start=1):
        if box is None:
            continue
        inside = labels[box] == index
        numbers, count = ndimage.label(inside, structure=_EIGHT)
        rows_inside = np.repeat(np.arange(*box[0].indices(rows)), np.count_nonzero(inside, axis=1))
        area = np.bincount(numbers[inside], weights=cell_km2[rows_inside], minlength=count + 1)
        is_small = area < limit_km2
        is_small[0] = False
        small[box] |= is_small[numbers]
    return small
