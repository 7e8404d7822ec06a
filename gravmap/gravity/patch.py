"""The latitude-variable operator: isotropic filters on a latitude-longitude grid, in the wavenumber domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from gravmap.errors import InputError
from gravmap.gravity.padding import FarField, Floats, far_field, fit_covariance, pad_periodic

# Why this is not harmonica or GMT: both use one wavenumber scale for the whole grid, and extend it by constants, ramps
# or reflections. On fields of many kinds cut at the edges gravmap's error is 0.66 of that of harmonica with a ramp
# in the median (benchmarks/edges.py); with 5 degrees of data around the region it is 0.1 to 0.6 % of the residual,
# theirs 3.3 and 3.5 % (docs/performance.md).

# transfer_function(q, radius_m) -> multiplier
TransferFunction = Callable[[NDArray[Any], Any], NDArray[Any]]
# radii(lat_deg) -> (along the meridian, along the prime vertical), metres
Radii = Callable[[ArrayLike], tuple[NDArray[np.float64], NDArray[np.float64]]]

# WGS 84: semi-major axis (m) and first eccentricity squared.
SEMI_MAJOR_M = 6_378_137.0
ECCENTRICITY_SQUARED = 6.694379990141e-3

# To be raised when the operator gives other values than before; stored in the recipe of the fields.
OPERATOR_VERSION = 3
# Versions that differ by no more than the expected error near the edges: a network trained on one reads the others.
# They have other paddings.
INTERCHANGEABLE_VERSIONS = frozenset({1, 2, 3})

# Width of the fine padding between the grid and its repetition, metres, and the limits to its rows or columns.
# Correlation length of the field. How far beyond the grid it is predicted on coarse cells. Chosen on half of the truths
# of benchmarks/edges.py (docs/performance.md).
PAD_M = 500e3
PAD_LIMITS = (32, 250)
CORRELATION_M = 800e3
REACH_M = 4000e3
# Padding for a field without its long wavelengths, which come from a global grid: the remainder is short.
RESTORED: dict[str, Any] = {"pad_yx": (80, 80), "correlation_m": 25e3}

# Beyond this latitude (degrees) the meridians converge too fast for the expansion in latitude.
MAX_LATITUDE_DEG = 80.0


def curvature_radii_m(lat_deg: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Radii of curvature of the WGS 84 ellipsoid.

    .. math:: M = a (1 - e^2) / (1 - e^2 \sin^2\varphi)^{3/2}, \qquad N = a / \sqrt{1 - e^2 \sin^2\varphi}

    Parameters
    ----------
    lat_deg : array
        Geodetic latitude, degrees.

    Returns
    -------
    M, N : array
        Along the meridian and along the prime vertical, metres.

    References
    ----------
    Torge and Müller (2012), Geodesy, 4th ed., section 4.1.
    """
    w2 = 1 - ECCENTRICITY_SQUARED * np.sin(np.radians(lat_deg)) ** 2
    return SEMI_MAJOR_M * (1 - ECCENTRICITY_SQUARED) / w2**1.5, SEMI_MAJOR_M / np.sqrt(w2)


@dataclass(frozen=True)
class UpwardContinuation:
    r"""Transfer function of the upward continuation of radial gravity on a sphere.

    Degree n decays as :math:`(R/(R+h))^{n+2}`, since r g is harmonic; with :math:`q = n + 1/2` and
    :math:`L = \ln(1 + h/R)` this is :math:`e^{-L (q + 3/2)}`. The same holds for gravity disturbances, free-air and
    Bouguer anomalies.

    Attributes
    ----------
    height_m : float
        Continuation height, metres.

    References
    ----------
    Heiskanen and Moritz (1967), Physical Geodesy, section 2-14.
    """

    height_m: float

    def __call__(self, q: NDArray[Any], radius_m: Any) -> NDArray[Any]:
        """The multiplier at dimensionless wavenumbers `q`."""
        rate = np.log1p(self.height_m / radius_m)
        return np.asarray(np.exp(-rate * q - 1.5 * rate))

    def weyl_factor(self, q: NDArray[Any], radius_m: Any) -> NDArray[Any]:
        """f''/q² - f'/q³ of the transfer function f; :func:`weyl_factor_by_differences` is for any other."""
        rate = np.log1p(self.height_m / radius_m)
        return np.asarray(rate * (rate * q + 1) / q**3 * self(q, radius_m))


