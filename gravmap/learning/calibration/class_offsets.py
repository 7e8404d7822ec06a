"""Which class a map shows, given the chances of all: the likeliest, or one that spares rare classes.

The likeliest class is right most often, and hardly ever a rare one: a class of 1 % of the ground is shown nowhere. One
number per class, added to the logs of the calibrated chances before the largest is taken, can change that. The numbers
are fitted on tuning crusts; the chances themselves stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = (0.3, 0.15, 0.08)
"""One number at a time is moved by these, ever smaller, as long as that helps."""

ROUNDS = 2
MOST_NODES = 300_000
"""Of more nodes evenly spread ones are taken."""

LEAST_GAIN = 1e-6


def worth(matrix: NDArray[np.int64]) -> float:
    """How good a map is: PA + FWIoU + MPA / 2, of a confusion matrix (K, K) with truth in rows."""
    rows, hits = matrix.sum(axis=1), np.diag(matrix)
    there = rows > 0
    either = rows + matrix.sum(axis=0) - hits
    whole = rows.sum()
    right = hits.sum() / whole
    overlap = (rows[there] * hits[there] / either[there]).sum() / whole
    return float(right + overlap + (hits[there] / rows[there]).mean() / 2)


def fit_class_offsets(log_chances: NDArray[np.float32], target: NDArray[np.int64]) -> NDArray[np.float32]:
    """The number per class that makes maps :func:`worth` most, by moving one at a time.

    Parameters
    ----------
    log_chances : (n, K) float32
        Logs of chances, or calibrated logits.
    target : (n,) int64
        True classes, 0..K-1.

    Returns
    -------
    (K,) float32
        With mean zero. All zero where nothing is known.
    """
    classes = log_chances.shape[1]
    if not len(target):
        return np.zeros(classes, np.float32)
    apart = -(-len(target) // MOST_NODES)
    said, truth = np.ascontiguousarray(log_chances[::apart]), target[::apart] * classes

    def worth_with(offsets: NDArray[np.float32]) -> float:
        named = (said + offsets).argmax(axis=1)
        return worth(np.bincount(truth + named, minlength=classes * classes).reshape(classes, classes))

    offsets = np.zeros(classes, np.float32)
    best = worth_with(offsets)
    for step in STEPS:
        for _ in range(ROUNDS):
            for each in range(classes):
                for move in (step, -step):
                    while True:
                        tried = offsets.copy()
                        tried[each] += np.float32(move)
                        found = worth_with(tried)
                        if found <= best + LEAST_GAIN:
                            break
                        offsets, best = tried, found
    return np.asarray(offsets - offsets.mean(), np.float32)


def decide(chances: NDArray[np.float32], offsets: Sequence[float] | None, axis: int = 0) -> NDArray[np.int64]:
    """The class that is shown, 0..K-1.

    Parameters
    ----------
    chances : ndarray
        With K classes along `axis`, from 0 to 1.
    offsets : sequence of K floats, optional
        Added to their logs; without them the likeliest class is shown.
    axis : int
        Of the classes.
    """
    if offsets is None:
        return np.asarray(chances.argmax(axis=axis))
    shape = [1] * chances.ndim
    shape[axis] = len(offsets)
    # exp(log p + b) is largest where log p + b is.
    factors = np.exp(np.asarray(offsets, np.float32)).reshape(shape)
    return np.asarray((chances * factors).argmax(axis=axis))
