"""Statistics of gravity around each node: value, gradient, and mean and standard deviation within some kilometres.

Lengths are in kilometres, so that the numbers mean the same at every latitude and on every grid; unknown nodes are
left out of a mean. Half the widest window inside its rim, a part of a grid gives the values of the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import KM_PER_DEGREE

WINDOWS_KM = (25.0, 75.0)
"""Sides of the windows: about the resolution of satellite gravity, and the width of a basin's margin."""

Values = NDArray[np.float64]


def local_statistics(fields: NDArray[np.floating], lat: Values, lon: Values) -> Values:
    """Features of every node of a grid.

    Parameters
    ----------
    fields : (F, ny, nx) float
        In any unit, of small mean (variances are differences of squares); NaN where unknown.
    lat, lon : (ny,), (nx,) float64
        Nodes, degrees; evenly spaced.

    Returns
    -------
    (6 F, ny, nx) float64
        Of each field in turn: value, size of the horizontal gradient per km, mean and standard deviation within each of
        :data:`WINDOWS_KM`. NaN in all where any field is unknown.
    """
    known = np.isfinite(fields).all(axis=0)
    shrink = np.cos(np.radians(lat))  # a degree of longitude over one of latitude
    step_y = KM_PER_DEGREE * abs(float(lat[1] - lat[0]))
    step_x = KM_PER_DEGREE * abs(float(lon[1] - lon[0])) * np.maximum(shrink, 1e-6)
    features = []
    for field in fields.astype(np.float64):
        field = np.where(known, field, 0.0)
        features += [field, np.hypot(_slope(field, known, 0) / step_y, _slope(field, known, 1) / step_x[:, None])]
        for side in WINDOWS_KM:
            half_y, half_x = np.full(1, side / 2 / step_y), side / 2 / step_x
            # Nodes count by the area they represent.
            weight, first, second = (
                _window_sum(_window_sum(part, half_x).T * shrink, half_y).T
                for part in (known.astype(np.float64), field, field**2)
            )
            weight = np.where(known, weight, 1.0)
            mean = first / weight
            features += [mean, np.sqrt(np.maximum(second / weight - mean**2, 0.0))]
    table = np.stack(features)
    table[:, ~known] = np.nan
    return table


def _slope(field: Values, known: NDArray[np.bool_], axis: int) -> Values:
    """Difference per node along an axis: between both neighbours; one-sided where one is unknown; 0 where both are."""
    rise = np.diff(field, axis=axis)
    both = np.take(known, range(1, known.shape[axis]), axis) & np.take(known, range(known.shape[axis] - 1), axis)
    rise = np.where(both, rise, 0.0)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (1, 1)
    rises, counted = np.pad(rise, pad), np.pad(both.astype(np.float64), pad)
    low, high = range(known.shape[axis]), range(1, known.shape[axis] + 1)
    total = np.take(rises, low, axis) + np.take(rises, high, axis)
    slope: Values = total / np.maximum(np.take(counted, low, axis) + np.take(counted, high, axis), 1.0)
    return slope


def _window_sum(values: Values, half: Values) -> Values:
    """Sum along the rows (ny, nx) within `half` (ny or 1) nodes of each, a node reaching half way to the next.

    A node at the window's end counts by the fraction inside, so that the length of the window does not jump from one
    row to the next.
    """
    rows, count = values.shape
    running = np.zeros((rows, count + 1))
    np.cumsum(values, axis=1, out=running[:, 1:])
    edges = np.arange(count) + 0.5
    width = np.broadcast_to(half, rows)[:, None]
    return _at(running, edges + width) - _at(running, edges - width)


def _at(running: Values, position: Values) -> Values:
    """Rows interpolated at positions (ny, nx), clamped at their ends."""
    position = np.clip(position, 0, running.shape[1] - 1)
    lower = np.minimum(position.astype(np.intp), running.shape[1] - 2)
    row = np.arange(len(running))[:, None]
    below = running[row, lower]
    value: Values = below + (running[row, lower + 1] - below) * (position - lower)
    return value
