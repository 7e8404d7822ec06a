"""Upward continuation of a global grid: spherical harmonics with ducc0, else bands of latitude and polar caps."""

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
from gravmap.gravity.patch import RESTORED, Patch, curvature_radii_m
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

# Latitude at which the polar caps begin, height of a band, and overlap on each of its sides, degrees.
CAP_FROM_DEG = 75.0
BAND_DEG = 15.0
MARGIN_DEG = 5.0
# Rows that the cubic spline needs beyond the pole.
_ROWS_BEYOND_POLE = 16


def continue_by_bands(
    values: NDArray[Any],
    lat_deg: NDArray[np.float64],
    lon_deg: NDArray[np.float64],
    heights_m: Sequence[float],
    *,
    level_m: float = 0.0,
    progress: Progress = silent,
) -> list[NDArray[np.float32]]:
    """Upward continuation of a global grid with numpy and scipy only.

    Parameters
    ----------
    values : array, shape (nlat, nlon)
        Without NaN, mGal.
    lat_deg, lon_deg : array
        Nodes, ascending; each meridian once.
    heights_m : sequence of float
        Continuation heights above the level of the data, metres.
    level_m : float
        Level of the data above the ellipsoid, metres.
    progress : callable
        Called after each band.

    Returns
    -------
    list of arrays, shape (nlat, nlon), float32
        In the order of `heights_m`.
    """
    lat, lon = lat_deg, lon_deg
    globe = xr.DataArray(values, coords={"lat": lat, "lon": lon}, dims=("lat", "lon"), attrs={"height_m": level_m})
    long_wavelength = LongWavelengthField(globe)
    continued = [np.empty(values.shape, dtype=np.float32) for _ in heights_m]
    edges = np.arange(-CAP_FROM_DEG, CAP_FROM_DEG + 1e-9, BAND_DEG)
    total = edges.size + 1
    for done, (south, north) in enumerate(itertools.pairwise(edges)):
        out = slice(*np.searchsorted(lat, [south, north]))
        work = slice(*np.searchsorted(lat, [south - MARGIN_DEG, north + MARGIN_DEG]))
        if out.stop > out.start:
            rest = values[work] - long_wavelength.field(lat[work], lon, level_m)
            own = slice(out.start - work.start, out.stop - work.start)
            patch = Patch(
                rest,
                lat[work],
                lon,
                height_m=level_m,
                out_rows=own,
                periodic_lon=True,
                **RESTORED,
            )
            for field, height in zip(continued, heights_m, strict=True):
                field[out] = patch.upward(height) + long_wavelength.field(lat[out], lon, level_m + height)
        progress(done + 1, total, "bands of the globe")
    # The northern cap; and the southern one, as the northern cap of the grid flipped in latitude.
    for number, (field_of, flip) in enumerate(((lat, 1), (-lat[::-1], -1))):
        _polar_cap(
            values[::flip],
            field_of,
            lon,
            long_wavelength,
            flip,
            heights_m,
            level_m,
            [field[::flip] for field in continued],
        )
        progress(edges.size + number, total, "polar caps")
    return continued


def _polar_cap(
    values: NDArray[Any],
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    long_wavelength: LongWavelengthField,
    flip: int,
    heights_m: Sequence[float],
    level_m: float,
    continued: list[NDArray[np.float32]],
) -> None:
    """Fill the rows from `CAP_FROM_DEG` to the pole at the end of `lat`; `flip` is -1 for the southern cap."""
    first = int(np.searchsorted(lat, CAP_FROM_DEG))
    if first == lat.size:
        return
    step_lat, step_lon = (lat[-1] - lat[0]) / (lat.size - 1), (lon[-1] - lon[0]) / (lon.size - 1)
    reach = 90 - CAP_FROM_DEG + MARGIN_DEG
    # The corners of the square are farther from the pole than its sides.
    used = slice(int(np.searchsorted(lat, 90 - 1.5 * reach)), lat.size)
    rest = values[used] - long_wavelength.field(flip * lat[used], lon, level_m)
    spline = _spline_across_pole(rest, bool(90 - lat[-1] < 0.25 * step_lat))
    nodes = step_lat * np.arange(-np.ceil(reach / step_lat), np.ceil(reach / step_lat) + 1)
    there_lat, there_lon = _from_cap(nodes[:, None], nodes[None, :])
    square = scipy.ndimage.map_coordinates(
        spline,
        [(there_lat - lat[used.start]) / step_lat, (there_lon - lon[0]) % 360 / step_lon + _ROWS_BEYOND_POLE],
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
        out_rows=inner,
        out_cols=inner,
        radii=_polar_radii_m,
        **RESTORED,
    )
    # Parallels near the pole are oversampled: about every fourth node is computed, the others by Fourier interpolation.
    thin = next(k for k in (4, 3, 2, 1) if lon.size % k == 0 and k <= 1 / np.cos(np.radians(CAP_FROM_DEG)) + 0.2)
    rows = slice(first, lat.size)
    y, x = _to_cap(lat[rows, None], lon[None, ::thin])
    at = [(y - nodes[inner.start]) / step_lat, (x - nodes[inner.start]) / step_lat]
    for field, height in zip(continued, heights_m, strict=True):
        coarse = scipy.ndimage.map_coordinates(patch.upward(height), at, order=3, mode="nearest", output=np.float32)
        waves = scipy.fft.rfft(coarse, axis=1) * np.float32(thin)
        field[rows] = scipy.fft.irfft(waves, n=lon.size, axis=1) + long_wavelength.field(
            flip * lat[rows], lon, level_m + height
        )


