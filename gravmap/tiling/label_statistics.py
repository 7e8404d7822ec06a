"""Statistics of a label raster: small bodies, and cells of each class in every window."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.lattice import COVER, SNAP_CELLS, UNUSABLE

SMALL_KM2 = 1600.0

# Diagonal neighbours are connected: an oblique thin dyke is one body.
_EIGHT = np.ones((3, 3), dtype=bool)


def small_bodies(
    labels: NDArray[np.uint8], bounds_wsen: tuple[float, float, float, float], limit_km2: float = SMALL_KM2
) -> NDArray[np.uint8]:
    """Mark the cells of every body of bedrock below a given area.

    A body is an 8-connected component of one class in the whole native label raster, so that a body at the edge
    of a tile is measured whole.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; cover (0) and 255 are not bodies.
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


def count_classes(
    labels: NDArray[np.uint8], bounds_wsen: tuple[float, float, float, float], boxes_wsen: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Cells of every value whose centres lie in each of many boxes.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    boxes_wsen : ndarray, shape (n, 4), float64
        West, south, east, north, degrees.

    Returns
    -------
    ndarray, shape (n, 256), int64
    """
    rows, columns = labels.shape
    west, south, east, north = bounds_wsen
    top, bottom = (_first_past((north - boxes_wsen[:, side]) / (north - south), rows) for side in (3, 1))
    left, right = (_first_past((boxes_wsen[:, side] - west) / (east - west), columns) for side in (0, 2))
    row_edges = np.unique(np.concatenate([top, bottom, [0, rows]]))
    column_edges = np.unique(np.concatenate([left, right, [0, columns]]))
    counts = np.zeros((len(boxes_wsen), 256), dtype=np.int64)
    # Counts between all edges first, then sums over boxes by cumulative sums: each cell is read once per value.
    corners = [np.searchsorted(row_edges, edge) for edge in (top, bottom)]
    sides = [np.searchsorted(column_edges, edge) for edge in (left, right)]
    present = np.zeros(256, dtype=bool)
    present[labels] = True
    for value in np.flatnonzero(present):
        hits = labels == value
        strips = np.stack([np.count_nonzero(hits[a:b], axis=0) for a, b in pairwise(row_edges)])
        patches = np.add.reduceat(strips, column_edges[:-1], axis=1)
        total = np.zeros((len(row_edges), len(column_edges)), dtype=np.int64)
        total[1:, 1:] = patches.cumsum(axis=0).cumsum(axis=1)
        (t, b), (l, r) = corners, sides  # noqa: E741
        counts[:, value] = total[b, r] - total[t, r] - total[b, l] + total[t, l]
    return counts


def _first_past(position: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The first cell whose centre lies past an edge, given as a relative position; a centre on the edge is past it."""
    return np.clip(np.ceil(position * count - 0.5 - SNAP_CELLS), 0, count).astype(np.int64)
