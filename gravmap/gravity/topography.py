"""Heights of the ground at the nodes of another grid, from any grid of topography."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.gravity.grid import canonical, crop, extent, spacing_deg
from gravmap.gravity.quantity import HEIGHTS, check_heights
from gravmap.gravity.readers import read
from gravmap.regions import Region

Values = NDArray[np.float64]

FINE = 1.5
"""A grid this much finer than the nodes is averaged over their cells; one value of it would be chance."""


def topography_at_nodes(path: Path | str, lat: Values, lon: Values) -> Values:
    """Heights at the nodes of an even grid: means over a node's cell of a finer grid, else bilinear.

    Parameters
    ----------
    path : Path
        Any grid that :func:`gravmap.gravity.open_grid` could read, of heights in m, km or ft. Of a large netCDF file
        only the part over the nodes is read.
    lat, lon : (ny,), (nx,) float64
        Nodes, degrees; evenly spaced, in either direction.

    Returns
    -------
    (ny, nx) float64
        Heights in m, in the order of `lat` and `lon`; NaN where the grid knows none.

    Raises
    ------
    InputError
        Missing, damaged or no grid of degrees; no heights; or it does not cover the nodes.
    """
    path = Path(path)
    grid = canonical(read(path, quantity=HEIGHTS), path)
    area = Region(float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
    step_lat, step_lon = spacing_deg(grid)
    wide_lat, wide_lon = (abs(float(axis[-1] - axis[0])) / (axis.size - 1) for axis in (lat, lon))
    try:
        # What a cell of the outermost nodes reaches beyond them, and a node to interpolate from.
        part = crop(grid, area, max(wide_lat / 2 + step_lat, wide_lon / 2 + step_lon)).load()
    except InputError:
        raise InputError(
            f"{path} does not cover the area, {area}: it covers {extent(grid)}.",
            "Give a grid of heights over all of it; where none is known it may hold no data.",
        ) from None
    heights = part.values.astype(np.float64) * part.attrs["_factor"]
    check_heights(heights, f"{path.name} in {area}")
    own_lat, own_lon = part["lat"].values, part["lon"].values
    mine = _averaging(own_lat, lat, wide_lat, step_lat), _averaging(own_lon, lon, wide_lon, step_lon)
    known = np.isfinite(heights)
    weight = mine[0] @ known @ mine[1].T
    total = mine[0] @ np.where(known, heights, 0.0) @ mine[1].T
    # Half of what a node stands for must be known.
    return np.where(weight > 0.5 - 1e-9, total / np.maximum(weight, 1e-9), np.nan)


def _averaging(own: Values, nodes: Values, wide: float, step: float) -> Values:
    """Weights (nodes, own) that sum to one: equal over a node's cell where `own` is finer, else bilinear."""
    away = np.abs(own[None, :] - nodes[:, None])
    if wide >= FINE * step:
        # A value stands for its own cell, and counts by the share of it that lies within the node's.
        weights = np.clip((wide / 2 + step / 2 - away) / step, 0.0, 1.0)
    else:
        weights = np.maximum(1.0 - away / step, 0.0)
    missing = weights.sum(axis=1) < 1e-9
    return np.asarray(weights / np.where(missing, 1.0, weights.sum(axis=1))[:, None])
