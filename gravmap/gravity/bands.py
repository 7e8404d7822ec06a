"""A whole globe continued without spherical harmonics of full size: bands of latitude, and a cap on each pole.

Degrees up to 180 are removed before and restored after. Between 75S and 75N the rest goes through the operator of
patch.py band by band, each going all around the Earth. Nearer to a pole the meridians converge too fast for it: there
the rest is carried to a grid of its own on which the pole lies on the equator, and the answer back.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gravmap.gravity.lowdegrees import LowDegrees
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
    low = LowDegrees(globe)
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
    low: LowDegrees,
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
