"""Baselines at the nodes of a grid: nearest outcrop, label diffusion, majority, random forest and boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from gravmap.lattice import unit_vectors
from gravmap.learning.data.label_diffusion import class_probabilities, need_outcrop

Labels = NDArray[np.uint8]


def majority(known: Labels) -> Labels:
    """The most frequent known class everywhere.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.

    Returns
    -------
    (ny, nx) uint8
        One class.
    """
    need_outcrop(known)
    counts = np.bincount(known[known > 0])
    return np.full(known.shape, int(counts.argmax()), np.uint8)


def nearest_outcrop(known: Labels, lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> Labels:
    """The class of the nearest known node, by distance on the sphere; uses no gravity.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    lat_deg, lon_deg : (ny,), (nx,) float
        Node coordinates, degrees.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K.

    Examples
    --------
    >>> import numpy as np
    >>> nearest_outcrop(np.array([[1, 0, 0, 2]], np.uint8), np.array([45.0]), np.arange(80.0, 84.0)).tolist()
    [[1, 1, 2, 2]]
    """
    need_outcrop(known)
    points = unit_vectors(lat_deg, lon_deg)
    mask = known.ravel() > 0
    _, index = cKDTree(points[mask]).query(points)
    classes: Labels = known.ravel()[mask][index].reshape(known.shape)
    return classes


def nearest_in_feature_space(
    known: Labels, fields_mgal: NDArray[np.float32], spacing_yx_km: tuple[float, float], neighbours: int = 25
) -> Labels:
    """The most frequent class among the known nodes with the most similar gravity; uses no position.

    Features are each field, its horizontal gradient and its mean over 5 x 5 nodes, standardised.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    fields_mgal : (C, ny, nx) float32
        Fields on the same nodes, mGal.
    spacing_yx_km : (float, float)
        Node spacing along latitude and longitude, km.
    neighbours : int
        Number of nearest neighbours that vote.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K.
    """
    need_outcrop(known)
    features = []
    for field in fields_mgal.astype(np.float64):
        along_y, along_x = np.gradient(field, *spacing_yx_km)
        features += [field, np.hypot(along_y, along_x), uniform_filter(field, 5, mode="nearest")]
    table = np.stack([feature.ravel() for feature in features], axis=1)
    table = (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-12)
    mask = known.ravel() > 0
    _, index = cKDTree(table[mask]).query(table, k=min(neighbours, int(mask.sum())))
    votes = known.ravel()[mask][index.reshape(known.size, -1)]
    counts = np.stack([(votes == value).sum(axis=1) for value in range(1, int(known.max()) + 1)], axis=1)
    classes: Labels = (counts.argmax(axis=1) + 1).astype(np.uint8).reshape(known.shape)
    return classes


def label_diffusion(
    known: Labels, spacing_yx_km: tuple[float, float], guide: NDArray[np.floating] | None = None
) -> Labels:
    """The most probable class of a random walk that starts at a node and ends at the outcrop.

    These probabilities are harmonic functions with the outcrop as boundary.

    Parameters
    ----------
    known, spacing_yx_km, guide
        As in :func:`gravmap.learning.data.label_diffusion.class_probabilities`.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K.
    """
    need_outcrop(known)
    probability = class_probabilities(known, spacing_yx_km, int(known.max()), guide)
    classes: Labels = (probability.argmax(axis=0) + 1).astype(np.uint8)
    return classes


N_ESTIMATORS = 100
MIN_SAMPLES_LEAF = 20
"""Large, because neighbouring nodes of a smooth field are not independent samples."""

MAX_TRAINING_NODES = 40_000
"""Larger training sets are subsampled to this size: more nodes cost time and add no accuracy."""


def random_forest(known: Labels, features: NDArray[np.floating], seed: int) -> Labels:
    """Classes by a random forest (Breiman 2001, doi:10.1023/A:1010933404324), without class weights.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    features : (F, ny, nx) float
        Features at every node; NaN where unknown.
    seed : int
        Seed of the sample of nodes and of the trees.

    Returns
    -------
    (ny, nx) uint8
        Classes 1..K; the most frequent one where a feature is unknown.

    Raises
    ------
    InputError
        No class is known.
    ModuleNotFoundError
        scikit-learn is not installed.
    """
    from sklearn.ensemble import RandomForestClassifier

    return _fit_predict(
        RandomForestClassifier(N_ESTIMATORS, min_samples_leaf=MIN_SAMPLES_LEAF, n_jobs=-1, random_state=seed),
        known,
        features,
        seed,
    )


def boosted_trees(known: Labels, features: NDArray[np.floating], seed: int) -> Labels:
    """Classes by histogram gradient boosting (Friedman 2001, doi:10.1214/aos/1013203451).

    There is no early stopping: scikit-learn would validate on random nodes, next to those of training.

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
        No class is known.
    ModuleNotFoundError
        scikit-learn is not installed.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=60, min_samples_leaf=MIN_SAMPLES_LEAF, early_stopping=False, random_state=seed
    )
    return _fit_predict(model, known, features, seed)


def _fit_predict(model: Any, known: Labels, features: NDArray[np.floating], seed: int) -> Labels:
    """Fit a classifier at the known nodes and predict all nodes."""
    classes = majority(known).ravel()
    table = features.reshape(len(features), -1).T
    complete = np.isfinite(table).all(axis=1)
    rows = np.flatnonzero(complete & (known.ravel() > 0))
    if np.unique(known.ravel()[rows]).size > 1:  # else there is nothing to classify
        if rows.size > MAX_TRAINING_NODES:
            rows = np.random.default_rng(seed).choice(rows, MAX_TRAINING_NODES, replace=False)
        model.fit(table[rows], known.ravel()[rows])
        classes[complete] = model.predict(table[complete])
    result: Labels = classes.reshape(known.shape)
    return result
