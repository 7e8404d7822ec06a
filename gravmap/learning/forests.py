"""Null models that learn node by node: random forests and boosted trees on whatever is known at every node.

They need scikit-learn (the extra ``peers``), which is imported when they are called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.learning.baselines import Labels, majority

TREES = 100
LEAST_LEAF = 20
"""Nodes in a leaf: neighbours of a smooth field are no independent samples."""

MOST_TAUGHT = 40_000
"""Of more known nodes than these, so many are drawn: beyond, nothing is gained but time."""


def random_forest(known: Labels, features: NDArray[np.floating], seed: int) -> Labels:
    """Classes by a random forest (Breiman 2001, doi:10.1023/A:1010933404324), classes weighted as they come.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    features : (F, ny, nx) float
        What it reads at every node; NaN where unknown.
    seed : int
        Of the draw of nodes and of the trees.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K; the commonest one where a feature is unknown.

    Raises
    ------
    InputError
        Nothing is known.
    ModuleNotFoundError
        scikit-learn is not installed.
    """
    from sklearn.ensemble import RandomForestClassifier

    return _taught(
        RandomForestClassifier(TREES, min_samples_leaf=LEAST_LEAF, n_jobs=-1, random_state=seed), known, features, seed
    )


def boosted_trees(known: Labels, features: NDArray[np.floating], seed: int) -> Labels:
    """Classes by gradient boosting over histograms (Friedman 2001, doi:10.1214/aos/1013203451).

    No early stopping: scikit-learn would stop on nodes drawn at random, which lie beside those learned from.

    Parameters
    ----------
    known, features, seed
        As in :func:`random_forest`.

    Returns
    -------
    (ny, nx) uint8
        As in :func:`random_forest`.

    Raises
    ------
    InputError
        Nothing is known.
    ModuleNotFoundError
        scikit-learn is not installed.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=60, min_samples_leaf=LEAST_LEAF, early_stopping=False, random_state=seed
    )
    return _taught(model, known, features, seed)


def _taught(model: Any, known: Labels, features: NDArray[np.floating], seed: int) -> Labels:
    """Teach a classifier at the known nodes and let it name them all."""
    classes = majority(known).ravel()
    table = features.reshape(len(features), -1).T
    complete = np.isfinite(table).all(axis=1)
    taught = np.flatnonzero(complete & (known.ravel() > 0))
    if np.unique(known.ravel()[taught]).size > 1:  # of one class, or of none, nothing is to be told apart
        if taught.size > MOST_TAUGHT:
            taught = np.random.default_rng(seed).choice(taught, MOST_TAUGHT, replace=False)
        model.fit(table[taught], known.ravel()[taught])
        classes[complete] = model.predict(table[complete])
    result: Labels = classes.reshape(known.shape)
    return result
