"""Long wavelengths of a global grid, for remove-restore in regional upward continuation.

A grid of 30 by 15 degrees does not resolve wavelengths longer than itself, nor what lies outside. A global grid does,
however coarse: its degrees up to 180 are subtracted at the level of the data before the continuation, and added back at
the new level after it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gravmap.gravity.patch import curvature_radii_m
from gravmap.progress import Progress, silent

log = logging.getLogger(__name__)

MAX_DEGREE = 180
# Rows are averaged over blocks of this height first; degree 180 has a wavelength of 2 degrees.
_BLOCK_DEG = 0.5


def is_global(grid: xr.DataArray) -> bool:
    """Whether a (lat, lon) grid covers the whole Earth."""
    lat, lon = grid["lat"].values, grid["lon"].values
    step_lat, step_lon = (lat[-1] - lat[0]) / (lat.size - 1), (lon[-1] - lon[0]) / (lon.size - 1)
    full_circle = lon[-1] - lon[0] > 360 - 1.5 * step_lon
    return bool(full_circle and lat[0] < -90 + 1.1 * step_lat and lat[-1] > 90 - 1.1 * step_lat)


class LongWavelengthField:
    r"""Spherical harmonics of a global grid up to degree 180, with a cosine taper above degree 60.

    Geodetic latitude is used as spherical latitude, and a degree decays with the radius of curvature at each latitude,
    as in :class:`gravmap.gravity.patch.Patch`. What is subtracted and what is added back are the same model, so that
    its inaccuracy matters little.

    Parameters
    ----------
    globe : xr.DataArray, dims (lat, lon)
        A grid for which :func:`is_global` is true, mGal; attribute ``height_m`` is its level. Read in bands of rows,
        so it may be larger than memory. NaN count as zero.
    progress : callable
        Called after each band.
    """

    def __init__(self, globe: xr.DataArray, progress: Progress = silent) -> None:
        lat, lon = globe["lat"].values, globe["lon"].values
        step_lat, step_lon = (lat[-1] - lat[0]) / (lat.size - 1), (lon[-1] - lon[0]) / (lon.size - 1)
        self.level_m = float(globe.attrs.get("height_m", 0.0))
        self.degree = int(min(MAX_DEGREE, 90 // max(step_lat, step_lon)))
        count = round(360 / step_lon)  # without the repeated meridian
        orders = self.degree + 1
        blocks = list(_blocks(lat, step_lat))
        spectrum = np.zeros((len(blocks), orders), dtype=np.complex128)
        for done, (first, weights, _) in enumerate(blocks):
            band = np.nan_to_num(globe[first : first + weights.size, :count].values.astype(np.float64))
            spectrum[done] = np.fft.rfft(weights @ band)[:orders] / count
            progress(done + 1, len(blocks), "low degrees of the globe")
        spectrum *= np.exp(-1j * np.radians(lon[0]) * np.arange(orders))
        middle = np.array([latitude for _, _, latitude in blocks])
        # A block is weighted by the area of its zone on the sphere.
        edges = np.concatenate([[-90.0], 0.5 * (middle[1:] + middle[:-1]), [90.0]])
        zone = np.diff(np.sin(np.radians(edges)))
        self._coefficients = np.zeros((orders, orders), dtype=np.complex128)
        for n, p in enumerate(legendre(middle, self.degree)):
            self._coefficients[n] = np.einsum("i,im,im->m", zone, p, spectrum) / 2
        # The field is real: negative orders are the complex conjugates of the positive ones.
        self._coefficients[:, 1:] *= 2

    def field(self, lat_deg: ArrayLike, lon_deg: ArrayLike, level_m: float) -> NDArray[np.float32]:
        """Evaluate the long wavelengths on a grid at a level.

        Parameters
        ----------
        lat_deg, lon_deg : array
            Nodes, degrees.
        level_m : float
            Metres above the ellipsoid.

        Returns
        -------
        array, shape (nlat, nlon), float32, mGal
        """
        lat, lon = np.asarray(lat_deg, dtype=np.float64), np.radians(np.asarray(lon_deg, dtype=np.float64))
        meridian, vertical = curvature_radii_m(lat)
        radius = np.sqrt(meridian * vertical)
        ratio = (radius + self.level_m) / (radius + level_m)
        rows = np.zeros((lat.size, self.degree + 1), dtype=np.complex128)
        for n, p in enumerate(legendre(lat, self.degree)):
            weight = _taper(n, self.degree)
            if weight:
                rows[:, : n + 1] += (
                    (weight * ratio ** (n + 2))[:, None] * p[:, : n + 1] * self._coefficients[n, : n + 1]
                )
        waves = np.exp(1j * np.arange(self.degree + 1)[:, None] * lon)
        return np.asarray(rows.real @ waves.real - rows.imag @ waves.imag, dtype=np.float32)


def _taper(n: int, last: int) -> float:
    start = last / 3
    return 1.0 if n <= start else float(0.5 + 0.5 * np.cos(np.pi * (n - start) / (last - start)))


def _blocks(lat: NDArray[np.float64], step_deg: float) -> Iterator[tuple[int, NDArray[np.float64], float]]:
    """First row, weights of the rows, and latitude of each block of rows.

    Block centres are nodes of a gridline-registered grid, the poles included (with half a block there); on a
    pixel-registered grid the blocks divide the rows between the poles. A row cut by the border of a block has a
    proportional weight.
    """
    size = max(1, round(_BLOCK_DEG / step_deg))
    gridline = abs(lat[0] + 90) < 0.25 * step_deg
    centres = np.arange(0.0 if gridline else (size - 1) / 2, lat.size, size)
    for centre in centres:
        first, last = int(np.ceil(centre - size / 2 - 0.5)), int(np.floor(centre + size / 2 + 0.5))
        rows = np.arange(max(first, 0), min(last, lat.size - 1) + 1)
        weights = np.clip(size / 2 + 0.5 - np.abs(rows - centre), 0, 1)
        kept = weights > 0
        rows, weights = rows[kept], weights[kept] / weights.sum()
        yield int(rows[0]), weights, float(weights @ lat[rows])


def legendre(lat_deg: NDArray[np.float64], degree: int) -> Iterator[NDArray[np.float64]]:
    r"""Fully normalised associated Legendre functions of sin(latitude), degree by degree.

    Forward column recursion, stable to degrees far beyond 180. Normalised so that the mean square of
    :math:`\bar P_{nm} e^{im\lambda}` over the sphere is 1 (no factor for m > 0).

    Yields
    ------
    array, shape (nlat, degree + 1)
        Orders 0 to `degree`; zero above n.

    References
    ----------
    Holmes and Featherstone (2002), J. Geodesy 76, 279-299, eqs. 11-13.
    """
    t, u = np.sin(np.radians(lat_deg)), np.cos(np.radians(lat_deg))
    m = np.arange(degree + 1)
    before = np.zeros((t.size, degree + 1))
    current = np.zeros((t.size, degree + 1))
    current[:, 0] = 1.0
    yield current
    for n in range(1, degree + 1):
        following = np.zeros_like(current)
        low = m[:n]
        a = np.sqrt((4 * n**2 - 1) / (n**2 - low**2))
        b = np.sqrt((2 * n + 1) * ((n - 1) ** 2 - low**2) / ((2 * n - 3) * (n**2 - low**2))) if n > 1 else np.zeros(n)
        following[:, :n] = a * t[:, None] * current[:, :n] - b * before[:, :n]
        following[:, n] = np.sqrt((2 * n + 1) / (2 * n)) * u * current[:, n - 1]
        before, current = current, following
        yield current