def _polar_radii_m(lat_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radii of curvature at a pole, where both are equal."""
    radius = np.full(np.shape(lat_deg), float(curvature_radii_m(90.0)[0]))
    return radius, radius


def _spline_across_pole(rest: NDArray[Any], pole_row: bool) -> NDArray[np.float32]:
    """Spline coefficients of rows that end at the pole, extended across the pole and around in longitude."""
    mirrored = rest[::-1][1 if pole_row else 0 :][:_ROWS_BEYOND_POLE]
    half, odd = divmod(rest.shape[1], 2)
    opposite = np.roll(mirrored, half, axis=1)
    if odd:
        # The far meridian lies between two columns.
        opposite = 0.5 * (opposite + np.roll(mirrored, half + 1, axis=1))
    rows = np.concatenate([rest, opposite])
    wide = np.concatenate([rows[:, -_ROWS_BEYOND_POLE:], rows, rows[:, :_ROWS_BEYOND_POLE]], axis=1)
    return np.asarray(scipy.ndimage.spline_filter(wide, order=3, output=np.float32, mode="nearest"))


def _from_cap(cap_lat: NDArray[np.float64], cap_lon: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Geographic coordinates of points on a rotated sphere with the north pole at (0, 0). Degrees."""
    v, u = np.radians(cap_lat), np.radians(cap_lon)
    towards_pole, y, x = np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), -np.sin(v) + 0 * u
    return np.degrees(np.arctan2(towards_pole, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def _to_cap(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inverse of :func:`_from_cap`."""
    f, g = np.radians(lat), np.radians(lon)
    towards_pole, y, x = np.sin(f) + 0 * g, np.cos(f) * np.sin(g), np.cos(f) * np.cos(g)
    return np.degrees(np.arctan2(-x, np.hypot(towards_pole, y))), np.degrees(np.arctan2(y, towards_pole))


# Radius of the sphere of the harmonics, metres: the mean radius of WGS 84, (2a + b)/3.
MEAN_RADIUS_M = 6_371_008.771
# Degrees attenuated by more than exp(-12) are not computed.
_MAX_ATTENUATION = 12.0


def has_ducc0() -> bool:
    """Whether ducc0 is installed, which has the spherical harmonic transforms."""
    return importlib.util.find_spec("ducc0") is not None


def globe_registration(lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64]) -> tuple[str, int]:
    """Registration of a global grid.

    Parameters
    ----------
    lat_deg, lon_deg : array
        Ascending and evenly spaced, degrees.

    Returns
    -------
    geometry : {"F1", "CC"}
        Pixel-registered (rows half a step from the poles; Fejér's first rule) or gridline-registered (poles included;
        Clenshaw-Curtis).
    count : int
        Number of columns without a repeated meridian.

    Raises
    ------
    InputError
        The grid is not global, or is registered in neither way.
    """
    step_lat = (lat_deg[-1] - lat_deg[0]) / (lat_deg.size - 1)
    step_lon = (lon_deg[-1] - lon_deg[0]) / (lon_deg.size - 1)
    count = round(360 / step_lon)
    if abs(count * step_lon - 360) > 0.01 * step_lon or lon_deg.size not in (count, count + 1):
        raise InputError(
            f"The grid runs from longitude {lon_deg[0]:g} to {lon_deg[-1]:g}, which is not 360 degrees.",
            "Use --method regional, or give a global grid.",
        )
    gaps = np.array([lat_deg[0] + 90, 90 - lat_deg[-1]]) / step_lat
    for geometry, gap in (("CC", 0.0), ("F1", 0.5)):
        if np.abs(gaps - gap).max() < 0.01:
            return geometry, count
    raise InputError(
        f"The rows run from latitude {lat_deg[0]:g} to {lat_deg[-1]:g}: the outermost are neither at the poles nor half"
        " a step from them.",
        "Use --method regional, or give a gridline- or pixel-registered global grid.",
    )


def upward_continue_globe(
    values: NDArray[Any],
    lat_deg: NDArray[np.float64],
    lon_deg: NDArray[np.float64],
    heights_m: Sequence[float],
    *,
    level_m: float = 0.0,
    threads: int = 0,
    progress: Progress = silent,
) -> list[NDArray[np.float32]]:
    r"""Upward continuation of a global grid to several heights.

    With ducc0: analysis, multiplication of degree n by :math:`((R+z)/(R+z+h))^{n+2}`, synthesis, in float32; geodetic
    latitude is used as spherical latitude, an error of 0.2 % of the residual on the ellipsoid. Without ducc0:
    :func:`gravmap.gravity.globe.continue_by_bands`, with a warning in the log.

    Parameters
    ----------
    values : array, shape (nlat, nlon)
        Without NaN, mGal. The first meridian may be repeated.
    lat_deg, lon_deg : array
        Nodes, ascending, pixel- or gridline-registered.
    heights_m : sequence of float
        Continuation heights above the level of the data, metres; positive. They share one analysis.
    level_m : float
        Level of the data above the ellipsoid, metres.
    threads : int
        Threads of ducc0; 0 uses all cores.
    progress : callable
        Called after each step.

    Returns
    -------
    list of arrays, shape (nlat, nlon), float32
        In the order of `heights_m`; a repeated meridian is repeated.

    Raises
    ------
    InputError
        The grid is not global.
    """
    geometry, count = globe_registration(lat_deg, lon_deg)
    unique = np.asarray(values)[:, :count]
    if has_ducc0():
        continued = _by_spherical_harmonics(unique, geometry, lon_deg[0], heights_m, level_m, threads, progress)
    else:
        log.warning(
            "ducc0 is not installed: the globe is continued in bands of latitude and two polar caps, with an error of"
            " about %s of the residual. For spherical harmonics: pip install 'gravmap[global]' (ducc0 is GPL).",
            "0.3 %",
        )
        continued = continue_by_bands(unique, lat_deg, lon_deg[:count], heights_m, level_m=level_m, progress=progress)
    return [field if count == lon_deg.size else np.column_stack([field, field[:, :1]]) for field in continued]


def _by_spherical_harmonics(
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
    # ducc0 orders rings from the north pole.
    rings = np.ascontiguousarray(values[::-1], dtype=np.float32)[None]
    harmonics = ducc0.sht.analysis_2d(map=rings, lmax=degrees, mmax=orders, **where)
    progress(1, 1 + len(heights_m), "analysis of the globe")
    # Coefficients of order m start at start[m] + m, one per degree.
    m = np.arange(orders + 1)
    start = m * (2 * degrees + 1 - m) // 2
    radius = MEAN_RADIUS_M + level_m
    continued = []
    for done, height in enumerate(heights_m):
        rate = np.log1p(height / radius)
        factor = np.exp(-rate * (np.arange(degrees + 1) + 2)).astype(np.float32)
        last = min(degrees, int(np.ceil(_MAX_ATTENUATION / rate)))
        kept = min(orders, last)
        higher = np.empty_like(harmonics)
        for order in range(kept + 1):
            run = slice(start[order] + order, start[order] + last + 1)
            higher[0, run] = harmonics[0, run] * factor[order : last + 1]
        field = ducc0.sht.synthesis_2d(
            alm=higher,
            lmax=last,
            mmax=kept,
            mstart=start[: kept + 1].astype(np.uint64),
            ntheta=rows,
            nphi=columns,
            **where,
        )
        continued.append(np.ascontiguousarray(field[0, ::-1]))
        progress(2 + done, 1 + len(heights_m), "synthesis of the globe")
    return continued
