"""Edge effects of upward continuation: expected error by distance from the edge of the data, and trimming.

Figures: docs/performance.md; the picture: docs/method/gravity.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gravmap.errors import OptionError
from gravmap.gravity.grid import extent
from gravmap.lattice import KM_PER_DEGREE

_SIDES = ("west", "south", "east", "north")


@dataclass(frozen=True)
class Trim:
    """How much of the rim to remove; exactly one of the two is given.

    Attributes
    ----------
    width_deg : float, optional
        Keep nodes at least this far from the edge of the data, degrees.
    max_relative_error : float, optional
        Keep nodes whose expected error is at most this fraction of the residual's rms, 0.05 for 5 %.
    """

    width_deg: float | None = None
    max_relative_error: float | None = None


def relative_edge_error(distance_km: ArrayLike, height_m: float, *, globe: bool = False) -> NDArray[np.float64]:
    r"""Expected rms error at a distance from an edge with no data beyond it, as a fraction of the residual's rms.

    .. math:: \frac{0.28}{1 + d / (5 + 1.4 h)}, \qquad d, h \text{ in km}

    fitted to half of the truths of benchmarks/edges.py, of nine kinds, at 5, 10, 20 and 40 km. On the other half the
    errors are 1.2 times as large in the median; one in ten is below 0.35 of it, one in ten above five times, in
    fields whose long wavelengths are by far the strongest. With long wavelengths from a global grid the error decays
    faster: divided by :math:`1 + d / 130`.

    Parameters
    ----------
    distance_km : array
        Distance from the edge of the data, km; not negative.
    height_m : float
        Continuation height, metres.
    globe : bool
        Whether the long wavelengths were taken from a global grid.
    """
    distance, height_km = np.asarray(distance_km, dtype=np.float64), height_m / 1e3
    error = 0.28 / (1 + distance / (5 + 1.4 * height_km))
    return np.asarray(error / (1 + distance / 130) if globe else error)


def edge_error(
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    known_outside_deg_wsen: Sequence[float],
    height_m: float,
    residual_mgal: float,
    *,
    globe: bool = False,
) -> NDArray[np.float32]:
    """Expected rms error at each node; the errors from the four sides are independent and add as squares.

    Parameters
    ----------
    lat_deg, lon_deg : array
        Nodes, ascending.
    known_outside_deg_wsen : four floats
        Width of the data beyond the outermost nodes on each side, degrees.
    height_m : float
        Continuation height, metres.
    residual_mgal : float
        rms of the residual, mGal.
    globe : bool
        As in :func:`relative_edge_error`.

    Returns
    -------
    array, shape (nlat, nlon), float32, mGal
    """
    total = np.zeros((np.size(lat_deg), np.size(lon_deg)))
    for distance in _distances_km(lat_deg, lon_deg, known_outside_deg_wsen):
        total += relative_edge_error(distance, height_m, globe=globe) ** 2
    return np.asarray(residual_mgal * np.sqrt(total), dtype=np.float32)


def trim_edges(data: xr.DataArray, inner: xr.DataArray, trim: Trim, height_m: float, *, globe: bool) -> xr.DataArray:
    """The part of `inner` that is far enough from the edge of `data`.

    Raises
    ------
    OptionError
        Nothing is left.
    """
    lat, lon = inner["lat"].values, inner["lon"].values
    margins = known_margins_deg(data, inner)
    if trim.width_deg is not None:
        rows, columns = (
            (axis - axis[0] + margins[first] >= trim.width_deg - 1e-9)
            & (axis[-1] - axis + margins[last] >= trim.width_deg - 1e-9)
            for axis, first, last in ((lat, 1, 3), (lon, 0, 2))
        )
    else:
        error = edge_error(lat, lon, margins, height_m, 1.0, globe=globe)
        rows, columns = np.ones(lat.size, dtype=bool), np.ones(lon.size, dtype=bool)
        # A corner has the error of both its sides; the same number of kilometres is removed from every side.
        for kilometres in np.arange(0, 3000, 2.0):
            west, south, east, north = _distances_km(lat, lon, margins)
            rows = (np.minimum(south, north) >= kilometres).ravel()
            columns = (np.minimum(west, east) >= kilometres).all(axis=0)
            left = error[np.ix_(rows, columns)]
            if left.size == 0 or left.max() <= (trim.max_relative_error or 0.0):
                break
    if rows.sum() < 4 or columns.sum() < 4:
        percent = 100 * (trim.max_relative_error or 0)
        limit = f"{percent:g} %" if trim.width_deg is None else f"{trim.width_deg:g} degrees"
        raise OptionError(
            f"Trimming to {limit} leaves nothing of the region.",
            "Trim less, or give a grid that is larger than the region, or --globe.",
        )
    return inner[rows, columns]


def known_margins_deg(data: xr.DataArray, inner: xr.DataArray) -> list[float]:
    """Width of `data` beyond `inner` on the west, south, east and north, degrees."""
    outer, own = extent(data), extent(inner)
    sides = (own.west - outer.west, own.south - outer.south, outer.east - own.east, outer.north - own.north)
    return [round(side, 6) for side in sides]


def edge_note(
    known_outside_deg_wsen: Sequence[float], height_m: float, residual_mgal: float, *, globe: bool = False
) -> str | None:
    """Warning about the rim, stored with the fields; None if all sides have data beyond them.

    Parameters
    ----------
    known_outside_deg_wsen : four floats
        Width of the data around the region on each side, degrees.
    height_m : float
        Continuation height, metres.
    residual_mgal : float
        rms of the residual, mGal.
    globe : bool
        As in :func:`relative_edge_error`.
    """
    unknown = [side for side, known in zip(_SIDES, known_outside_deg_wsen, strict=True) if known < 0.5]
    if not unknown:
        return None
    # On the outermost node, one degree and two degrees inside.
    distances_km = KM_PER_DEGREE * np.array([0.0, 1.0, 2.0])
    rim, one, two = residual_mgal * relative_edge_error(distances_km, height_m, globe=globe)
    return (
        f"Nothing is known beyond the {', '.join(unknown)} edge: expect errors of about {rim:.2g} mGal on the rim,"
        f" {one:.2g} mGal one degree in, {two:.2g} mGal two degrees in."
    )


def _distances_km(lat_deg: ArrayLike, lon_deg: ArrayLike, margins_deg: Sequence[float]) -> list[NDArray[Any]]:
    """Distance to the edge of the data on the west, south, east and north, km; the arrays broadcast to the grid."""
    lat, lon = np.asarray(lat_deg, dtype=np.float64)[:, None], np.asarray(lon_deg, dtype=np.float64)[None, :]
    east_km = KM_PER_DEGREE * np.cos(np.radians(lat))
    return [
        (lon - lon[0, 0] + margins_deg[0]) * east_km,
        (lat - lat[0, 0] + margins_deg[1]) * KM_PER_DEGREE,
        (lon[0, -1] - lon + margins_deg[2]) * east_km,
        (lat[-1, 0] - lat + margins_deg[3]) * KM_PER_DEGREE,
    ]