class Patch:
    """A latitude-longitude grid in the wavenumber domain, ready for any number of filters.

    The padded grid is transformed once; each filter then costs a few inverse transforms.

    Parameters
    ----------
    values : array, shape (nlat, nlon)
        The field at the nodes, without NaN. Latitude and longitude ascend.
    lat_deg, lon_deg : array, shapes (nlat,), (nlon,)
        Geodetic latitude and longitude of the nodes, degrees, evenly spaced.
    height_m : float
        Level of the data above the ellipsoid, metres.
    pad_yx : (int, int), optional
        Rows and columns of padding, rounded up to an efficient transform length, with nothing beyond it. By default the
        field is also predicted on coarse cells, to 4000 km from the edges.
    correlation_m : float
        Correlation length of the field, metres (:func:`gravmap.gravity.padding.fit_covariance`).
    out_rows, out_cols : slice
        The part of the grid for which results are computed.
    periodic_lon : bool
        The columns span 360 degrees with each meridian once, so they need no padding.
    radii : callable, optional
        Radii of curvature of the reference surface; the WGS 84 ellipsoid by default.

    Raises
    ------
    InputError
        The grid extends beyond 80 degrees of latitude.
    """

    def __init__(
        self,
        values: ArrayLike,
        lat_deg: ArrayLike,
        lon_deg: ArrayLike,
        *,
        height_m: float = 0.0,
        pad_yx: tuple[int, int] | None = None,
        correlation_m: float = CORRELATION_M,
        out_rows: slice = slice(None),
        out_cols: slice = slice(None),
        periodic_lon: bool = False,
        radii: Radii | None = None,
    ) -> None:
        field = np.asarray(values)
        lat = np.asarray(lat_deg, dtype=np.float64)
        lon = np.asarray(lon_deg, dtype=np.float64)
        if np.abs(lat).max() > MAX_LATITUDE_DEG:
            raise InputError(
                f"The grid reaches latitude {lat[np.abs(lat).argmax()]:g}; the regional operator is valid up to"
                f" {MAX_LATITUDE_DEG:g} degrees.",
                "Choose a --bbox that stays between 80S and 80N.",
            )
        self.height_m = height_m
        self.shape = (lat.size, lon.size)
        # With explicit bounds, so that they select the same nodes of the padded arrays.
        self._out = slice(*out_rows.indices(lat.size)), slice(*out_cols.indices(lon.size))
        self.out_lat = lat[self._out[0]]
        radii = radii or curvature_radii_m
        step_lat, step_lon = (float(np.radians((axis[-1] - axis[0]) / (axis.size - 1))) for axis in (lat, lon))
        m_mid, n_mid = radii(lat.mean())
        step_m_yx = (float(step_lat * m_mid), float(step_lon * n_mid * np.cos(np.radians(lat.mean()))))
        if pad_yx is None:
            pads = [int(np.clip(round(PAD_M / step), *PAD_LIMITS)) for step in step_m_yx]
        else:
            pads = list(pad_yx)
        # A length with prime factors up to 11 only, whatever the size of the grid (odd, prime).
        lengths = [scipy.fft.next_fast_len(n + pad, real=True) for n, pad in zip(self.shape, pads, strict=True)]
        if periodic_lon:
            lengths[1] = lon.size
        added_yx = (lengths[0] - lat.size, lengths[1] - lon.size)
        # Laplace's equation on the sphere has no first derivative in latitude for sqrt(cos(latitude)) times the field.
        root_cos = np.sqrt(np.cos(np.radians(lat))).astype(np.float32)
        flat = field.astype(np.float32, copy=False) * root_cos[:, None]
        covariance = fit_covariance(flat, step_m_yx, correlation_m)
        padded = pad_periodic(flat, added_yx, step_m_yx, covariance)
        steps = (step_lat, step_lon)
        self._fine = _PeriodicGrid(padded, self.out_lat, self._out[0], steps, height_m, radii)
        self._far: tuple[FarField, _PeriodicGrid] | None = None
        if pad_yx is None:
            far = far_field(padded, self.shape, step_m_yx, covariance, REACH_M)
            rows = np.clip(np.degrees(step_lat) * far.centres(0) + lat[0], -89.0, 89.0)
            coarse_steps = (step_lat * far.cell_yx[0], step_lon * far.cell_yx[1])
            self._far = far, _PeriodicGrid(far.values, rows, slice(rows.size), coarse_steps, height_m, radii)

    def apply(
        self,
        transfer_function: TransferFunction,
        *,
        columns: int | None = None,
        along: Literal["north", "east"] | None = None,
    ) -> NDArray[np.float32]:
        """Apply a filter, optionally followed by a horizontal derivative.

        Parameters
        ----------
        transfer_function : callable
            ``transfer_function(q, radius_m) -> multiplier``; q is the dimensionless wavenumber (degree + 1/2 on the
            sphere), so k = q / radius_m is the wavenumber in radians per metre. Called with arrays that broadcast.
        columns : int, optional
            Keep this many of the longest wavelengths in longitude; the others are set to zero.
        along : "north" or "east", optional
            Return the horizontal derivative of the result, per metre at the level of the data.

        Returns
        -------
        array, shape (rows, columns) of the output, float32
        """
        result = self._fine.apply(transfer_function, columns=columns, along=along)[:, self._out[1]]
        if self._far is not None:
            far, grid = self._far
            cells = grid.apply(transfer_function, along=along)
            cells = cells.take(np.arange(far.centres(1).size), axis=1, mode="wrap")
            result += far.at_nodes(cells, *self._out)
        return np.ascontiguousarray(result)

    def upward(self, height_m: float) -> NDArray[np.float32]:
        """The field `height_m` metres above the level of the data."""
        widest = (
            float(np.cos(np.radians(np.abs(self.out_lat).min()))) if self.out_lat[0] * self.out_lat[-1] > 0 else 1.0
        )
        # exp(-11) is 2e-5: shorter wavelengths vanish at this height and need not be computed.
        shortest = 11.0 * SEMI_MAJOR_M * widest / height_m
        return self.apply(UpwardContinuation(height_m), columns=int(np.searchsorted(self._fine.m[0], shortest)) + 1)


