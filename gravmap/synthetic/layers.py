r"""Gravity of flat layers whose density changes sideways, by their exact spectra.

A layer from depth :math:`z_1` to :math:`z_2` with density contrast
:math:`\Delta\rho(x, y)` attracts, at depth 0, with

.. math:: g(k) = 2 \pi G \, \Delta\rho(k) \, (e^{-k z_1} - e^{-k z_2}) / k, \qquad
          g(0) = 2 \pi G \, \Delta\rho(0) \, (z_2 - z_1)

(Parker 1973, Geophysical Journal 31, 447-455, its first term, which for flat interfaces is the whole series). On the
sphere of radius R the degree n of the same layer is multiplied by
:math:`4 \pi G \frac{n+1}{2n+1} \frac{R}{n+3} [(1 - z_1/R)^{n+3} - (1 - z_2/R)^{n+3}]`, with :math:`n = q - 1/2`.

Depths are metres, positive down; densities kg/m3; gravity mGal, positive down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from gravmap.gravity.continuation import apply_filter

FloatArray = NDArray[np.float64]

GRAVITATIONAL_CONSTANT = 6.67430e-11  # m3 kg-1 s-2, CODATA 2018
MGAL_PER_SI = 1e5
# What lies between the grid and its periodic images, as a part of the grid's size.
GAP = 0.35
_RADIUS_M = 6_371_000.0
# Degree (4000 km) from which down a patch cannot tell waves apart: its mean is no mean of the Earth, whose shell
# attracts twice as much as a slab.
_LONGEST = 10.0

Multiplier = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Layer:
    """A flat layer.

    Attributes
    ----------
    top_m, bottom_m : float
        Depths, positive down.
    contrast : ndarray, shape (ny, nx)
        Density less the reference, kg/m3, averaged over the thickness.
    """

    top_m: float
    bottom_m: float
    contrast: FloatArray


def plane_transfer_function(wavenumber: FloatArray, top_m: float, bottom_m: float) -> FloatArray:
    """Gravity of a layer per density contrast, by wavenumber.

    Parameters
    ----------
    wavenumber : ndarray
        Radians per metre, >= 0.
    top_m, bottom_m : float
        Depths, 0 <= top_m < bottom_m.

    Returns
    -------
    ndarray
        mGal per kg/m3.
    """
    thickness = bottom_m - top_m
    safe = np.where(wavenumber > 0, wavenumber, 1.0)
    # expm1 keeps its digits where k times the thickness is small.
    effective = np.where(wavenumber > 0, -np.expm1(-safe * thickness) / safe, thickness)
    symbol: FloatArray = 2 * np.pi * GRAVITATIONAL_CONSTANT * MGAL_PER_SI * np.exp(-wavenumber * top_m) * effective
    return symbol


def sphere_transfer_function(q: FloatArray, radius_m: float, top_m: float, bottom_m: float) -> FloatArray:
    """Gravity of a spherical layer per density contrast, by wavenumber q = n + 1/2.

    Parameters
    ----------
    q : ndarray
        Dimensionless wavenumber, >= 0; below 1/2 it is taken as 1/2, the mean of the sphere.
    radius_m : float
        Radius of the level on which gravity is computed and from which depths count.
    top_m, bottom_m : float
        Depths, 0 <= top_m < bottom_m < radius_m.

    Returns
    -------
    ndarray
        mGal per kg/m3.
    """
    # Double precision throughout: the layer's thickness is a small difference of two radii.
    radius_m = float(radius_m)
    degree = np.maximum(np.asarray(q, dtype=np.float64), 0.5) - 0.5
    log_top, log_bottom = np.log1p(-top_m / radius_m), np.log1p(-bottom_m / radius_m)
    power = degree + 3
    effective = -np.expm1(power * (log_bottom - log_top)) * np.exp(power * log_top) * radius_m / power
    shell = (degree + 1) / (2 * degree + 1)
    symbol: FloatArray = 4 * np.pi * GRAVITATIONAL_CONSTANT * MGAL_PER_SI * shell * effective
    return symbol


def low_pass(half_amplitude_wavelength_m: float) -> Multiplier:
    """A filter that halves the amplitude at one wavelength: exp(-ln 2 (k / k_half)^4), flat below and steep above."""
    half = 2 * np.pi / half_amplitude_wavelength_m

    def multiplier(wavenumber: FloatArray) -> FloatArray:
        kept: FloatArray = np.exp(-np.log(2) * (wavenumber / half) ** 4)
        return kept

    return multiplier


def fade_window(shape: tuple[int, int], cells_yx: tuple[float, float]) -> FloatArray:
    """A window that is 1 inside and falls as sin^2 to 0 over `cells_yx` nodes along the sides."""
    sides = []
    for size, cells in zip(shape, cells_yx, strict=True):
        distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
        sides.append(np.sin(np.pi / 2 * np.clip(distance / max(cells, 0.5), 0, 1)) ** 2)
    window: FloatArray = sides[0][:, None] * sides[1][None, :]
    return window


def plane_gravity(
    layers: Iterable[Layer],
    spacing_yx_m: tuple[float, float],
    window: FloatArray,
    *,
    filters: Multiplier | None = None,
    gap: float = GAP,
) -> FloatArray:
    """Gravity of layers on a metric plane at depth 0.

    Every node stands for a rectangular cell of even density. Within a layer the departures from its mean (weighted
    with the window, so that no net mass is left) are faded out by `window`; the mean acts as an endless slab. The
    grid is padded by `gap` of its size, so that its periodic images are far away.

    Parameters
    ----------
    layers : iterable of Layer
        All of one shape, (ny, nx).
    spacing_yx_m : tuple of float
        Node spacing in northing and easting, metres.
    window : ndarray, shape (ny, nx)
        See `fade_window`.
    filters : callable, optional
        Multiplier by wavenumber (rad/m) on the sum, e.g. `low_pass`.
    gap : float
        Padding as a part of the size.

    Returns
    -------
    ndarray, shape (ny, nx)
        mGal.
    """
    ny, nx = window.shape
    shape = [next_fast_len(int(np.ceil(size * (1 + gap))), real=True) for size in (ny, nx)]
    k_y = 2 * np.pi * np.fft.fftfreq(shape[0], spacing_yx_m[0])[:, None]
    k_x = 2 * np.pi * np.fft.rfftfreq(shape[1], spacing_yx_m[1])[None, :]
    wavenumber = np.hypot(k_y, k_x)
    spectrum = np.zeros(wavenumber.shape, dtype=np.complex128)
    slabs = 0.0
    for layer in layers:
        mean = float((layer.contrast * window).sum() / window.sum())
        departures = rfft2((layer.contrast - mean) * window, s=shape)
        spectrum += departures * plane_transfer_function(wavenumber, layer.top_m, layer.bottom_m)
        slabs += float(plane_transfer_function(np.zeros(1), layer.top_m, layer.bottom_m)[0]) * mean
    # A cell of even density has this spectrum; a bare node would be a mass point.
    spectrum *= np.sinc(k_y * spacing_yx_m[0] / (2 * np.pi)) * np.sinc(k_x * spacing_yx_m[1] / (2 * np.pi))
    if filters is not None:
        spectrum *= filters(wavenumber)
    gravity: FloatArray = irfft2(spectrum, s=shape)[:ny, :nx] + slabs
    return gravity


def sphere_gravity(
    layers: Iterable[Layer],
    lat_deg: FloatArray,
    lon_deg: FloatArray,
    window: FloatArray,
    *,
    filters: Multiplier | None = None,
) -> FloatArray:
    """Gravity of layers on the ellipsoid at height 0, for regions too tall for one plane.

    The same sum as `plane_gravity`, with the latitude-variable operator of :mod:`gravmap.gravity.patch` in place of the
    wavenumbers of a plane. The mean of a layer acts as an infinite slab here too, so that both agree in level.

    Parameters
    ----------
    layers : iterable of Layer
        All of one shape, (lat, lon).
    lat_deg, lon_deg : ndarray, shapes (ny,) and (nx,)
        Ascending, evenly spaced.
    window : ndarray, shape (ny, nx)
        See `fade_window`.
    filters : callable, optional
        Multiplier by wavenumber (rad/m) on the sum.

    Returns
    -------
    ndarray, shape (ny, nx)
        mGal.
    """
    step_y_m = np.radians(lat_deg[1] - lat_deg[0]) * _RADIUS_M
    step_x_m = np.radians(lon_deg[1] - lon_deg[0]) * _RADIUS_M * np.cos(np.radians(lat_deg.mean()))
    # The spectrum of an even cell to second order in k, the same in all directions as the operator requires.
    cell = (step_y_m**2 + step_x_m**2) / 2 / 24
    total = np.zeros(window.shape)
    for layer in layers:
        mean = float((layer.contrast * window).sum() / window.sum())

        def symbol(q: NDArray[Any], radius_m: NDArray[Any], layer: Layer = layer) -> FloatArray:
            k = q / radius_m
            degrees = np.maximum(q, _LONGEST)
            value: FloatArray = sphere_transfer_function(degrees, float(radius_m), layer.top_m, layer.bottom_m)
            value *= np.exp(-cell * k**2)
            return value if filters is None else value * filters(k)

        total += apply_filter((layer.contrast - mean) * window, lat_deg, lon_deg, symbol)
        total += float(plane_transfer_function(np.zeros(1), layer.top_m, layer.bottom_m)[0]) * mean
    return total
