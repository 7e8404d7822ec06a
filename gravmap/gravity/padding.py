"""Beyond the edges of a grid: the best linear prediction of a random field, and its effect inside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.interpolate
import scipy.special
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]

# Nodes from which the field beyond an edge is predicted, counted inwards from the edge.
_PAST = np.array([0, 1, 2, 4, 8, 16])
# Wavenumbers for which weights are computed; those between are interpolated.
_BANDS = 16
# Coarse cells across the width over which the fine padding fades, and beyond the grid for the spline.
_CELLS_PER_FADE = 6
_BEYOND = 3


def pad_periodic(
    values: Floats, pad_yx: tuple[int, int], step_m_yx: tuple[float, float], correlation_m: float
) -> Floats:
    r"""Pad a grid so that it is continuous with its periodic repetition.

    The field is taken as a realisation of a random one with mean zero and covariance :math:`e^{-r/L}` at distance r.
    Its modes of wavenumber :math:`k` along an edge have the covariance

    .. math:: \kappa s\, K_1(\kappa s), \qquad \kappa = \sqrt{k^2 + 1/L^2}

    across the edge (K is the modified Bessel function), and are independent of each other. The padding is the best linear
    prediction of each mode from six of its values inside, at distances up to 16 nodes, times half a cosine that ends in
    the middle of the padding; the other half belongs to the opposite edge.

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
    rows = _append_rows(values, pad_yx[0], step_m_yx[0], step_m_yx[1], correlation_m, periodic=False)
    # The columns are periodic by now, so the modes along their edge are Fourier modes.
    return _append_rows(rows.T, pad_yx[1], step_m_yx[1], step_m_yx[0], correlation_m, periodic=True).T


def fade(distance: NDArray[np.float64], pad: int) -> NDArray[np.float64]:
    """Weight of the padding at a distance from the edge, in nodes: 1 at the edge, 0 from the middle of the padding on."""
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(2 * distance / (pad + 1), 0, 1)))


def _append_rows(
    values: Floats, count: int, step_m: float, step_along_m: float, correlation_m: float, *, periodic: bool
) -> Floats:
    """Append `count` rows that lead from the last row of `values` back to the first."""
    ny, nx = values.shape
    padded = np.zeros((ny + count, nx), dtype=values.dtype)
    padded[:ny] = values
    reach = count // 2
    if reach == 0:
        return padded
    past = _PAST[_PAST < ny]
    known = np.stack([values[ny - 1 - past], values[past]]).astype(np.float64)
    if periodic:
        modes = scipy.fft.rfft(known, axis=2)
        k = 2 * np.pi * np.arange(modes.shape[2]) / (nx * step_along_m)
    else:
        modes = scipy.fft.dct(known, axis=2)
        k = np.pi * np.arange(nx) / (nx * step_along_m)
    kappa = np.hypot(k, 1 / correlation_m)
    bands = np.geomspace(kappa[0], 1.001 * kappa[-1], _BANDS)
    weights = _prediction_weights(bands * step_m, past, reach)
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


def _prediction_weights(kappa: NDArray[np.float64], past: NDArray[np.int_], reach: int) -> NDArray[np.float64]:
    """Weights of the nodes `past` in the prediction 1 to `reach` nodes beyond the edge; kappa per node.

    Returns
    -------
    array, shape (kappa.size, reach, past.size)
    """
    kappa = kappa[:, None, None]
    between = _covariance(kappa * np.abs(past[:, None] - past))
    beyond = _covariance(kappa * (past[:, None] + np.arange(1, reach + 1)))
    return np.asarray(np.swapaxes(np.linalg.solve(between, beyond), 1, 2))


def _covariance(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.maximum(x, 1e-12)
    return np.asarray(x * scipy.special.k1(x))


@dataclass(frozen=True)
class FarField:
    """What lies beyond the fine padding of a grid, on coarse cells that repeat themselves.

    Attributes
    ----------
    values : array
        Block means. Cell (3, 3) is the first of the grid.
    shape : (int, int)
        Number of cells that cover the grid.
    cell_yx : (float, float)
        Size of a cell, nodes of the fine grid.
    """

    values: Floats
    shape: tuple[int, int]
    cell_yx: tuple[float, float]

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Centres of the cells of the grid and of three more on each side, as numbers of nodes of the fine grid."""
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
        How far beyond the grid, metres.
    """
    counts, cells, pads, means, weights = [], [], [], [], []
    for size, total, step in zip(shape, padded.shape, step_m_yx, strict=True):
        pad = total - size
        count = min(max(round(2 * size * _CELLS_PER_FADE / pad), 4) if pad else 64, size)
        cell = size / count
        cells_beyond = scipy.fft.next_fast_len(count + 2 * round(reach_m / (cell * step)), real=True) - count if pad else 0
        first = np.arange(count + cells_beyond)
        first[count + cells_beyond // 2 :] -= first.size
        middle = cell * (first + 0.5)
        distance = np.maximum(np.maximum(-middle, middle - size), 0.0)
        counts.append(count)
        cells.append(cell)
        pads.append(cells_beyond)
        means.append(_block_means(cell * first, cell, total))
        # NaN where the fine grid's repetitions are.
        weights.append(np.where(distance <= pad / 2, fade(distance, pad), np.nan))
    repeated = np.asarray(means[0] @ padded @ means[1].T, dtype=np.float64)
    coarse_step = (cells[0] * step_m_yx[0], cells[1] * step_m_yx[1])
    values = pad_periodic(repeated[: counts[0], : counts[1]], (pads[0], pads[1]), coarse_step, correlation_m)
    weight = weights[0][:, None] * weights[1]
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
