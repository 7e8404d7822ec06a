"""Label diffusion: the probability of each class at every node, from the outcrop around it (random walker).

It is the null model that uses no gravity, and the input of a network with outcrop as context. One Laplace equation per
class, all with one matrix: its multigrid hierarchy (pyamg, Ruge and Stueben) is made once, and all classes are solved
together by preconditioned conjugate gradients.

Why our own: ten classes on 450 x 900 nodes take 0.9 to 1.7 s of CPU here, 1.1 to 3.4 s with scipy's direct solver and
1.7 to 3.9 s with pyamg's own solver class by class (docs/performance.md, benchmarks/diffusion.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import factorized

from gravmap.errors import InputError

GUIDE_STRENGTH = 1.0
"""Edge weight of the guide: a gradient of typical size weakens a link by exp(-1)."""

TOLERANCE = 1e-7
"""Of the residual relative to the right-hand side; probabilities are then accurate to about 1e-5."""

MAX_ITERATIONS = 200
"""Iterations of conjugate gradients (6 to 20 are usual) before a direct factorization is used."""

COARSEST = 300
"""Nodes of the coarsest level, which is solved directly."""

Values = NDArray[np.float64]


def class_probabilities(
    known: NDArray[np.uint8],
    spacing_yx_km: tuple[float, float],
    classes: int,
    guide: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Probability that a random walker from a node first meets each class (Grady 2006).

    Solves one Laplace equation per class with the known nodes fixed at 0 or 1 and no flow through the rim. With a guide
    the walker avoids steep gradients: between neighbours d apart, whose C fields differ by s_c, the weight is ::

        exp(-GUIDE_STRENGTH mean_c (s_c / d)^2 / r_c^2) / d^2

    r_c being the root mean square of s_c / d over all neighbours; without one, with 1 / d^2.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    spacing_yx_km : (float, float)
        Node spacing along latitude and longitude, km.
    classes : int
        K.
    guide : (C, ny, nx) float, optional
        Fields on the same nodes, finite, in any unit.

    Returns
    -------
    (K, ny, nx) float32
        They sum to 1 at every node; known nodes are 1 for their class. A class that is known nowhere is 0 everywhere.
        The same input gives the same bits.

    Raises
    ------
    InputError
        No class is known anywhere.
    ValueError
        A class beyond K is known.

    Examples
    --------
    >>> import numpy as np
    >>> from gravmap.learning.data.label_diffusion import class_probabilities
    >>> known = np.zeros((1, 5), np.uint8)
    >>> known[0, 0], known[0, 4] = 1, 2
    >>> class_probabilities(known, spacing_yx_km=(1.0, 1.0), classes=2)[0].round(2)
    array([[1.  , 0.75, 0.5 , 0.25, 0.  ]], dtype=float32)

    References
    ----------
    Grady 2006, IEEE Trans. Pattern Anal. Mach. Intell. 28, 1768, doi 10.1109/TPAMI.2006.233.
    Ruge and Stueben 1987, in Multigrid Methods (ed. McCormick), doi 10.1137/1.9781611971057.ch4.
    """
    need_outcrop(known)
    if int(known.max()) > classes:
        raise ValueError(f"class {int(known.max())} is known, of {classes}")
    flat = known.ravel()
    seed = flat > 0
    free = ~seed
    found = np.zeros((classes, flat.size), np.float32)
    found[flat[seed].astype(np.intp) - 1, np.flatnonzero(seed)] = 1
    present = np.unique(flat[seed])
    if free.any() and len(present) > 1:
        laplacian = _laplacian(known.shape, spacing_yx_km, guide)
        from_free = laplacian[free]
        sources = np.stack([-(from_free[:, seed] @ (flat[seed] == each).astype(float)) for each in present], axis=1)
        probabilities = np.clip(_solve(from_free[:, free].tocsr(), sources), 0, 1)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        found[np.ix_(present.astype(np.intp) - 1, np.flatnonzero(free))] = probabilities.T
    elif free.any():
        found[int(present[0]) - 1] = 1
    return found.reshape(classes, *known.shape)


