"""Filling gaps (NaN) of a grid before a transform.

Small gaps are filled with the solution of the biharmonic equation, which matches value and slope at the rim; large
ones with that of Laplace's equation, because across a wide gap the biharmonic surface overshoots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from gravmap.errors import InputError

# Gaps of more cells than this are filled by Laplace's equation. The limit is set by the overshoot, not by the memory of
# the direct solver.
BIHARMONIC_CELLS = 20_000


def fill_gaps(values: NDArray[Any]) -> NDArray[np.float32]:
    """Replace NaN by a smooth surface that continues the values around them.

    Parameters
    ----------
    values : array, shape (ny, nx)
        A grid, NaN in gaps.

    Returns
    -------
    array, float32
        Known values unchanged.

    Raises
    ------
    InputError
        Every value is NaN.
    """
    missing = np.isnan(values)
    filled = np.array(values, dtype=np.float32)
    if not missing.any():
        return filled
    if missing.all():
        raise InputError("The grid has no values: every node is NaN.", "Choose another grid or another region.")
    # Gaps within two cells of each other share equations and are solved together.
    dilated = scipy.ndimage.binary_dilation(missing, iterations=2, structure=np.ones((3, 3)))
    groups, _ = scipy.ndimage.label(dilated, structure=np.ones((3, 3)))
    for number, box in enumerate(scipy.ndimage.find_objects(groups), start=1):
        unknown = missing[box] & (groups[box] == number)
        known = filled[box]
        order = 2 if unknown.sum() <= BIHARMONIC_CELLS else 1
        known[unknown] = _solve(np.where(unknown, 0, known).astype(np.float64), unknown, order)
    return filled


def _solve(known: NDArray[np.float64], unknown: NDArray[np.bool_], order: int) -> NDArray[np.float64]:
    """Values at `unknown` that make the Laplacian (order 1) or its square (order 2) vanish there.

    The Laplacian has no neighbours outside the box: a free edge with zero normal derivative.
    """
    ny, nx = known.shape
    laplacian = scipy.sparse.kronsum(_second_difference(nx), _second_difference(ny), format="csr")
    inside = np.flatnonzero(unknown)
    # Order 2 minimises the sum of the squared Laplacian over all cells whose stencil touches a gap.
    operator = laplacian.T @ laplacian if order == 2 else -laplacian
    rows = operator[inside]
    outside = np.flatnonzero(~unknown)
    right = -(rows[:, outside] @ known.ravel()[outside])
    matrix = rows[:, inside].tocsc()
    solved: NDArray[np.float64]
    if inside.size > 200_000:
        diagonal = scipy.sparse.diags(1 / matrix.diagonal())
        solved, _ = scipy.sparse.linalg.cg(matrix, right, rtol=1e-6, maxiter=2000, M=diagonal)
    else:
        solved = scipy.sparse.linalg.spsolve(matrix, right)
    return solved


def _second_difference(n: int) -> Any:
    """Second-difference matrix of a line of n nodes with free ends."""
    main = np.full(n, -2.0)
    main[[0, -1]] = -1.0 if n > 1 else 0.0
    return scipy.sparse.diags([np.ones(n - 1), main, np.ones(n - 1)], [-1, 0, 1], format="csr")
