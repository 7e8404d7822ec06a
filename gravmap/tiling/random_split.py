"""The paper's split: 15 % of the windows at random, and the measure of how much of their ground is learned from too.

Liu et al. 2024 score on windows drawn at random from overlapping ones; nearly all of their ground lies in other
windows as well. It is kept for comparison; :mod:`gravmap.tiling.blocks` is the split that does not leak.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.tiling.roles import IGNORED, TEST, TRAIN

RANDOM_SHARE = 0.15
# Windows with less bedrock than this are set apart, as the paper's 61 of 536 were.
EFFECTIVE_OUTCROP = 0.10


def split_random(
    outcrop_share: NDArray[np.float64], *, seed: int = 0, fold: int = 0, share: float = RANDOM_SHARE
) -> NDArray[np.uint8]:
    """The paper's split: a random share of the windows with enough bedrock.

    Parameters
    ----------
    outcrop_share : ndarray, shape (n,), float
        Bedrock share of each window; windows under 10 % are set apart, neither learned from nor scored.
    seed, fold : int
        Together they name the draw.
    share : float
        Share of the effective windows to score on.

    Returns
    -------
    ndarray, shape (n,), uint8
        0 train, 2 test, 3 set apart.
    """
    roles = np.full(len(outcrop_share), IGNORED, dtype=np.uint8)
    effective = np.flatnonzero(outcrop_share >= EFFECTIVE_OUTCROP)
    roles[effective] = TRAIN
    held = np.random.default_rng([seed, fold]).permutation(effective)[: round(share * len(effective))]
    roles[held] = TEST
    return roles


def leaked_share(held_wsen: NDArray[np.float64], learned_wsen: NDArray[np.float64]) -> float:
    """Share of the held-out windows' ground that windows learned from cover too.

    Parameters
    ----------
    held_wsen, learned_wsen : ndarray, shape (n, 4), float64
        West, south, east, north of the windows, degrees.

    Returns
    -------
    float
        0 to 1, by area on the ellipsoid, each piece of ground counted once; 0 when nothing is held out.
    """
    if len(held_wsen) == 0:
        return 0.0
    both = np.concatenate([held_wsen, learned_wsen]).round(9)
    lon, lat = np.unique(both[:, [0, 2]]), np.unique(both[:, [1, 3]])
    held, learned = (_covered(boxes.round(9), lon, lat) for boxes in (held_wsen, learned_wsen))
    zones = np.array([row_cell_areas_km2(south, north, 1, 1.0)[0] for south, north in pairwise(lat)])
    area = zones[:, None] * np.diff(lon)
    return float(area[held & learned].sum() / area[held].sum())


def _covered(boxes: NDArray[np.float64], lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which patches between all the boxes' edges lie in one of them."""
    covered = np.zeros((len(lat) - 1, len(lon) - 1), dtype=bool)
    for west, south, east, north in boxes:
        rows, columns = np.searchsorted(lat, (south, north)), np.searchsorted(lon, (west, east))
        covered[rows[0] : rows[1], columns[0] : columns[1]] = True
    return covered
