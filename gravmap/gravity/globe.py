"""Upward continuation of a whole globe: by spherical harmonics where ducc0 is installed, else in bands and polar caps.

ducc0 (GPL-2.0-or-later) is an optional extra, ``pip install gravmap[global]``; nothing else in gravmap needs it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

# The sphere on which harmonics live, metres: the mean radius of WGS 84 (2a + b)/3.
MEAN_RADIUS_M = 6_371_008.771
# A degree that keeps less than exp(-12) of itself is gone, and so is the time it would cost.
_NOTHING_LEFT = 12.0


def has_ducc0() -> bool:
    """Whether spherical harmonic transforms of full size are at hand."""
    return importlib.util.find_spec("ducc0") is not None


def globe_layout(lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]) -> tuple[str, int]:
    """How the nodes of a globe lie.

    Parameters
    ----------
    lat_deg, lon_deg : array
        Ascending and even, degrees.

    Returns
    -------
    geometry : {"F1", "CC"}
        Pixel-registered (rows half a step from the poles; Fejér's first rule) or gridline-registered (poles included;
        Clenshaw-Curtis).
    count : int
        Columns, a repeated meridian counted once.

    Raises
    ------
    InputError
        Not a globe, or one whose rows lie otherwise.
    """
    step_lat = (lat_deg[-1] - lat_deg[0]) / (lat_deg.size - 1)
    step_lon = (lon_deg[-1] - lon_deg[0]) / (lon_deg.size - 1)
    count = round(360 / step_lon)
    if abs(count * step_lon - 360) > 0.01 * step_lon or lon_deg.size not in (count, count + 1):
        raise InputError(
            f"The grid runs from longitude {lon_deg[0]:g} to {lon_deg[-1]:g}: not once around the Earth.",
            "Use --method regional, or give a grid of the whole globe.",
        )
    gaps = np.array([lat_deg[0] + 90, 90 - lat_deg[-1]]) / step_lat
    for geometry, gap in (("CC", 0.0), ("F1", 0.5)):
        if np.abs(gaps - gap).max() < 0.01:
            return geometry, count
    raise InputError(
        f"The rows run from latitude {lat_deg[0]:g} to {lat_deg[-1]:g}: the outermost lie neither on the poles nor half"
        " a step from them.",
        "Use --method regional, or give a gridline- or pixel-registered globe.",
    )


def globe_upward(
    values: NDArray[Any],
    lat_deg: NDArray[np.float64],
    lon_deg: NDArray[np.float64],
    heights_m: Sequence[float],
    *,
    level_m: float = 0.0,
    threads: int = 0,
    progress: Progress = silent,
) -> list[NDArray[np.float32]]:
    r"""A globe as it would be measured higher up, at several heights.

    With ducc0: analysis, multiplication of degree n by :math:`((R+z)/(R+z+h))^{n+2}`, synthesis, in float32; geodetic
    latitude is taken as that of a sphere, which costs 0.2 % of the residual on the ellipsoid. Without it:
    :func:`gravmap.gravity.bands.continue_in_bands`, and the log says so.

    Parameters
    ----------
    values : array, shape (nlat, nlon)
        No NaN, mGal. A meridian may be there twice.
    lat_deg, lon_deg : array
        Nodes, ascending, pixel- or gridline-registered.
    heights_m : sequence of float
        Metres above the level of the data; positive. The analysis is done once.
    level_m : float
        Level of the data above the ellipsoid, metres.
    threads : int
        For ducc0; 0 takes every core.
    progress : callable
        Told steps done and steps in all.

    Returns
    -------
    list of arrays, shape (nlat, nlon), float32
        In the order of `heights_m`; a repeated meridian is repeated.

    Raises
    ------
    InputError
        The grid is no globe.
    """
    geometry, count = globe_layout(lat_deg, lon_deg)
    unique = np.asarray(values)[:, :count]
    if has_ducc0():
        raised = _by_harmonics(unique, geometry, lon_deg[0], heights_m, level_m, threads, progress)
    else:
        from gravmap.gravity.bands import continue_in_bands

        log.warning(
            "ducc0 is not installed: the globe is continued in bands of latitude and two polar caps, with an error of"
            " about %s of the residual. For spherical harmonics: pip install 'gravmap[global]' (ducc0 is GPL).",
            "0.3 %",
        )
        raised = continue_in_bands(unique, lat_deg, lon_deg[:count], heights_m, level_m=level_m, progress=progress)
    return [field if count == lon_deg.size else np.column_stack([field, field[:, :1]]) for field in raised]


def _by_harmonics(
    values: NDArray[Any],
    geometry: str,
    first_lon_deg: float,
    heights_m: Sequence[float],
    level_m: float,
    threads: int,
    progress: Progress,
) -> list[NDArray[np.float32]]:
    import ducc0

    rows, columns = values.shape
    degrees = rows - 1 if geometry == "F1" else rows - 2
    orders = min(degrees, (columns - 1) // 2)
    where = {"geometry": geometry, "phi0": float(np.radians(first_lon_deg)), "nthreads": threads, "spin": 0}
    # Rings run from the north pole.
    rings = np.ascontiguousarray(values[::-1], dtype=np.float32)[None]
    harmonics = ducc0.sht.analysis_2d(map=rings, lmax=degrees, mmax=orders, **where)
    progress(1, 1 + len(heights_m), "analysis of the globe")
    # Order m starts at start[m] + m; each order is a run of degrees.
    m = np.arange(orders + 1)
    start = m * (2 * degrees + 1 - m) // 2
    radius = MEAN_RADIUS_M + level_m
    raised = []
    for done, height in enumerate(heights_m):
        rate = np.log1p(height / radius)
        share = np.exp(-rate * (np.arange(degrees + 1) + 2)).astype(np.float32)
        last = min(degrees, int(np.ceil(_NOTHING_LEFT / rate)))
        kept = min(orders, last)
        higher = np.empty_like(harmonics)
        for order in range(kept + 1):
            run = slice(start[order] + order, start[order] + last + 1)
            higher[0, run] = harmonics[0, run] * share[order : last + 1]
        field = ducc0.sht.synthesis_2d(
            alm=higher,
            lmax=last,
            mmax=kept,
            mstart=start[: kept + 1].astype(np.uint64),
            ntheta=rows,
            nphi=columns,
            **where,
        )
        raised.append(np.ascontiguousarray(field[0, ::-1]))
        progress(2 + done, 1 + len(heights_m), "synthesis of the globe")
    return raised
