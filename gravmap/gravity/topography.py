"""Topography resampled to the nodes of another grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.gravity.grid import crop, extent, spacing_deg, standardize_grid
from gravmap.gravity.quantity import HEIGHTS, check_elevations
from gravmap.gravity.readers import read
from gravmap.regions import Region

Values = NDArray[np.float64]

# A grid finer than the nodes by this factor is averaged over their cells: a single value would be arbitrary.
MIN_RATIO_TO_AVERAGE = 1.5


def topography_at_nodes(path: Path | str, lat: Values, lon: Values) -> Values:
    """Heights at the nodes of an evenly spaced grid: means over each node's cell of a finer grid, else bilinear.

    Parameters
    ----------
    path : Path
        Heights in m, km or ft, in any format of :func:`gravmap.gravity.open_grid`. Of a large netCDF file only the
        part over the nodes is read.
    lat, lon : (ny,), (nx,) float64
        Nodes, degrees; evenly spaced, in either direction.

    Returns
    -------
    (ny, nx) float64
        Heights in m, in the order of `lat` and `lon`; NaN where less than half of a node's cell has data.

    Raises
    ------
    InputError
        The file is missing or damaged, not geographic, does not have heights, or does not cover the nodes.
    """
    path = Path(path)
    grid = standardize_grid(read(path, quantity=HEIGHTS), path)
    region = Region(float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
    step_lat, step_lon = spacing_deg(grid)
    cell_lat, cell_lon = (abs(float(axis[-1] - axis[0])) / (axis.size - 1) for axis in (lat, lon))
    try:
        # Half a cell of the outermost nodes, and one more node to interpolate from.
        part = crop(grid, region, max(cell_lat / 2 + step_lat, cell_lon / 2 + step_lon))
    except InputError:
        raise InputError(
            f"{path} does not cover the region, {region}: it covers {extent(grid)}.",
            "Give a grid of heights that covers all of it; NaN are allowed.",
        ) from None
    heights = part.values.astype(np.float64) * part.attrs["_factor"]  # reads them
    check_elevations(heights, f"{path.name} in {region}")
    grid_lat, grid_lon = part["lat"].values, part["lon"].values
    weights = _averaging(grid_lat, lat, cell_lat, step_lat), _averaging(grid_lon, lon, cell_lon, step_lon)
    known = np.isfinite(heights)
    weight = weights[0] @ known @ weights[1].T
    total = weights[0] @ np.where(known, heights, 0.0) @ weights[1].T
    # At least half of a node's cell must have data.
    return np.where(weight > 0.5 - 1e-9, total / np.maximum(weight, 1e-9), np.nan)


def _averaging(coordinates: Values, nodes: Values, cell: float, step: float) -> Values:
    """Weights (nodes, coordinates) that sum to one: mean over a node's cell if the grid is finer, else bilinear."""
    away = np.abs(coordinates[None, :] - nodes[:, None])
    if cell >= MIN_RATIO_TO_AVERAGE * step:
        # A value represents its own cell; its weight is the fraction of that cell inside the cell of the node.
        weights = np.clip((cell / 2 + step / 2 - away) / step, 0.0, 1.0)
    else:
        weights = np.maximum(1.0 - away / step, 0.0)
    missing = weights.sum(axis=1) < 1e-9
    return np.asarray(weights / np.where(missing, 1.0, weights.sum(axis=1))[:, None])
