"""A cut through a crust along a straight line: rocks, densities and gravity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from gravmap.synthetic.bedrock import ACID, MESOZOIC, PERMIAN
from gravmap.synthetic.crust import Crust
from gravmap.synthetic.geometry import EARTH_RADIUS_KM, FloatArray
from gravmap.synthetic.stack import UNITS

DEEPEST_KM = 14.0  # no belt unit reaches deeper than 11 km
BASEMENT = 11
"""Stands for the basement where classes are 0 cover, 1..10 bedrock."""


@dataclass(frozen=True, eq=False)
class Section:
    """A vertical cut.

    Attributes
    ----------
    lon, lat : ndarray, shape (n,)
        Places along the line, evenly spaced, from its western end (a line due north: southern).
    distance_km : ndarray, shape (n,)
        From the line's start.
    depth_km : ndarray, shape (m,)
        Downwards, evenly spaced, each the middle of a row.
    rock : ndarray, shape (m, n), uint8
        0 cover, 1..10 bedrock, 11 basement.
    density : ndarray, shape (m, n)
        kg/m3.
    belt : ndarray, shape (n,), int16
        Number of the belt; where it changes is a fault.
    mapped : ndarray, shape (n,), uint8
        What the geological map shows along the line.
    position : tuple of two ndarrays, shape (n,)
        Row and column of the places, rows ascending in latitude.
    """

    lon: FloatArray
    lat: FloatArray
    distance_km: FloatArray
    depth_km: FloatArray
    rock: NDArray[np.uint8]
    density: FloatArray
    belt: NDArray[np.int16]
    mapped: NDArray[np.uint8]
    position: tuple[FloatArray, FloatArray]

    def profile(self, field: NDArray[np.float32]) -> FloatArray:
        """Values of a field (ny, nx), rows ascending in latitude, along the line: shape (n,)."""
        values: FloatArray = map_coordinates(field.astype(np.float64), self.position, order=1, mode="nearest")
        return values


def cut_section(crust: Crust, *, columns: int = 2400, rows: int = 480) -> Section:
    """Cut a crust through its middle, across the strike of its belts.

    Parameters
    ----------
    crust : Crust
        See `draw_crust`.
    columns, rows : int
        Places along the line, and depths to 14 km.
    """
    lat, lon = crust.gravity["lat"].values, crust.gravity["lon"].values
    row, column = _line(lat, lon, _across_strike(crust, lat), columns)
    nearest = np.rint(row).astype(int), np.rint(column).astype(int)
    depth = (np.arange(rows) + 0.5) * DEEPEST_KM / rows

    # Between cells depths run straight; what a rock is changes halfway.
    base = np.stack([map_coordinates(unit, (row, column), order=1, mode="nearest") for unit in crust.stack.base_km])
    thickness = np.diff(crust.stack.base_km[:, nearest[0], nearest[1]], axis=0, prepend=0)
    # A unit that the nearest column lacks is absent here, too; its share is left to the one below.
    base[:-1] = np.where(thickness[:-1] > 0, base[:-1], np.concatenate([np.zeros_like(base[:1]), base[:-2]]))
    base = np.maximum.accumulate(base, axis=0)
    unit = np.minimum((base[:, None, :] <= depth[None, :, None]).sum(axis=0), len(UNITS) - 1)
    belt = crust.stack.belt_class[nearest]
    kinds = [np.full_like(belt, kind) for kind in (0, MESOZOIC, PERMIAN, ACID)]
    rock = np.take_along_axis(np.stack([*kinds, belt, np.full_like(belt, BASEMENT)]), unit, axis=0)
    contrast = np.take_along_axis(crust.stack.contrast[:, nearest[0], nearest[1]].astype(np.float64), unit, axis=0)
    density = crust.stack.reference + np.where(
        unit == 0, contrast * np.exp(-depth[:, None] / crust.stack.cover_scale_km), contrast
    )
    places_lat, places_lon = lat[0] + row * (lat[1] - lat[0]), lon[0] + column * (lon[1] - lon[0])
    return Section(
        places_lon,
        places_lat,
        np.linspace(0, _length_km(lat, row, column, lon), columns),
        depth,
        rock.astype(np.uint8),
        density,
        crust.belt[nearest],
        crust.surface[nearest],
        (row, column),
    )


def _line(lat: FloatArray, lon: FloatArray, angle: float, count: int) -> tuple[FloatArray, FloatArray]:
    """Rows and columns along a line through the middle, at `angle` from east, from side to side."""
    ny, nx = lat.size, lon.size
    shrink = np.cos(np.radians(lat.mean()))
    # Per unit of length: steps in rows and in columns, true on the ground.
    d_row, d_column = np.sin(angle), np.cos(angle) / shrink
    reach = min(
        (ny - 1) / 2 / max(abs(d_row), 1e-9),
        (nx - 1) / 2 / max(abs(d_column), 1e-9),
    )
    along = np.linspace(-reach, reach, count) * (-1 if d_column < -1e-9 else 1)
    return (ny - 1) / 2 + along * d_row, (nx - 1) / 2 + along * d_column


def _length_km(lat: FloatArray, row: FloatArray, column: FloatArray, lon: FloatArray) -> float:
    north = np.radians(lat[1] - lat[0]) * (row[-1] - row[0])
    east = np.radians(lon[1] - lon[0]) * (column[-1] - column[0]) * np.cos(np.radians(lat.mean()))
    return float(EARTH_RADIUS_KM * np.hypot(north, east))


def _across_strike(crust: Crust, lat: FloatArray) -> float:
    """The direction, anticlockwise from east, in which the belts follow on each other most quickly."""
    slope_y, slope_x = np.gradient(gaussian_filter(crust.belt.astype(np.float64), 2.0))
    slope_x /= np.cos(np.radians(lat))[:, None]
    return float(0.5 * np.arctan2(2 * (slope_x * slope_y).sum(), (slope_x**2).sum() - (slope_y**2).sum()))
