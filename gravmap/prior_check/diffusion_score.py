"""How well a map's own outcrop tells what is hidden: covers cut into it, and label diffusion asked what lies below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.area import UNUSABLE
from gravmap.learning.cuts import LEAST_HIDDEN, MOST_HIDDEN, TRIES, moved_cover
from gravmap.learning.diffusion import class_probabilities

CUTS = 4
EVERY = 2
"""Every second cell is taken along both sides: a fifth of the time, and the score of a crust moves by under a point."""

SCORE_VERSION = 1
"""Raised whenever one map gets another score than before."""


def cut_score(labels: NDArray[np.uint8], spacing_yx_km: tuple[float, float], classes: int) -> float | None:
    """Pixel accuracy of label diffusion on outcrop that was hidden, percent.

    The map's cover is mirrored and moved (as in :mod:`gravmap.learning.cuts`), and what it then hides of the outcrop
    is asked for; the labels hidden in several such cuts are pooled. The same map gets the same score.

    Parameters
    ----------
    labels : (ny, nx) uint8
        0 cover, 1..K bedrock, 255 not usable.
    spacing_yx_km : (float, float)
        Of the cells.
    classes : int
        K.

    Returns
    -------
    float or None
        None where the map has no cover, or no place for it that hides a part of the outcrop and leaves another one.
    """
    thin = labels[::EVERY, ::EVERY]
    cover, outcrop = thin == 0, (thin > 0) & (thin != UNUSABLE)
    if not cover.any() or not outcrop.any():
        return None
    drawing = np.random.Generator(np.random.PCG64(0))
    spacing = EVERY * spacing_yx_km[0], EVERY * spacing_yx_km[1]
    right = asked = cuts = 0
    for _ in range(TRIES):
        down, across = (int(drawing.integers(2 * count)) for count in thin.shape)
        hidden = moved_cover(cover, (down, across)) & outcrop
        known = np.where(outcrop & ~hidden, thin, 0).astype(np.uint8)
        if not LEAST_HIDDEN <= hidden.sum() / outcrop.sum() <= MOST_HIDDEN or len(np.unique(known)) < 3:
            continue
        guess = class_probabilities(known, spacing, classes).argmax(axis=0) + 1
        right += int((guess[hidden] == thin[hidden]).sum())
        asked += int(hidden.sum())
        cuts += 1
        if cuts == CUTS:
            break
    return 100 * right / asked if asked else None
