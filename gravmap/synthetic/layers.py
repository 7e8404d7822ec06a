r"""Gravity of flat layers with laterally variable density, computed exactly in the wavenumber domain.

The gravity at depth 0 of a layer from depth :math:`z_1` to :math:`z_2` with density contrast
:math:`\Delta\rho(x, y)` is

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
# Padding between the grid and its periodic images, as a fraction of the grid's size.
GAP = 0.35
_RADIUS_M = 6_371_000.0
# Lowest degree (4000 km) that a regional grid resolves. Its mean is not degree 0 of the sphere, where a shell attracts
# twice as much as an infinite slab: degrees below are treated as this one.
_LONGEST = 10.0
# Rows and columns of padding. The window ends at zero, so there is nothing to predict beyond it.
_PAD_YX = (200, 250)

Multiplier = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Layer:
    """A flat layer.

    Attributes
    ----------
    top_m, bottom_m : float
        Depths, positive down.
    contrast : ndarray, shape (ny, nx)
        Density minus the reference, kg/m3, averaged over the thickness.
    """

    top_m: float
    bottom_m: float
    contrast: FloatArray


def plane_transfer_function(wavenumber: FloatArray, top_m: float, bottom_m: float) -> FloatArray:
    """Transfer function from the density contrast of a layer to its gravity, on a plane.

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
    # expm1 is accurate where k times the thickness is small.
    effective = np.where(wavenumber > 0, -np.expm1(-safe * thickness) / safe, thickness)
    transfer: FloatArray = 2 * np.pi * GRAVITATIONAL_CONSTANT * MGAL_PER_SI * np.exp(-wavenumber * top_m) * effective
    return transfer


def sphere_transfer_function(q: FloatArray, radius_m: float, top_m: float, bottom_m: float) -> FloatArray:
    """Transfer function from the density contrast of a spherical layer to its gravity.

    Parameters
    ----------
    q : ndarray
        Dimensionless wavenumber n + 1/2, n being the spherical harmonic degree; values below 1/2 count as 1/2.
    radius_m : float
        Radius of the level on which gravity is computed and from which depths are measured.
    top_m, bottom_m : float
        Depths, 0 <= top_m < bottom_m < radius_m.

    Returns
    -------
    ndarray
        mGal per kg/m3.
    """
    # In double precision: the thickness of the layer is a small difference of two radii.
    radius_m = float(radius_m)
    degree = np.maximum(np.asarray(q, dtype=np.float64), 0.5) - 0.5
    log_top, log_bottom = np.log1p(-top_m / radius_m), np.log1p(-bottom_m / radius_m)
    power = degree + 3
    effective = -np.expm1(power * (log_bottom - log_top)) * np.exp(power * log_top) * radius_m / power
    shell = (degree + 1) / (2 * degree + 1)
    transfer: FloatArray = 4 * np.pi * GRAVITATIONAL_CONSTANT * MGAL_PER_SI * shell * effective
    return transfer


def low_pass(half_amplitude_wavelength_m: float) -> Multiplier:
    """Low-pass filter exp(-ln 2 (k / k_half)^4), which halves the amplitude at the given wavelength."""
    half = 2 * np.pi / half_amplitude_wavelength_m

    def multiplier(wavenumber: FloatArray) -> FloatArray:
        gain: FloatArray = np.exp(-np.log(2) * (wavenumber / half) ** 4)
        return gain

    return multiplier


def fade_window(shape: tuple[int, int], cells_yx: tuple[float, float]) -> FloatArray:
    """Taper of `shape`: 1 inside, decreasing as sin^2 to 0 over `cells_yx` nodes along the sides."""
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

    Every node represents a rectangular cell of constant density. Within a layer, deviations from its mean (weighted
    by the window, so that they have no net mass) are tapered by `window`; the mean is treated as an infinite slab. The
    grid is padded by the fraction `gap` of its size, which keeps its periodic images away.

    Parameters
    ----------
    layers : iterable of Layer
        All of one shape, (ny, nx).
    spacing_yx_m : tuple of float
        Node spacing in northing and easting, metres.
    window : ndarray, shape (ny, nx)
        See `fade_window`.
    filters : callable, optional
        Function of the wavenumber (rad/m) that the spectrum is multiplied by, e.g. `low_pass`.
    gap : float
        Padding as a fraction of the size.

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
    # Spectrum of a cell of constant density; without it every node would be a point mass.
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

    As `plane_gravity`, with the latitude-variable operator of :mod:`gravmap.gravity.patch` in place of the wavenumbers
    of a plane. The mean of a layer is treated as an infinite slab here too, so that both give the same level.

    Parameters
    ----------
    layers : iterable of Layer
        All of one shape, (lat, lon).
    lat_deg, lon_deg : ndarray, shapes (ny,) and (nx,)
        Ascending, evenly spaced.
    window : ndarray, shape (ny, nx)
        See `fade_window`.
    filters : callable, optional
        Function of the wavenumber (rad/m) that the spectrum is multiplied by.

    Returns
    -------
    ndarray, shape (ny, nx)
        mGal.
    """
    step_y_m = np.radians(lat_deg[1] - lat_deg[0]) * _RADIUS_M
    step_x_m = np.radians(lon_deg[1] - lon_deg[0]) * _RADIUS_M * np.cos(np.radians(lat_deg.mean()))
    # Spectrum of a cell of constant density to second order in k, isotropic as the operator requires.
    cell = (step_y_m**2 + step_x_m**2) / 2 / 24
    total = np.zeros(window.shape)
    for layer in layers:
        mean = float((layer.contrast * window).sum() / window.sum())

        def transfer(q: NDArray[Any], radius_m: NDArray[Any], layer: Layer = layer) -> FloatArray:
            k = q / radius_m
            degrees = np.maximum(q, _LONGEST)
            value: FloatArray = sphere_transfer_function(degrees, float(radius_m), layer.top_m, layer.bottom_m)
            value *= np.exp(-cell * k**2)
            return value if filters is None else value * filters(k)

        total += apply_filter((layer.contrast - mean) * window, lat_deg, lon_deg, transfer, pad_yx=_PAD_YX)
        total += float(plane_transfer_function(np.zeros(1), layer.top_m, layer.bottom_m)[0]) * mean
    return total
