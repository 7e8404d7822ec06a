"""How likely a random walker from each node is to meet each class first: labels spread out from the outcrop.

The null model that uses no gravity, and where a network that takes outcrop as context starts from. One Laplace
equation per class, all with one matrix: its multigrid hierarchy (pyamg, Ruge and Stueben) is made once, and every class
is solved at the same time by conjugate gradients that it preconditions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import factorized

from gravmap.errors import InputError

GUIDE_STRENGTH = 1.0
"""How much label diffusion shuns steps of the fields that guide it: a typical step weakens a link by exp(-1)."""

TOLERANCE = 1e-7
"""Of the residual, as a share of the right side; probabilities are then right to about 1e-5."""

MOST_ROUNDS = 200
"""Rounds of conjugate gradients (6 to 20 are usual) before a direct factorisation takes over."""

COARSEST = 300
"""Nodes of the coarsest level, which is solved directly."""

Values = NDArray[np.float64]


def class_probabilities(
    known: NDArray[np.uint8],
    spacing_yx_km: tuple[float, float],
    classes: int,
    guide: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """The chance of each class to be the first that a random walker from a node meets (Grady 2006).

    Solves one Laplace equation per class with the known nodes held at 0 or 1 and no flow through the rim. With a guide
    the walker shuns steep ground: between neighbours d apart, whose C fields differ by s_c, it passes with weight ::

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
        Fields on the same nodes, finite; in whatever units.

    Returns
    -------
    (K, ny, nx) float32
        At every node they sum to 1; known nodes are 1 for their class. A class that is nowhere known is 0 everywhere.
        The same input gives the same bits.

    Raises
    ------
    InputError
        Nothing is known.
    ValueError
        A class beyond K is known.

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
        chances = np.clip(_solve(from_free[:, free].tocsr(), sources), 0, 1)
        chances /= chances.sum(axis=1, keepdims=True)
        found[np.ix_(present.astype(np.intp) - 1, np.flatnonzero(free))] = chances.T
    elif free.any():
        found[int(present[0]) - 1] = 1
    return found.reshape(classes, *known.shape)


def need_outcrop(known: NDArray[np.uint8]) -> None:
    """Refuse a map on which nothing is known.

    Raises
    ------
    InputError
        It has no outcrop.
    """
    if not (known > 0).any():
        raise InputError(
            "No outcrop is known here: there is nothing to start from.",
            "Check that the map has bedrock in this window (`gravmap rasterize`), and what the split leaves of it.",
        )


def _laplacian(shape: tuple[int, ...], spacing_yx_km: tuple[float, float], guide: NDArray[np.floating] | None) -> Any:
    """The graph Laplacian of a grid, each node joined to four neighbours; sparse, (ny * nx, ny * nx)."""
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
        # Never quite closed, or a ringed node would belong to nobody.
        weight *= np.maximum(np.exp(-GUIDE_STRENGTH * steep), 1e-6)
    both = (np.concatenate([first, second]), np.concatenate([second, first]))
    weights = sparse.coo_matrix((np.concatenate([weight, weight]), both), shape=(number.size, number.size)).tocsr()
    return (sparse.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights).tocsr()


def _solve(matrix: Any, right: Values) -> Values:
    """Solve for every column of (n, m) at once: conjugate gradients, preconditioned by one cycle of multigrid."""
    precondition = _Multigrid(matrix)
    found, left = np.zeros_like(right), right.copy()
    enough = TOLERANCE * np.linalg.norm(right, axis=0)
    towards = precondition(left)
    step, product = towards, _dots(left, towards)
    for _ in range(MOST_ROUNDS):
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
    """One symmetric V-cycle from zero, for many right sides at once, in single precision: it only preconditions."""

    def __init__(self, matrix: Any) -> None:
        import pyamg  # here: a bare PyTorch machine measures steps without it

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
