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
# Largest smoothing length, in nodes: beyond it the variogram does not tell, and the prediction would be unstable.
_SMOOTHEST = 8.0
# Wavenumbers for which weights are computed; those between are interpolated.
_BANDS = 16
# Coarse cells across the width over which the fine padding fades, and beyond the grid for the spline.
_CELLS_PER_FADE = 8
_BEYOND = 2
# At most this many coarse cells beyond the grid on each side: those of a fine grid are small.
_MOST_CELLS = 160
# Standard deviation of the Gaussian that smooths the repetitions on coarse cells.
_SMOOTHING_CELLS = 1.5


def pad_periodic(
    values: Floats, pad_yx: tuple[int, int], step_m_yx: tuple[float, float], correlation_m: float
) -> Floats:
    r"""Pad a grid so that it is continuous with its periodic repetition.

    The field is taken as a realisation of a random one with mean zero and covariance :math:`e^{-\sqrt{r^2 + c^2}/L}` at
    distance r. Its modes of wavenumber :math:`k` along an edge are independent of each other, and across the edge have
    the covariance

    .. math:: \kappa u K_1(\kappa u), \qquad \kappa^2 = k^2 + 1/L^2, \quad u^2 = s^2 + c^2

    (K is the modified Bessel function). The smoothing length :math:`c` is that with which the variogram of the grid
    grows from one to two nodes as the model's does. The padding is the best linear prediction of each mode from six of
    its values inside, up to 16 nodes from the edge, times half a cosine that ends in the middle of the padding; the
    other half belongs to the opposite edge.

    Parameters
    ----------
    values : array, shape (ny, nx)
        The grid, rows and columns evenly spaced, without NaN.
    pad_yx : (int, int)
        Number of rows and columns to append, after the last row and the last column.
    step_m_yx : (float, float)
        Spacing of rows and of columns, metres.
    correlation_m : float
        :math:`L`, metres.

    Returns
    -------
    array, shape (ny + pad_yx[0], nx + pad_yx[1])
        Of the dtype of `values`; the first ny x nx values are `values`.

    References
    ----------
    Stein (1999), Interpolation of Spatial Data, Springer, sections 1.2 and 2.7.
    """
    smoothing = [_smoothing_nodes(values), _smoothing_nodes(values.T)]
    rows = _append_rows(values, pad_yx[0], step_m_yx, correlation_m, smoothing[0], periodic=False)
    # The columns are periodic by now, so the modes along their edge are Fourier modes.
    return _append_rows(rows.T, pad_yx[1], step_m_yx[::-1], correlation_m, smoothing[1], periodic=True).T


def _smoothing_nodes(values: Floats) -> float:
    """The smoothing length of a field down its columns, in nodes."""
    if len(values) < 3:
        return 0.0
    one, two = (float(np.mean(np.square(values[n:] - values[:-n], dtype=np.float64))) for n in (1, 2))
    c = np.linspace(0, _SMOOTHEST, 200)
    # Ratio of the variogram at two nodes to that at one, L being much longer: 2 for c = 0, 4 for a smooth field.
    ratio = (np.sqrt(4 + c**2) - c) / (np.sqrt(1 + c**2) - c)
    return float(np.interp(two / one, ratio, c)) if one > 0 else 0.0


def fade(distance: NDArray[np.float64], pad: int) -> NDArray[np.float64]:
    """Weight of the padding at a distance from the edge, in nodes: 1 at the edge, 0 from its middle on."""
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(2 * distance / (pad + 1), 0, 1)))


def _append_rows(
    values: Floats,
    count: int,
    step_m: tuple[float, float],
    correlation_m: float,
    smoothing: float,
    *,
    periodic: bool,
) -> Floats:
    """Append `count` rows that lead from the last row of `values` back to the first; `smoothing` is in nodes."""
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
    kappa = np.hypot(k, 1 / correlation_m)
    bands = np.geomspace(kappa[0], 1.001 * kappa[-1], _BANDS)
    weights = _prediction_weights(bands * step_m[0], past, reach, smoothing)
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
    kappa: NDArray[np.float64], past: NDArray[np.int_], reach: int, smoothing: float
) -> NDArray[np.float64]:
    """Weights of the nodes `past` in the prediction 1 to `reach` nodes beyond the edge; kappa per node.

    Returns
    -------
    array, shape (kappa.size, reach, past.size)
    """

    def covariance(distance: NDArray[np.int_]) -> NDArray[np.float64]:
        x = np.maximum(kappa[:, None, None] * np.hypot(distance, smoothing), 1e-12)
        return np.asarray(x * scipy.special.k1(x))

    between = covariance(past[:, None] - past)
    # As much noise as float32 has, so that the matrix of a smooth field can be solved.
    between += 1e-9 * between[:, :1, :1] * np.eye(past.size)
    beyond = covariance(past[:, None] + np.arange(1, reach + 1))
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
    padded: Floats, shape: tuple[int, int], step_m_yx: tuple[float, float], correlation_m: float, reach_m: float
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
    step_m_yx, correlation_m
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
    values = pad_periodic(repeated[: counts[0], : counts[1]], (pads[0], pads[1]), coarse_step, correlation_m)
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
