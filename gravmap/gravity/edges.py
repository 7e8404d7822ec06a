"""What a result is worth near the end of the data: the expected error by distance, and leaving the rim out.

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
    """How much of the rim to leave out; one of the two.

    Attributes
    ----------
    width_deg : float, optional
        Keep what is at least this far from the end of the data, degrees.
    share : float, optional
        Keep what has an expected error below this share of the residual's rms, 0.05 for 5 %.
    """

    width_deg: float | None = None
    share: float | None = None


def edge_share(distance_km: ArrayLike, height_m: float, *, globe: bool = False) -> NDArray[np.float64]:
    r"""The rms error to expect at a distance from a side beyond which nothing is known, as share of the residual's rms.

    .. math:: \frac{0.26 - 0.0015 h}{1 + d / (15 + 0.75 h)}, \qquad d, h \text{ in km}

    fits what was measured on three fields of point masses at 2, 5, 10, 20 and 40 km to a quarter of itself up to 300 km
    from the edge, and is up to 40 % too large beyond. Fields with stronger long waves have two to four times as much.
    Where a globe told the long waves, the error ends sooner:
    divided by :math:`1 + d / 130`.

    Parameters
    ----------
    distance_km : array
        From the end of the data, km; not negative.
    height_m : float
        How far up was continued, metres.
    globe : bool
        The long waves were taken from a globe.
    """
    distance, height_km = np.asarray(distance_km, dtype=np.float64), min(height_m / 1e3, 80.0)
    share = (0.26 - 0.0015 * height_km) / (1 + distance / (15 + 0.75 * height_km))
    return np.asarray(share / (1 + distance / 130) if globe else share)


def edge_error(
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    known_outside_deg_wsen: Sequence[float],
    height_m: float,
    residual_mgal: float,
    *,
    globe: bool = False,
) -> NDArray[np.float32]:
    """The rms error to expect at every node; what comes from the four sides is independent.

    Parameters
    ----------
    lat_deg, lon_deg : array
        Nodes, ascending.
    known_outside_deg_wsen : four floats
        How much of the field was known beyond the outermost nodes on each side, degrees.
    height_m : float
        How far up was continued, metres.
    residual_mgal : float
        rms of the residual, mGal.
    globe : bool
        As in :func:`edge_share`.

    Returns
    -------
    array, shape (nlat, nlon), float32, mGal
    """
    west, south, east, north = _distances_km(lat_deg, lon_deg, known_outside_deg_wsen)
    total = np.zeros((np.size(lat_deg), np.size(lon_deg)))
    for distance in (west, south, east, north):
        total += edge_share(distance, height_m, globe=globe) ** 2
    return np.asarray(residual_mgal * np.sqrt(total), dtype=np.float32)


def trimmed(work: xr.DataArray, inner: xr.DataArray, trim: Trim, height_m: float, *, globe: bool) -> xr.DataArray:
    """The part of `inner` that is far enough from the end of `work`.

    Raises
    ------
    OptionError
        Nothing would be left.
    """
    lat, lon = inner["lat"].values, inner["lon"].values
    known = known_outside(work, inner)
    if trim.width_deg is not None:
        rows, columns = (
            (axis - axis[0] + known[first] >= trim.width_deg - 1e-9)
            & (axis[-1] - axis + known[last] >= trim.width_deg - 1e-9)
            for axis, first, last in ((lat, 1, 3), (lon, 0, 2))
        )
    else:
        share = edge_error(lat, lon, known, height_m, 1.0, globe=globe)
        rows, columns = np.ones(lat.size, dtype=bool), np.ones(lon.size, dtype=bool)
        # A corner counts with both its sides; the same number of kilometres goes from every side.
        for kilometres in np.arange(0, 3000, 2.0):
            west, south, east, north = _distances_km(lat, lon, known)
            rows = (np.minimum(south, north) >= kilometres).ravel()
            columns = (np.minimum(west, east) >= kilometres).all(axis=0)
            left = share[np.ix_(rows, columns)]
            if left.size == 0 or left.max() <= (trim.share or 0.0):
                break
    if rows.sum() < 4 or columns.sum() < 4:
        asked = f"{trim.width_deg:g} degrees" if trim.width_deg is not None else f"{100 * (trim.share or 0):g} %"
        raise OptionError(
            f"Trimming to {asked} leaves nothing of the region.",
            "Trim less, or give a grid that is wider than the region, or --globe.",
        )
    return inner[rows, columns]


def known_outside(work: xr.DataArray, inner: xr.DataArray) -> list[float]:
    """How much of the field beyond the region was there, degrees, on the west, south, east and north."""
    outer, own = extent(work), extent(inner)
    sides = (own.west - outer.west, own.south - outer.south, outer.east - own.east, outer.north - own.north)
    return [round(side, 6) for side in sides]


def edge_note(
    known_outside_deg_wsen: Sequence[float], height_m: float, residual_mgal: float, *, globe: bool = False
) -> str | None:
    """What the rim is worth where nothing outside was known; None when something was, on all sides.

    Parameters
    ----------
    known_outside_deg_wsen : four floats
        How much of the field around the region was known on each side, degrees.
    height_m : float
        How far up was continued, metres.
    residual_mgal : float
        rms of the residual, mGal.
    globe : bool
        As in :func:`edge_share`.
    """
    blind = [side for side, known in zip(_SIDES, known_outside_deg_wsen, strict=True) if known < 0.5]
    if not blind:
        return None
    # Distances of a first node, of one degree and of two.
    rim, one, two = residual_mgal * edge_share(KM_PER_DEGREE * np.array([0.0, 1.0, 2.0]), height_m, globe=globe)
    return (
        f"Nothing is known beyond the {', '.join(blind)} edge: expect errors of about {rim:.2g} mGal on the rim,"
        f" {one:.2g} mGal one degree in, {two:.2g} mGal two degrees in."
    )


def _distances_km(lat_deg: ArrayLike, lon_deg: ArrayLike, known: Sequence[float]) -> list[NDArray[Any]]:
    """Kilometres to the end of the data on the west, south, east and north; arrays that broadcast to the grid."""
    lat, lon = np.asarray(lat_deg, dtype=np.float64)[:, None], np.asarray(lon_deg, dtype=np.float64)[None, :]
    east_km = KM_PER_DEGREE * np.cos(np.radians(lat))
    return [
        (lon - lon[0, 0] + known[0]) * east_km,
        (lat - lat[0, 0] + known[1]) * KM_PER_DEGREE,
        (lon[0, -1] - lon + known[2]) * east_km,
        (lat[-1, 0] - lat + known[3]) * KM_PER_DEGREE,
    ]
