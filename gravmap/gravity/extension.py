"""Extension of a grid beyond its edges, so that a Fourier transform sees no step where it wraps around.

Every mode along an edge is carried outwards as a plane elastic sheet would carry it: long modes reach far,
short ones die at once. This is the biharmonic continuation of the edge's value and slope.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]


def extend(values: Floats, gap_yx: tuple[int, int], step_m_yx: tuple[float, float], decay_m: float) -> Floats:
    r"""Fill the gap between the last row and the first, and between the last column and the first.

    For a mode of wavenumber :math:`k` along the edge with value :math:`a` and outward slope :math:`b`, the value
    at distance :math:`s` is

    .. math:: (a + (k' a + b)\, s)\, e^{-k' s}\, w(s), \qquad k' = \sqrt{k^2 + 1/L_0^2},

    the decaying solution of the biharmonic equation, damped with the length :math:`L_0`; :math:`w` is half a
    cosine from 1 to 0 over the gap. Opposite edges meet across the wrap and their parts add up.

    Parameters
    ----------
    values : array, shape (ny, nx)
        The grid, rows and columns evenly spaced, no NaN.
    gap_yx : (int, int)
        How many rows and columns to add; rows follow the last row, columns the last column.
    step_m_yx : (float, float)
        Metres from row to row and from column to column.
    decay_m : float
        :math:`L_0`, metres: how far the longest modes reach.

    Returns
    -------
    array, shape (ny + gap_yx[0], nx + gap_yx[1])
        Of the dtype of `values`; the first ny x nx values are `values`.
    """
    rows = _fill_gap(values, gap_yx[0], step_m_yx[0], step_m_yx[1], decay_m, periodic=False)
    # The columns run around the whole padded height by now, so their edge is periodic.
    return _fill_gap(rows.T, gap_yx[1], step_m_yx[1], step_m_yx[0], decay_m, periodic=True).T


def _fill_gap(
    values: Floats, gap: int, step_m: float, step_along_m: float, decay_m: float, *, periodic: bool
) -> Floats:
    """Append `gap` rows that lead from the last row of `values` back to the first."""
    ny, nx = values.shape
    padded = np.empty((ny + gap, nx), dtype=values.dtype)
    padded[:ny] = values
    if gap == 0:
        return padded
    far = min(1, ny - 1)
    edges = np.stack([values[-1], values[0]])
    slopes = (edges - np.stack([values[-1 - far], values[far]])) / step_m
    edges, slopes = edges.astype(np.float64), slopes.astype(np.float64)
    if periodic:
        a, b = scipy.fft.rfft(edges, axis=1), scipy.fft.rfft(slopes, axis=1)
        k = 2 * np.pi * np.arange(a.shape[1]) / (nx * step_along_m)
    else:
        a, b = scipy.fft.dct(edges, axis=1), scipy.fft.dct(slopes, axis=1)
        k = np.pi * np.arange(nx) / (nx * step_along_m)
    k = np.hypot(k, 1 / decay_m)
    steps = np.arange(1, gap + 1)[:, None]
    s = steps * step_m
    decay = np.exp(-k * s) * (0.5 + 0.5 * np.cos(np.pi * steps / (gap + 1)))
    lead = decay * (a[0] + (k * a[0] + b[0]) * s)
    lead += (decay * (a[1] + (k * a[1] + b[1]) * s))[::-1]
    padded[ny:] = scipy.fft.irfft(lead, n=nx, axis=1) if periodic else scipy.fft.idct(lead, axis=1)
    return padded
