"""Class offsets (logit adjustment): which class a map shows, given calibrated probabilities.

The most probable class has the highest accuracy, but rare classes are almost never shown. One offset per class, added
to the log of the calibrated probabilities before the argmax, can change that (Menon et al. 2021, arXiv:2007.07314,
post-hoc logit adjustment). Offsets are fitted on tuning crusts; the probabilities themselves are not changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEPS = (0.3, 0.15, 0.08)
"""Step sizes of the coordinate search, from coarse to fine."""

ROUNDS = 2
MAX_FITTED_NODES = 300_000
"""Larger sets are subsampled evenly."""

MIN_GAIN = 1e-6


def objective(matrix: NDArray[np.int64]) -> float:
    """Objective of the offsets: PA + FWIoU + MPA / 2 of a confusion matrix (K, K), rows are the truth.

    Examples
    --------
    >>> import numpy as np
    >>> objective(np.array([[4, 0], [0, 4]]))
    2.5
    """
    rows, hits = matrix.sum(axis=1), np.diag(matrix)
    present = rows > 0
    union = rows + matrix.sum(axis=0) - hits
    whole = rows.sum()
    right = hits.sum() / whole
    overlap = (rows[present] * hits[present] / union[present]).sum() / whole
    return float(right + overlap + (hits[present] / rows[present]).mean() / 2)


def fit_class_offsets(log_probability: NDArray[np.float32], target: NDArray[np.int64]) -> NDArray[np.float32]:
    """Fit the class offsets that maximise :func:`objective`, by coordinate search.

    Parameters
    ----------
    log_probability : (n, K) float32
        Log probabilities, or calibrated logits.
    target : (n,) int64
        True classes, 0..K-1.

    Returns
    -------
    (K,) float32
        With mean zero; all zero if there is no node.

    Examples
    --------
    A rare class that is never the most probable one gets a positive offset:

    >>> import numpy as np
    >>> log_probability = np.log(np.array([[0.9, 0.1]] * 9 + [[0.55, 0.45]], np.float32))
    >>> offsets = fit_class_offsets(log_probability, np.array([0] * 9 + [1]))
    >>> bool(offsets[1] > offsets[0])
    True
    """
    classes = log_probability.shape[1]
    if not len(target):
        return np.zeros(classes, np.float32)
    stride = -(-len(target) // MAX_FITTED_NODES)
    scores, truth = np.ascontiguousarray(log_probability[::stride]), target[::stride] * classes

    def objective_with(offsets: NDArray[np.float32]) -> float:
        predicted = (scores + offsets).argmax(axis=1)
        return objective(np.bincount(truth + predicted, minlength=classes * classes).reshape(classes, classes))

    offsets = np.zeros(classes, np.float32)
    best = objective_with(offsets)
    for step in STEPS:
        for _ in range(ROUNDS):
            for each in range(classes):
                for move in (step, -step):
                    while True:
                        tried = offsets.copy()
                        tried[each] += np.float32(move)
                        found = objective_with(tried)
                        if found <= best + MIN_GAIN:
                            break
                        offsets, best = tried, found
    return np.asarray(offsets - offsets.mean(), np.float32)


def predict_class(
    probability: NDArray[np.float32], offsets: Sequence[float] | None, axis: int = 0
) -> NDArray[np.int64]:
    """The class that a map shows, 0..K-1.

    Parameters
    ----------
    probability : ndarray
        Probabilities of K classes along `axis`.
    offsets : sequence of K floats, optional
        Added to their logs; by default the most probable class is taken.
    axis : int
        Axis of the classes.

    Examples
    --------
    >>> import numpy as np
    >>> probability = np.array([0.6, 0.4])
    >>> int(predict_class(probability, None)), int(predict_class(probability, [-0.5, 0.5]))
    (0, 1)
    """
    if offsets is None:
        return np.asarray(probability.argmax(axis=axis))
    shape = [1] * probability.ndim
    shape[axis] = len(offsets)
    # exp(log p + b) is largest where log p + b is.
    factors = np.exp(np.asarray(offsets, np.float32)).reshape(shape)
    return np.asarray((probability * factors).argmax(axis=axis))
