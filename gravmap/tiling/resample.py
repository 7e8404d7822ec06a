"""Resampling of native grids to the pixels of a tile: fields bilinear between nodes, labels nearest."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import SNAP_CELLS, UNUSABLE
from gravmap.regions import Region


def pixel_centres(window: Region, size_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes (from the north) and longitudes (from the west) of a tile's pixel centres, degrees."""
    steps = (np.arange(size_px) + 0.5) / size_px
    return window.north - steps * window.height_deg, window.west + steps * window.width_deg


def _between(
    at: NDArray[np.float64], first: float, last: float, count: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Index of the node before each position, and how far it is to the next one (0 to 1)."""
    # Beyond the outermost nodes lies only the outer half cell: there the field is mirrored, as in training.
    position = np.abs((at - first) / (last - first) * (count - 1))
    position = (count - 1) - np.abs((count - 1) - position)
    before = np.minimum(position.astype(np.intp), count - 2)
    return before, (position - before).astype(np.float32)


def bilinear(
    values: NDArray[np.float32], nodes_wsen: tuple[float, float, float, float], window: Region, size_px: int
) -> NDArray[np.float32]:
    """A field at a tile's pixel centres, interpolated bilinearly between its nodes.

    Parameters
    ----------
    values : ndarray, shape (rows, columns), float32
        North-up.
    nodes_wsen : tuple of float
        Position of the outermost nodes, degrees.
    window : Region
        The tile.
    size_px : int
        Pixels a side.

    Returns
    -------
    ndarray, shape (size_px, size_px), float32
        North-up; mirrored at the outermost nodes, up to a whole grid beyond them; NaN where a node in use is NaN.
    """
    rows, columns = values.shape
    west, south, east, north = nodes_wsen
    lat, lon = pixel_centres(window, size_px)
    row, down = _between(lat, north, south, rows)
    column, right = _between(lon, west, east, columns)
    # First along the few rows in use; then down, all rows of the tile between the same two nodes together.
    top, bottom = int(row.min()), int(row.max()) + 2
    strip = values[top:bottom]
    # np.take keeps rows contiguous in memory, where strip[:, column] would make columns contiguous.
    wide = np.take(strip, column, axis=1)
    wide += right * (np.take(strip, column + 1, axis=1) - wide)
    step = np.diff(wide, axis=0)
    made = np.empty((size_px, size_px), dtype=np.float32)
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1), size_px]
    for start, stop in pairwise(edges):
        node = row[start] - top
        np.multiply(down[start:stop, None], step[node], out=made[start:stop])
        made[start:stop] += wide[node]
    return made


def nearest(
    values: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    window: Region,
    size_px: int,
    outside: int = UNUSABLE,
) -> NDArray[np.uint8]:
    """A raster's value at a tile's pixel centres: that of the cell each centre lies in.

    Parameters
    ----------
    values : ndarray, shape (rows, columns), uint8
        North-up.
    bounds_wsen : tuple of float
        Its outer edges, degrees.
    window : Region
        The tile.
    size_px : int
        Pixels a side.
    outside : int
        Value beyond the raster.

    Returns
    -------
    ndarray, shape (size_px, size_px), uint8
    """
    rows, columns = values.shape
    west, south, east, north = bounds_wsen
    lat, lon = pixel_centres(window, size_px)
    row = np.floor((north - lat) / (north - south) * rows + SNAP_CELLS).astype(np.intp)
    column = np.floor((lon - west) / (east - west) * columns + SNAP_CELLS).astype(np.intp)
    used, place = np.unique(np.clip(row, 0, rows - 1), return_inverse=True)  # each row in use is resampled once
    picked: NDArray[np.uint8] = np.take(values[used], np.clip(column, 0, columns - 1), axis=1)[place]
    picked[(row < 0) | (row >= rows)] = outside
    picked[:, (column < 0) | (column >= columns)] = outside
    return picked