def need_outcrop(known: NDArray[np.uint8]) -> None:
    """Check that a map has outcrop.

    Raises
    ------
    InputError
        It has no outcrop.
    """
    if not (known > 0).any():
        raise InputError(
            "No outcrop is known here, so no class can be spread from it.",
            "Check that the map has bedrock in this window (`gravmap rasterize`), and that the split leaves some.",
        )


def _laplacian(shape: tuple[int, ...], spacing_yx_km: tuple[float, float], guide: NDArray[np.floating] | None) -> Any:
    """The graph Laplacian of a grid, each node linked to four neighbours; sparse, (ny * nx, ny * nx)."""
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    joined = [(number[:-1].ravel(), number[1:].ravel()), (number[:, :-1].ravel(), number[:, 1:].ravel())]
    first, second = (np.concatenate(ends) for ends in zip(*joined, strict=True))
    spacing = np.repeat(np.asarray(spacing_yx_km, float), [one.size for one, _ in joined])
    weight = spacing**-2
    if guide is not None:
        fields = guide.reshape(len(guide), -1).astype(np.float64)
        slope = ((fields[:, second] - fields[:, first]) / spacing) ** 2
        typical = slope.mean(axis=1, keepdims=True)
        steep = np.divide(slope, typical, out=np.zeros_like(slope), where=typical > 0).mean(axis=0)
        # Never zero, or an enclosed node would have no solution.
        weight *= np.maximum(np.exp(-GUIDE_STRENGTH * steep), 1e-6)
    both = (np.concatenate([first, second]), np.concatenate([second, first]))
    weights = sparse.coo_matrix((np.concatenate([weight, weight]), both), shape=(number.size, number.size)).tocsr()
    return (sparse.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights).tocsr()


def _solve(matrix: Any, right: Values) -> Values:
    """Solve for every column of (n, m) together: conjugate gradients, preconditioned by one multigrid cycle."""
    precondition = _Multigrid(matrix)
    found, left = np.zeros_like(right), right.copy()
    enough = TOLERANCE * np.linalg.norm(right, axis=0)
    towards = precondition(left)
    step, product = towards, _dots(left, towards)
    for _ in range(MAX_ITERATIONS):
        changed = matrix @ step
        length = _ratio(product, _dots(step, changed))
        found += length * step
        left -= length * changed
        if (np.linalg.norm(left, axis=0) <= enough).all():
            return found
        towards = precondition(left)
        before, product = product, _dots(left, towards)
        step = towards + _ratio(product, before) * step
    direct = factorized(matrix.tocsc())
    return np.stack([direct(column) for column in right.T], axis=1)


def _dots(one: Values, other: Values) -> Values:
    return np.asarray(np.einsum("ij,ij->j", one, other))


def _ratio(one: Values, other: Values) -> Values:
    return np.divide(one, other, out=np.zeros_like(one), where=other > 0)


class _Multigrid:
    """One symmetric V-cycle from zero for many right-hand sides, in single precision: it only preconditions."""

    def __init__(self, matrix: Any) -> None:
        import pyamg  # here: training without context needs no pyamg

        *levels, coarsest = pyamg.ruge_stuben_solver(matrix, max_coarse=COARSEST).levels
        self._levels = []
        for level in levels:
            here = level.A.tocsr()
            diagonal = here.diagonal()
            # Jacobi's spectral radius is at most this: damped by 4/3 of its inverse it smooths, whatever the weights.
            radius = float((np.asarray(abs(here).sum(axis=1)).ravel() / diagonal).max())
            damped = (4 / 3 / radius / diagonal).astype(np.float32)[:, None]
            up = level.P.tocsr().astype(np.float32)
            self._levels.append((here.astype(np.float32), damped, up, up.T.tocsr()))
        self._coarsest = np.linalg.pinv(coarsest.A.toarray(), hermitian=True).astype(np.float32)

    def __call__(self, right: Values) -> Values:
        return self._cycle(0, right.astype(np.float32)).astype(np.float64)

    def _cycle(self, depth: int, right: NDArray[np.float32]) -> NDArray[np.float32]:
        if depth == len(self._levels):
            return np.asarray(self._coarsest @ right)
        matrix, damped, up, down = self._levels[depth]
        found: NDArray[np.float32] = damped * right
        found += up @ self._cycle(depth + 1, down @ (right - matrix @ found))
        found += damped * (right - matrix @ found)
        return found