class _PeriodicGrid:
    """A grid that repeats itself, in the wavenumber domain.

    Parameters
    ----------
    values : array
        The field times the square root of the cosine of latitude.
    out_lat, out_rows
        Latitudes of the rows for which results are computed, degrees, and which rows these are.
    step : (float, float)
        Spacing in latitude and longitude, radians.
    height_m, radii
        As for :class:`Patch`.
    """

    def __init__(
        self,
        values: Floats,
        out_lat: NDArray[np.float64],
        out_rows: slice,
        step: tuple[float, float],
        height_m: float,
        radii: Radii,
    ) -> None:
        self.out_lat, self.out_rows, self.height_m, self._radii = out_lat, out_rows, height_m, radii
        self._length = values.shape[1]
        self._spectrum = scipy.fft.fft(scipy.fft.rfft(values, axis=1), axis=0, overwrite_x=True)
        # Wavenumbers per radian of latitude and of longitude.
        self._p = (2 * np.pi * np.fft.fftfreq(values.shape[0], step[0])).astype(np.float32)[:, None]
        self.m = (2 * np.pi * np.fft.rfftfreq(values.shape[1], step[1])).astype(np.float32)[None, :]

    def nodes_deg(self) -> NDArray[np.float64]:
        """Latitudes at which the transfer function is evaluated: Chebyshev nodes of the output range."""
        south, north = self.out_lat[0], self.out_lat[-1]
        span = north - south
        # On random fields within 0.015 % of the residual's rms of the result with 16 nodes (docs/performance.md).
        counts = ((20, 3), (30, 4), (45, 6), (60, 8), (180, 12))
        count = next(count for limit, count in counts if span <= limit)
        if span == 0:
            return np.array([south])
        x = np.cos(np.pi * (np.arange(count) + 0.5) / count)
        return np.asarray(0.5 * (south + north) + 0.5 * span * x)

    def apply(
        self,
        transfer_function: TransferFunction,
        *,
        columns: int | None = None,
        along: Literal["north", "east"] | None = None,
    ) -> NDArray[np.float32]:
        """As :meth:`Patch.apply`, in all columns."""
        columns = min(columns or self.m.size, self.m.size)
        spectrum, m = self._spectrum[:, :columns], self.m[:, :columns]
        nodes = self.nodes_deg()
        rows = np.zeros((self.out_lat.size, columns), dtype=np.complex64)
        slopes = np.zeros_like(rows) if along == "north" else None
        for node, weight in zip(nodes, lagrange_weights(nodes, self.out_lat), strict=True):
            q2, radius, _, _ = self._q_squared(float(node), m)
            product = spectrum * _real32(transfer_function(np.sqrt(q2), radius))
            if slopes is not None:
                slopes += self._to_rows(product * (1j * self._p)) * _real32(weight)[:, None]
            part = self._to_rows(product)
            if slopes is not None:
                # The interpolation weights change with latitude too.
                slopes += part * _real32(self._slope_of(weight))[:, None]
            part *= _real32(weight)[:, None]
            rows += part
        correction = spectrum * (1j * self._weyl(transfer_function, m))
        if slopes is not None:
            slopes += self._to_rows(correction * (1j * self._p))
        rows += self._to_rows(correction)
        phi = np.radians(self.out_lat)[:, None]
        meridian, vertical = (radius[:, None] + self.height_m for radius in self._radii(self.out_lat))
        if slopes is not None:
            # The derivative of u / sqrt(cos), u being what was transformed.
            rows = np.asarray((slopes + _real32(0.5 * np.tan(phi)) * rows) / _real32(meridian), dtype=np.complex64)
        elif along == "east":
            rows = np.asarray(rows * (1j * m) / _real32(vertical * np.cos(phi)), dtype=np.complex64)
        full = np.zeros((rows.shape[0], self.m.size), dtype=np.complex64)
        full[:, :columns] = rows
        result = scipy.fft.irfft(full, n=self._length, axis=1)
        result /= _real32(np.sqrt(np.cos(phi)))
        return _real32(result)

    def _to_rows(self, spectrum: NDArray[Any]) -> NDArray[Any]:
        """Inverse transform in latitude, output rows only; overwrites `spectrum`."""
        return np.asarray(scipy.fft.ifft(spectrum, axis=0, overwrite_x=True)[self.out_rows])

    def _slope_of(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of an interpolation weight, per radian of latitude."""
        return np.asarray(np.gradient(weight, np.radians(self.out_lat), edge_order=2))

    def _q_squared(
        self, lat_deg: float, m: NDArray[Any]
    ) -> tuple[NDArray[Any], np.float32, NDArray[Any], NDArray[Any]]:
        """q², the mean radius, the longitude term V of q², and p' at one latitude."""
        meridian, vertical = (float(radius) + self.height_m for radius in self._radii(lat_deg))
        radius = float(np.sqrt(meridian * vertical))
        p = self._p * np.float32(radius / meridian)
        v = np.maximum(m**2 - np.float32(0.25), 0) * np.float32(
            (radius / (vertical * np.cos(np.radians(lat_deg)))) ** 2
        )
        return p**2 + v, np.float32(radius), v, p

    def _weyl(self, transfer_function: TransferFunction, m: NDArray[Any]) -> NDArray[np.float32]:
        r"""First-order term of the Weyl symbol (imaginary part), at the middle latitude.

        The transfer function f(q) depends on position and on wavenumber, which do not commute. Weyl's symmetric
        ordering is accurate to second order, and differs from "transform, multiply, interpolate between rows" by
        :math:`-\frac{i}{2}\partial_\varphi\partial_p f = -\frac{i}{2} V p' \tan\varphi\,(f''/q^2 - f'/q^3)`.
        """
        middle = float(0.5 * (self.out_lat[0] + self.out_lat[-1]))
        q2, radius, v, p = self._q_squared(middle, m)
        q = np.sqrt(np.maximum(q2, np.float32(1e-6)))
        if isinstance(transfer_function, UpwardContinuation):
            factor = transfer_function.weyl_factor(q, radius)
        else:
            factor = weyl_factor_by_differences(transfer_function, q, radius)
        term = np.float32(-0.5 * np.tan(np.radians(middle))) * v * p * _real32(factor)
        term[q2 == 0] = 0
        return _real32(term)


def weyl_factor_by_differences(
    transfer_function: TransferFunction, q: NDArray[Any], radius_m: Any
) -> NDArray[np.float64]:
    """f''/q² - f'/q³ of any transfer function f by finite differences, in float64 to avoid cancellation."""
    q = q.astype(np.float64)
    delta = 1e-3 * q + 1e-2
    below, at, above = (
        np.asarray(transfer_function(q + shift, np.float64(radius_m))) for shift in (-delta, 0 * delta, delta)
    )
    first, second = (above - below) / (2 * delta), (above - 2 * at + below) / delta**2
    return np.asarray(second / q**2 - first / q**3)


def _real32(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def lagrange_weights(nodes: NDArray[np.float64], at: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """For each node its Lagrange basis polynomial at the points `at`."""
    for j, node in enumerate(nodes):
        weight = np.ones_like(at)
        for i, other in enumerate(nodes):
            if i != j:
                weight *= (at - other) / (node - other)
        yield weight
