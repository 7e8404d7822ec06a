"""Fill holes of a grid before a transform; the transform's result gets the holes back.

Small holes get the smoothest surface with the value and slope of their rim (biharmonic equation), large ones the
tightest (Laplace's equation): across a wide hole the biharmonic surface overshoots.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from gravmap.errors import InputError

# Above this many cells a hole is filled by Laplace's equation. The direct solver's memory would allow more; the
# overshoot would not.
BIHARMONIC_CELLS = 20_000


def fill_gaps(values: NDArray[Any]) -> NDArray[np.float32]:
    """Replace NaN by a smooth surface that fits what is around.

    Parameters
    ----------
    values : array, shape (ny, nx)
        A grid with NaN.

    Returns
    -------
    array, float32
        The known values untouched, every NaN filled.

    Raises
    ------
    InputError
        Nothing is known.
    """
    holes = np.isnan(values)
    filled = np.array(values, dtype=np.float32)
    if not holes.any():
        return filled
    if holes.all():
        raise InputError("The grid holds no value at all: every node is NaN.", "Choose another grid or another region.")
    # Bodies that touch within two cells share equations and must be solved together.
    reach = scipy.ndimage.binary_dilation(holes, iterations=2, structure=np.ones((3, 3)))
    bodies, _ = scipy.ndimage.label(reach, structure=np.ones((3, 3)))
    for number, box in enumerate(scipy.ndimage.find_objects(bodies), start=1):
        unknown = holes[box] & (bodies[box] == number)
        known = filled[box]
        order = 2 if unknown.sum() <= BIHARMONIC_CELLS else 1
        known[unknown] = _solve(np.where(unknown, 0, known).astype(np.float64), unknown, order)
    return filled


def _solve(known: NDArray[np.float64], unknown: NDArray[np.bool_], order: int) -> NDArray[np.float64]:
    """Values at `unknown` that make the Laplacian (order 1) or its square (order 2) vanish there.

    The rows of the Laplacian miss neighbours outside the box, which is a free edge: the surface ends level there.
    """
    ny, nx = known.shape
    laplacian = scipy.sparse.kronsum(_second_difference(nx), _second_difference(ny), format="csr")
    inside = np.flatnonzero(unknown)
    # Order 2 is the minimum of the summed squared Laplacian over all cells whose stencil touches a hole.
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
    """The second difference on a line of n nodes with free ends."""
    main = np.full(n, -2.0)
    main[[0, -1]] = -1.0 if n > 1 else 0.0
    return scipy.sparse.diags([np.ones(n - 1), main, np.ones(n - 1)], [-1, 0, 1], format="csr")
