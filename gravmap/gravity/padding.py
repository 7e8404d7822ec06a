"""Beyond the edges of a grid: the best linear prediction of a random field, and its effect inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.interpolate
import scipy.ndimage
import scipy.special
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]

# Nodes from which the field beyond an edge is predicted, counted inwards from the edge.
_PAST = np.array([0, 1, 2, 4, 8, 16])
# Smoothnesses that a field can have, and the factor of its correlation length: of smooth fields the longest waves are
# by far the strongest, and reach farther. Smoothing lengths, in nodes.
_SMOOTHNESS = {0.0: 1.0, 0.5: 1.0, 1.0: 3.0}
_SMOOTHING_NODES = np.geomspace(0.05, 12, 60)
# The variogram is measured along at most about so many lines in each direction.
_VARIOGRAM_LINES = 64
# Wavenumbers for which weights are computed; those between are interpolated.
_BANDS = 16
# Coarse cells across the width over which the fine padding fades, and beyond the grid for the spline.
_CELLS_PER_FADE = 6
_BEYOND = 2
# At most this many coarse cells beyond the grid on each side: those of a fine grid are small.
_MOST_CELLS = 160
# Standard deviation of the Gaussian that smooths the repetitions on coarse cells.
_SMOOTHING_CELLS = 1.5


def _matern(order: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """x^order K_order(x), K being the modified Bessel function; less a constant factor."""
    x = np.maximum(x, 1e-12)
    if order == 0:
        return np.asarray(scipy.special.k0(x))
    if order == 1:
        return np.asarray(x * scipy.special.k1(x))
    return np.asarray(np.exp(-x) if order == 0.5 else (1 + x) * np.exp(-x))


@dataclass(frozen=True)
class Covariance:
    r"""Covariance of a random field with mean zero, but for a factor.

    .. math:: C(r) = (u/L)^\nu K_\nu(u/L), \qquad u^2 = r^2 + c^2

    at distance r (Matérn's, smoothed). The power per area of the wavenumber plane falls as
    :math:`k^{-2\nu-2}`, degree variances as :math:`n^{-2\nu-1}`.

    Attributes
    ----------
    smoothness : float
        :math:`\nu`: 0, 0.5 or 1.
    smoothing_m : float
        :math:`c`, metres.
    length_m : float
        :math:`L`, metres.

    References
    ----------
    Stein (1999), Interpolation of Spatial Data, Springer, sections 1.2, 2.7 and 2.10.
    """

    smoothness: float
    smoothing_m: float
    length_m: float

    def of_modes(self, kappa: NDArray[np.float64], distance_m: NDArray[Any]) -> NDArray[np.float64]:
        """The covariance across an edge of the modes of wavenumber k along it; kappa² = k² + 1/L²."""
        return _matern(self.smoothness + 0.5, kappa * np.hypot(distance_m, self.smoothing_m))


def fit_covariance(values: Floats, step_m_yx: tuple[float, float], correlation_m: float) -> Covariance:
    """The covariance whose variogram is most like that of a grid.

    Parameters
    ----------
    values, step_m_yx
        As for :func:`pad_periodic`.
    correlation_m : float
        Correlation length, metres; that of a smooth field (smoothness 1) is three times as long.
    """
    lags: list[float] = []
    variogram: list[float] = []
    for lines, step in zip((values.T, values), step_m_yx, strict=True):
        thin = np.ascontiguousarray(lines[:: max(1, len(lines) // _VARIOGRAM_LINES)], dtype=np.float32)
        for nodes in 2 ** np.arange(int(np.log2(max(thin.shape[1] / 4, 1))) + 1):
            if nodes < thin.shape[1]:
                difference = (thin[:, nodes:] - thin[:, :-nodes]).ravel()
                lags.append(nodes * step)
                variogram.append(float(difference @ difference) / difference.size)
    if len(lags) < 4 or min(variogram) <= 0:
        return Covariance(0.5, 0.0, correlation_m)
    lag, measured = np.array(lags), np.log(variogram)
    # The longer the lag, the fewer independent pairs.
    weight = 1 / lag / np.sum(1 / lag)
    smoothing_m = _SMOOTHING_NODES * min(step_m_yx)
    c, best = smoothing_m[:, None], np.inf
    for smoothness, factor in _SMOOTHNESS.items():
        length = factor * correlation_m
        model = _matern(smoothness, c / length) - _matern(smoothness, np.hypot(lag, c) / length)
        misfit = measured - np.log(model)
        misfit = np.square(misfit - (misfit @ weight)[:, None]) @ weight
        if misfit.min() < best:
            best = misfit.min()
            chosen = Covariance(smoothness, float(smoothing_m[misfit.argmin()]), length)
    return chosen


def pad_periodic(
    values: Floats, pad_yx: tuple[int, int], step_m_yx: tuple[float, float], covariance: Covariance
) -> Floats:
    """Pad a grid so that it is continuous with its periodic repetition.

    The modes of a random field along an edge are independent of each other. The padding is the best linear prediction
    of each from six of its values inside, up to 16 nodes from the edge, times half a cosine that ends in the middle of
    the padding; the other half belongs to the opposite edge.

    Parameters
    ----------
    values : array, shape (ny, nx)
        The grid, rows and columns evenly spaced, without NaN.
    pad_yx : (int, int)
        Number of rows and columns to append, after the last row and the last column.
    step_m_yx : (float, float)
        Spacing of rows and of columns, metres.
    covariance : Covariance
        Of the field.

    Returns
    -------
    array, shape (ny + pad_yx[0], nx + pad_yx[1])
        Of the dtype of `values`; the first ny x nx values are `values`.
    """
    rows = _append_rows(values, pad_yx[0], step_m_yx, covariance, periodic=False)
    # The columns are periodic by now, so the modes along their edge are Fourier modes.
    return _append_rows(rows.T, pad_yx[1], step_m_yx[::-1], covariance, periodic=True).T


def fade(distance: NDArray[np.float64], pad: int) -> NDArray[np.float64]:
    """Weight of the padding at a distance from the edge, in nodes: 1 at the edge, 0 from its middle on."""
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(2 * distance / (pad + 1), 0, 1)))


def _append_rows(
    values: Floats,
    count: int,
    step_m: tuple[float, float],
    covariance: Covariance,
    *,
    periodic: bool,
) -> Floats:
    """Append `count` rows that lead from the last row of `values` back to the first."""
    ny, nx = values.shape
    padded = np.zeros((ny + count, nx), dtype=values.dtype)
    padded[:ny] = values
    reach = count // 2
    if reach == 0:
        return padded
    past = _PAST[ny > _PAST]
    known = np.stack([values[ny - 1 - past], values[past]]).astype(np.float64)
    if periodic:
        modes = scipy.fft.rfft(known, axis=2)
        k = 2 * np.pi * np.arange(modes.shape[2]) / (nx * step_m[1])
    else:
        modes = scipy.fft.dct(known, axis=2)
        k = np.pi * np.arange(nx) / (nx * step_m[1])
    kappa = np.hypot(k, 1 / covariance.length_m)
    bands = np.geomspace(kappa[0], 1.001 * kappa[-1], _BANDS)
    weights = _prediction_weights(covariance, bands, past, reach, step_m[0])
    place = np.log(kappa / bands[0]) / np.log(bands[1] / bands[0])
    predicted = np.zeros((2, reach, modes.shape[2]), dtype=modes.dtype)
    for band in range(_BANDS - 1):
        own = slice(*np.searchsorted(place, [band, band + 1]))
        part = place[own] - band
        predicted[:, :, own] = (1 - part) * (weights[band] @ modes[:, :, own])
        predicted[:, :, own] += part * (weights[band + 1] @ modes[:, :, own])
    predicted *= fade(np.arange(1.0, reach + 1), count)[:, None]
    rows = scipy.fft.irfft(predicted, n=nx, axis=2) if periodic else scipy.fft.idct(predicted, axis=2)
    padded[ny : ny + reach] = rows[0]
    padded[ny + count - reach :] = rows[1, ::-1]
    return padded


def _prediction_weights(
    covariance: Covariance, kappa: NDArray[np.float64], past: NDArray[np.int_], reach: int, step_m: float
) -> NDArray[np.float64]:
    """Weights of the nodes `past` in the prediction of modes 1 to `reach` nodes beyond the edge.

    Returns
    -------
    array, shape (kappa.size, reach, past.size)
    """
    kappa = kappa[:, None, None]
    between = covariance.of_modes(kappa, step_m * (past[:, None] - past))
    # Somewhat more noise than float32 has, so that the matrix of a smooth field can be solved.
    between += 1e-7 * between[:, :1, :1] * np.eye(past.size)
    beyond = covariance.of_modes(kappa, step_m * (past[:, None] + np.arange(1, reach + 1)))
    return np.asarray(np.swapaxes(np.linalg.solve(between, beyond), 1, 2))


@dataclass(frozen=True)
class FarField:
    """What lies beyond the fine padding of a grid, on coarse cells that repeat themselves.

    Attributes
    ----------
    values : array
        Block means. Cell (2, 2) is the first of the grid.
    shape : (int, int)
        Number of cells that cover the grid.
    cell_yx : (float, float)
        Size of a cell, nodes of the fine grid.
    """

    values: Floats
    shape: tuple[int, int]
    cell_yx: tuple[float, float]

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Centres of the cells of the grid and of two more on each side, as numbers of nodes of the fine grid."""
        return np.asarray(self.cell_yx[axis] * (np.arange(self.shape[axis] + 2 * _BEYOND) - _BEYOND + 0.5) - 0.5)

    def at_nodes(self, cells: Floats, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Values on the cells of `centres`, in both axes, interpolated by cubic splines to nodes of the fine grid."""
        down, right = (
            scipy.interpolate.CubicSpline(self.centres(axis), np.eye(self.centres(axis).size))(
                np.arange(nodes.start, nodes.stop)
            ).astype(np.float32)
            for axis, nodes in enumerate((rows, columns))
        )
        return np.asarray(down @ cells @ right.T)


def far_field(
    padded: Floats, shape: tuple[int, int], step_m_yx: tuple[float, float], covariance: Covariance, reach_m: float
) -> FarField:
    """Predict the field beyond the padding of a grid, from its block means.

    A Fourier transform of the padded grid repeats it beyond the padding. The result is the prediction less these
    repetitions, so that the continuation of both adds up to that of the predicted field.

    Parameters
    ----------
    padded : array
        What :func:`pad_periodic` returned; an axis without padding is periodic.
    shape : (int, int)
        Rows and columns of the grid in it.
    step_m_yx, covariance
        As for :func:`pad_periodic`.
    reach_m : float
        How far beyond the grid, metres; at most 160 cells.
    """
    counts: list[int] = []
    cells: list[float] = []
    pads: list[int] = []
    means: list[NDArray[Any]] = []
    weights: list[NDArray[np.float64]] = []
    for size, total, step in zip(shape, padded.shape, step_m_yx, strict=True):
        pad = total - size
        count = min(max(round(2 * size * _CELLS_PER_FADE / pad), 4) if pad else 64, size)
        cell = size / count
        reach = min(round(reach_m / (cell * step)), _MOST_CELLS)
        cells_beyond = scipy.fft.next_fast_len(count + 2 * reach, real=True) - count if pad else 0
        first = np.arange(count + cells_beyond)
        first[count + cells_beyond // 2 :] -= first.size
        middle = cell * (first + 0.5)
        distance = np.maximum(np.maximum(-middle, middle - size), 0.0)
        counts.append(count)
        cells.append(cell)
        pads.append(cells_beyond)
        means.append(_block_means(cell * first, cell, total).astype(padded.dtype))
        # NaN where the fine grid's repetitions are.
        weights.append(np.where(distance <= pad / 2, fade(distance, pad), np.nan))
    repeated = np.asarray(means[0] @ padded @ means[1].T, dtype=np.float64)
    coarse_step = (cells[0] * step_m_yx[0], cells[1] * step_m_yx[1])
    values = pad_periodic(repeated[: counts[0], : counts[1]], (pads[0], pads[1]), coarse_step, covariance)
    weight = weights[0][:, None] * weights[1]
    # A filter would spread what the cells do not resolve over all of them.
    repeated = scipy.ndimage.gaussian_filter(repeated, _SMOOTHING_CELLS, mode="wrap")
    values -= np.where(np.isnan(weight), repeated, weight * values)
    values = np.roll(values, _BEYOND, axis=(0, 1)).astype(np.float32)
    return FarField(values, (counts[0], counts[1]), (cells[0], cells[1]))


def _block_means(starts: NDArray[np.float64], cell: float, period: int) -> NDArray[np.float64]:
    """Matrix of the means over intervals of an axis of `period` nodes, repeated; nodes are one wide, from 0 to 1 on."""
    edges = np.stack([starts, starts + cell], axis=1)[:, :, None]
    turns = np.floor(edges / period)
    # Length of [0, edge) that lies in each node and its repetitions.
    lengths = turns + np.clip(edges - turns * period - np.arange(period), 0, 1)
    return np.asarray((lengths[:, 1] - lengths[:, 0]) / cell)
