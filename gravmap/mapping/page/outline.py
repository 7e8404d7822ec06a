"""The border of a set of cells: every side where it begins or ends, in as few straight pieces as there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def border(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sides between cells inside and outside a mask; the rim of the raster is no border.

    Parameters
    ----------
    mask : (ny, nx) bool
        The cells.

    Returns
    -------
    level : (n, 3) int64
        Horizontal pieces: line between rows (k lies above row k), first and last line between columns.
    upright : (m, 3) int64
        Vertical pieces: line between columns, first and last line between rows.
    """
    level = _runs(mask[1:] ^ mask[:-1])
    upright = _runs((mask[:, 1:] ^ mask[:, :-1]).T)
    return level, upright


def _runs(sides: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Runs of True in each row: (row + 1, first, one past the last)."""
    padded = np.zeros((sides.shape[0], sides.shape[1] + 2), np.int8)
    padded[:, 1:-1] = sides
    change = np.diff(padded, axis=1)
    row, first = np.nonzero(change == 1)
    _, last = np.nonzero(change == -1)
    return np.stack([row + 1, first, last], axis=1).astype(np.int64)
