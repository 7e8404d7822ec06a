"""Null models node by node: nearest outcrop, label diffusion, majority, forests and boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from gravmap.lattice import EARTH_RADIUS_KM, KM_PER_DEGREE
from gravmap.learning.data.label_diffusion import class_probabilities, need_outcrop

Labels = NDArray[np.uint8]


def majority(known: Labels) -> Labels:
    """The commonest known class everywhere.

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
    """The class of the nearest known node, by distance on the sphere. No gravity at all.

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
    """
    need_outcrop(known)
    points = _on_sphere(lat_deg, lon_deg)
    mask = known.ravel() > 0
    _, index = cKDTree(points[mask]).query(points)
    classes: Labels = known.ravel()[mask][index].reshape(known.shape)
    return classes


def distance_to_outcrop_km(known: Labels, lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Great-circle distance of every node to the nearest known node, km; shape (ny, nx)."""
    need_outcrop(known)
    points = _on_sphere(lat_deg, lon_deg)
    chord, _ = cKDTree(points[known.ravel() > 0]).query(points)
    distance: NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0, 1)).reshape(known.shape)
    return distance


def nearest_in_feature_space(
    known: Labels, fields_mgal: NDArray[np.float32], spacing_yx_km: tuple[float, float], neighbours: int = 25
) -> Labels:
    """The commonest class among the known nodes that look alike in gravity. No position at all.

    Features are each field, its horizontal gradient and its mean over 5 x 5 nodes, each scaled to unit spread.

    Parameters
    ----------
    known : (ny, nx) uint8
        1..K where the class is known, 0 elsewhere.
    fields_mgal : (C, ny, nx) float32
        Fields on the same nodes, mGal.
    spacing_yx_km : (float, float)
        Node spacing along latitude and longitude, km.
    neighbours : int
        How many look-alikes vote.

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
    """The class a random walker is likeliest to meet first (harmonic functions with the outcrop as boundary).

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
    chances = class_probabilities(known, spacing_yx_km, int(known.max()), guide)
    classes: Labels = (chances.argmax(axis=0) + 1).astype(np.uint8)
    return classes


def spacing_yx_km(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> tuple[float, float]:
    """Mean node spacing along latitude and, at the middle latitude, along longitude; km on the mean sphere."""
    along_lat = KM_PER_DEGREE * abs(float(lat_deg[-1] - lat_deg[0])) / (lat_deg.size - 1)
    along_lon = KM_PER_DEGREE * abs(float(lon_deg[-1] - lon_deg[0])) / (lon_deg.size - 1)
    return along_lat, along_lon * float(np.cos(np.radians(np.mean(lat_deg))))


def _on_sphere(lat_deg: NDArray[Any], lon_deg: NDArray[Any]) -> NDArray[np.float64]:
    """Unit vectors of all nodes, (ny * nx, 3)."""
    lat, lon = np.meshgrid(np.radians(lat_deg), np.radians(lon_deg), indexing="ij")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    return points.reshape(-1, 3)


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
