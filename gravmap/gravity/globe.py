"""Upward continuation of a whole globe: spherical harmonics with ducc0, else bands of latitude and polar caps."""

from __future__ import annotations

import importlib.util
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gravmap.errors import InputError
from gravmap.gravity.long_wavelength import LongWavelengthField
from gravmap.gravity.patch import Patch, curvature_radii_m
from gravmap.progress import Progress, silent

# Where the caps begin, how high a band is, and how much more on every side it sees (degrees).
CAP_FROM_DEG = 75.0
BAND_DEG = 15.0
MARGIN_DEG = 5.0
# What is left by the low degrees is short: it needs no far reach into the padding.
PAD_YX = (80, 80)
DECAY_M = 50e3
# Rows that a spline needs beyond the pole.
_BEYOND = 16


def continue_in_bands(
    values: NDArray[Any],
    lat_deg: NDArray[np.float64],
    lon_deg: NDArray[np.float64],
    heights_m: Sequence[float],
    *,
    level_m: float = 0.0,
    progress: Progress = silent,
) -> list[NDArray[np.float32]]:
    """A globe as it would be measured higher up, with numpy and scipy only.

    Parameters
    ----------
    values : array, shape (nlat, nlon)
        No NaN, mGal.
    lat_deg, lon_deg : array
        Nodes, ascending; every meridian once.
    heights_m : sequence of float
        Metres above the level of the data.
    level_m : float
        Level of the data above the ellipsoid, metres.
    progress : callable
        Told bands done and bands in all.

    Returns
    -------
    list of arrays, shape (nlat, nlon), float32
        In the order of `heights_m`.
    """
    lat, lon = lat_deg, lon_deg
    globe = xr.DataArray(values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"height_m": level_m})
    low = LongWavelengthField(globe)
    raised = [np.empty(values.shape, dtype=np.float32) for _ in heights_m]
    edges = np.arange(-CAP_FROM_DEG, CAP_FROM_DEG + 1e-9, BAND_DEG)
    total = edges.size + 1
    for done, (south, north) in enumerate(itertools.pairwise(edges)):
        out = slice(*np.searchsorted(lat, [south, north]))
        work = slice(*np.searchsorted(lat, [south - MARGIN_DEG, north + MARGIN_DEG]))
        if out.stop > out.start:
            rest = values[work] - low.field(lat[work], lon, level_m)
            own = slice(out.start - work.start, out.stop - work.start)
            patch = Patch(
                rest, lat[work], lon, height_m=level_m, pad_yx=PAD_YX, decay_m=DECAY_M, out_rows=own, around=True
            )
            for field, height in zip(raised, heights_m, strict=True):
                field[out] = patch.upward(height) + low.field(lat[out], lon, level_m + height)
        progress(done + 1, total, "bands of the globe")
    # The northern cap, and the southern one as the northern of the globe turned over.
    for number, (field_of, flip) in enumerate(((lat, 1), (-lat[::-1], -1))):
        _polar_cap(values[::flip], field_of, lon, low, flip, heights_m, level_m, [field[::flip] for field in raised])
        progress(edges.size + number, total, "polar caps")
    return raised


def _polar_cap(
    values: NDArray[Any],
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    low: LongWavelengthField,
    flip: int,
    heights_m: Sequence[float],
    level_m: float,
    raised: list[NDArray[np.float32]],
) -> None:
    """Fill the rows from `CAP_FROM_DEG` to the pole at the end of `lat`; for the southern, `flip` is -1."""
    first = int(np.searchsorted(lat, CAP_FROM_DEG))
    if first == lat.size:
        return
    step_lat, step_lon = (lat[-1] - lat[0]) / (lat.size - 1), (lon[-1] - lon[0]) / (lon.size - 1)
    reach = 90 - CAP_FROM_DEG + MARGIN_DEG
    # The corners of the square are farther from the pole than its sides.
    used = slice(int(np.searchsorted(lat, 90 - 1.5 * reach)), lat.size)
    rest = values[used] - low.field(flip * lat[used], lon, level_m)
    spline = _over_the_pole(rest, bool(90 - lat[-1] < 0.25 * step_lat))
    nodes = step_lat * np.arange(-np.ceil(reach / step_lat), np.ceil(reach / step_lat) + 1)
    there_lat, there_lon = _from_cap(nodes[:, None], nodes[None, :])
    square = scipy.ndimage.map_coordinates(
        spline,
        [(there_lat - lat[used.start]) / step_lat, (there_lon - lon[0]) % 360 / step_lon + _BEYOND],
        order=3,
        mode="nearest",
        prefilter=False,
    )
    inner = slice(*np.searchsorted(nodes, [-(90 - CAP_FROM_DEG) - 10 * step_lat, 90 - CAP_FROM_DEG + 10 * step_lat]))
    patch = Patch(
        square,
        nodes,
        nodes,
        height_m=level_m,
        pad_yx=PAD_YX,
        decay_m=DECAY_M,
        out_rows=inner,
        out_cols=inner,
        radii=_polar_radii_m,
    )
    # A parallel near the pole is short: every fourth node or so tells all, and a Fourier series the others.
    thin = next(k for k in (4, 3, 2, 1) if lon.size % k == 0 and k <= 1 / np.cos(np.radians(CAP_FROM_DEG)) + 0.2)
    rows = slice(first, lat.size)
    y, x = _to_cap(lat[rows, None], lon[None, ::thin])
    at = [(y - nodes[inner.start]) / step_lat, (x - nodes[inner.start]) / step_lat]
    for field, height in zip(raised, heights_m, strict=True):
        coarse = scipy.ndimage.map_coordinates(patch.upward(height), at, order=3, mode="nearest", output=np.float32)
        waves = scipy.fft.rfft(coarse, axis=1) * np.float32(thin)
        field[rows] = scipy.fft.irfft(waves, n=lon.size, axis=1) + low.field(flip * lat[rows], lon, level_m + height)


def _polar_radii_m(lat_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radii of curvature around a pole, where both are the same: a sphere there."""
    radius = np.full(np.shape(lat_deg), float(curvature_radii_m(90.0)[0]))
    return radius, radius


def _over_the_pole(rest: NDArray[Any], pole_row: bool) -> NDArray[np.float32]:
    """Spline coefficients of rows that end at the pole, with some rows and columns more on the sides that wrap."""
    mirrored = rest[::-1][1 if pole_row else 0 :][:_BEYOND]
    half, odd = divmod(rest.shape[1], 2)
    opposite = np.roll(mirrored, half, axis=1)
    if odd:
        # The far meridian lies between two columns.
        opposite = 0.5 * (opposite + np.roll(mirrored, half + 1, axis=1))
    rows = np.concatenate([rest, opposite])
    wide = np.concatenate([rows[:, -_BEYOND:], rows, rows[:, :_BEYOND]], axis=1)
    return np.asarray(scipy.ndimage.spline_filter(wide, order=3, output=np.float32, mode="nearest"))


def _from_cap(cap_lat: NDArray[np.float64], cap_lon: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Latitude and longitude of places on the turned sphere, whose (0, 0) is the north pole. Degrees."""
    v, u = np.radians(cap_lat), np.radians(cap_lon)
    towards_pole, y, x = np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), -np.sin(v) + 0 * u
    return np.degrees(np.arctan2(towards_pole, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def _to_cap(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The opposite of :func:`_from_cap`."""
    f, g = np.radians(lat), np.radians(lon)
    towards_pole, y, x = np.sin(f) + 0 * g, np.cos(f) * np.sin(g), np.cos(f) * np.cos(g)
    return np.degrees(np.arctan2(-x, np.hypot(towards_pole, y))), np.degrees(np.arctan2(y, towards_pole))


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
    :func:`gravmap.gravity.globe.continue_in_bands`, and the log says so.

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
